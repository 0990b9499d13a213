"""`archspec control` on runs of a space and of its control, made by a pool that does not train."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.study.run
from archspec.spec.yaml_file import dump
from search.space.control import control_space
from search.space.space import load_space
from search.study.task import SearchTask
from search.trials.host import TrainingHost

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mixed(space_tree: dict[str, Any], tmp_path: Path) -> Path:
    """Return a space in which the second stage may have attention."""
    first, second = space_tree["encoder"]["stages"]
    mixer = {"choice": [{"kind": "conv"}, {"kind": "attention"}]}
    tree = {**space_tree, "encoder": {"stages": [first, {**second, "mixer": mixer}]}}
    path = tmp_path / "space.yaml"
    path.write_text(dump({**tree, "search": {"steps": 27, "stopper": "none"}}), encoding="utf-8")
    return path


@pytest.fixture
def make(
    mixed: Path, tmp_path: Path, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Return a function that runs a search, or its control, in which attention is worth 0.2."""

    def dice(task: Any, step: int) -> float:
        first, second = task.tree["encoder"]["stages"]
        bonus = 0.2 * (second["mixer"]["kind"] == "attention")
        return float(0.3 + 0.05 * first["width"] + bonus + 0.0001 * (task.seed % 10))

    def run(name: str, *, seed: int, control: bool, overrides: tuple[str, ...] = ()) -> Path:
        space = load_space(mixed, overrides=overrides)
        pool = fakes.FakePool(dice=dice)
        monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: pool)
        search.study.run.run(
            SearchTask(
                control_space(space) if control else space,
                fakes.fake_dataset(tmp_path / "preprocessed"),
                tmp_path / name,
                6,
                TrainingHost(seed=seed),
            )
        )
        return tmp_path / name

    return run


def test_searches_and_controls_are_told_apart_and_compared(
    make: Callable[..., Path], cli: Cli
) -> None:
    runs = [
        make(f"{kind}{seed}", seed=seed, control=kind == "c") for kind in "sc" for seed in range(2)
    ]
    shuffled = [runs[2], runs[0], runs[3], runs[1]]
    code, out, err = cli("control", *shuffled)
    assert code == 0, err
    lines = out.splitlines()[1:5]
    assert all(line.startswith(str(run)) for line, run in zip(lines, runs, strict=True))
    rows = [line.removeprefix(str(run)).split() for line, run in zip(lines, runs, strict=True)]
    assert [row[0] for row in rows] == ["search", "search", "control", "control"]
    assert out.splitlines()[-1].startswith("mixers matter: hypervolume +0.")
    code, out, _ = cli("control", *shuffled, "--json")
    found = json.loads(out)
    assert code == 0 and 0 < found["low"] < found["difference"] < found["high"]
    assert found["searches"][str(runs[0])] == pytest.approx(float(rows[0][1]), abs=1e-4)
    code, out, _ = cli("control", runs[0], runs[2], "--json")
    assert code == 0 and json.loads(out)["low"] is None
    assert "cannot tell" in json.loads(out)["verdict"]


@pytest.mark.long
def test_runs_that_do_not_belong_together_are_refused(make: Callable[..., Path], cli: Cli) -> None:
    run = make("s", seed=0, control=False)
    wider = ("encoder.stages.1.width=8",)
    patch = ("search.patch_size=[16,16,32]",)
    for runs, words in (
        ([run, make("p", seed=0, control=True, overrides=patch)], "its patch_size differ from"),
        ([run], "no control (a run of archspec search --control) among"),
        ([run, make("other", seed=1, control=False, overrides=wider)], "no control"),
        ([run, make("c", seed=0, control=True, overrides=wider)], "is not the control of"),
    ):
        code, out, err = cli("control", *runs)
        assert (code, out) == (2, "") and words in err and err.count("\n") == 1
