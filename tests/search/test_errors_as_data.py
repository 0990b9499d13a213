"""Nothing is decided by what a refusal says: with every refusal reading `error`, all goes alike."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import archspec
import archspec.cli.refusal
import archspec.nnunet.dataset
import blocks.errors
import search.study.run
from archspec.network.input_sizes import InputSizes
from archspec.network.resolve import resolve
from archspec.spec.yaml_file import dump
from blocks.errors import SpecError
from search.space.space import load_space
from search.study.end import End
from search.study.storage import open_run
from search.study.trial_record import end_of
from search.trials.worker import Message

Cli = Callable[..., tuple[int, str, str]]
MUTED = "error"

SPACE: dict[str, Any] = {
    "name": "wide",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": {"choice": [2, 3, 4, 12]}, "mixer": {"kind": "conv"}},
            {
                "width": {"choice": [4, 6]},
                "mixer": {
                    "choice": [{"kind": "conv"}, {"kind": "attention", "num_heads": 4}],
                    "name": "mixer",
                },
            },
        ]
    },
    "decoder": {"kind": "sum"},
    "search": {"steps": 27, "stopper": "none", "limits": {"params": 4_000}},
}
"""Some draws are no networks (6 channels, 4 heads), some over the limit, some drawn before."""


@pytest.fixture(params=[False, True], ids=["told", "muted"])
def mute(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        for module in (blocks.errors, archspec.cli.refusal):
            monkeypatch.setattr(module, "render", lambda problems: MUTED)
    return bool(request.param)


def test_loading_resolving_and_locating(mute: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    tree = archspec.load("small-unet").tree()
    path.write_text(dump({**tree, "nmae": "x", "training": {"lr": "fast"}}), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        archspec.load(path)
    assert {one.field for one in caught.value.problems} == {"nmae", "training.lr"}
    assert all(one.where and one.where.line for one in caught.value.problems)
    assert (str(caught.value) == MUTED) is mute
    with pytest.raises(SpecError) as caught:
        resolve("small-unet", InputSizes(patch_size=(30, 32, 32), exact=True))
    (one,) = caught.value.problems
    assert one.where == blocks.errors.argument("patch_size", (30, 32, 32))
    override = "patch_size=[30, 32, 32]"
    with pytest.raises(SpecError) as caught:
        resolve("small-unet", InputSizes(exact=True), overrides=[override])
    (one,) = caught.value.problems
    assert one.where == blocks.errors.Place(override, kind="override")
    kind = "encoder.stages.0.mixer.kind=attention"
    with pytest.raises(SpecError) as caught:
        resolve("mamba-unet", overrides=[kind])
    assert {one.where for one in caught.value.problems} == {
        blocks.errors.Place(kind, kind="override")
    }


@pytest.fixture
def searching(
    tmp_path: Path, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `archspec search` on the space, into tmp_path / "run"."""
    path = tmp_path / "space.yaml"
    path.write_text(dump(SPACE), encoding="utf-8")
    dataset = fakes.fake_dataset(tmp_path / "preprocessed")

    def run(*options: object) -> tuple[int, str, str]:
        pool = fakes.FakePool(fate={n: Message(n, "failed", reason="a reason") for n in range(3)})
        monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: pool)
        monkeypatch.setattr(archspec.nnunet.dataset, "find_dataset", lambda *_, **__: dataset)
        given = ("--data", 901, "--out", tmp_path / "run", "--device", "cpu", "--seed", 3)
        return cli("search", path, *given, *options)

    return run


def test_search_resume_and_report(
    mute: bool, searching: Callable[..., Any], cli: Cli, tmp_path: Path
) -> None:
    """Every end of a trial occurs; what became of each is asserted in both runs."""
    run = tmp_path / "run"
    assert searching("--trials", 3)[0] == 0
    code, _, err = searching("--trials", 3)
    assert code == 2 and (MUTED in err) is mute
    assert searching("--trials", 40, "--resume")[0] == 0
    study, _ = open_run(run)
    ends = {end: sum(end_of(t) is end for t in study.trials) for end in End}
    assert ends[End.COMPLETED] and ends[End.FAILED] and ends[End.INVALID] and ends[End.OVER_LIMIT]
    assert ends[End.REPEATED] and not ends[End.LOST]
    code, out, _ = cli("report", run, "--json")
    assert code == 0
    said = json.dumps(json.loads(out))
    assert (MUTED in said) >= mute
    states = _states(run)
    assert states.count("invalid") == ends[End.INVALID]
    assert states.count("over limit") == ends[End.OVER_LIMIT]
    assert states.count("not new") == ends[End.REPEATED]


def _states(run: Path) -> list[str]:
    from search.report.trials import read_trials

    study, record = open_run(run)
    return [trial.state for trial in read_trials(run, study, record)]


def test_a_space_is_refused_where_it_is_wrong(mute: bool, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(dump({**SPACE, "search": {"stpes": 3, "stopper": "x"}}), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_space(path)
    assert {one.field for one in caught.value.problems} == {"search.stpes", "search.stopper"}
