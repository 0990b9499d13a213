"""The verb search with trainings that cost nothing: its options, its end, and its refusals."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

import archspec.nnunet.dataset
import search.retrain.confirm
import search.study.run
from archspec.spec.yaml_file import dump
from search.report.write import front_rows
from search.retrain.confirmation import RESULT
from search.space.space import load_space
from search.study.storage import open_run

Cli = Callable[..., tuple[int, str, str]]
CASES = [f"case_{number}" for number in range(12)]


@pytest.fixture
def searched(
    tmp_path: Path,
    fakes: SimpleNamespace,
    space_tree: dict[str, Any],
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `archspec search` on six networks, into tmp_path / "run"."""

    def dice(task: Any, *_: Any) -> float:
        return 0.3 + 0.1 * float(task.tree["encoder"]["stages"][0]["width"])

    path = tmp_path / "space.yaml"
    second = {"width": 4, "mixer": {"choice": [{"kind": "conv"}, {"kind": "attention"}]}}
    encoder = {"stages": [space_tree["encoder"]["stages"][0], second]}
    tree = {**space_tree, "encoder": encoder, "search": {"steps": 27}}
    path.write_text(dump(tree), encoding="utf-8")
    dataset = fakes.fake_dataset(tmp_path / "preprocessed", cases=len(CASES))
    folds = [{"train": CASES[4:], "val": CASES[:4]}]
    (dataset.folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")

    def run(
        *options: object, trials: int = 6, fate: Any = None, dice: Any = dice
    ) -> tuple[int, str, str]:
        pool = fakes.FakePool(dice=dice, fate=fate)
        monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: pool)
        in_place_of_workers(scoring_pool(dice))
        for module in (archspec.nnunet.dataset, search.retrain.confirm):
            monkeypatch.setattr(module, "find_dataset", lambda *_, **__: dataset)
        given = ("--data", 901, "--trials", trials, "--out", tmp_path / "run", "--device", "cpu")
        return cli("search", path, *given, *options)

    return run


def test_test_cases_make_it_confirm_with_three_seeds(
    searched: Callable[..., Any], tmp_path: Path
) -> None:
    code, out, err = searched("--test-share", 0.25, "--stopper", "none")
    assert code == 0, err
    run = tmp_path / "run"
    points = len(front_rows(run))
    said = f"{points} networks x 3 new seeds = {3 * points} trainings of 27 steps, scored once on 3"
    assert said in out
    assert f"[0/{3 * points}] {3 * points} of {3 * points} trainings to do" in err
    assert "trained again with 3 seeds" in out and out.endswith(f"next: archspec report {run}\n")
    found = json.loads((run / RESULT).read_text(encoding="utf-8"))
    assert found["seeds"] == 3 and found["compared_on"] == "test"
    code, out, err = searched("--test-share", 0.25, "--stopper", "none", "--resume")
    assert code == 0 and "trainings to do" not in err, "nothing is trained twice"
    assert json.loads((run / RESULT).read_text(encoding="utf-8")) == found


@pytest.mark.parametrize(
    ("options", "seeds"),
    [((), 0), (("--confirm-seeds", 1), 1), (("--test-share", 0.25, "--confirm-seeds", 0), 0)],
)
def test_confirmation_can_be_left_out_and_asked_for(
    searched: Callable[..., Any], tmp_path: Path, options: tuple[object, ...], seeds: int
) -> None:
    code, out, err = searched(*options, trials=2)
    assert code == 0, err
    assert (tmp_path / "run" / RESULT).exists() == bool(seeds)
    points = len(front_rows(tmp_path / "run"))
    if not seeds:
        assert f"confirm {tmp_path / 'run'} trains the {points} of the front again with 3" in out


def test_a_signal_tells_a_command_that_goes_on(
    searched: Callable[..., Any], tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def ended(task: Any, step: int, *_: Any) -> float:
        if (task.number, step) == (2, 9):
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.5

    try:
        code, _, err = searched("--stopper", "none", dice=ended)
    finally:
        signal.signal(signal.SIGTERM, before)
    command = shlex.join(["archspec", *sys.argv[1:], "--resume"])
    assert (code, err) == (143, f"stopped; go on with {command}\n")
    trials = open_run(tmp_path / "run")[0].trials
    assert [t.number for t in trials if t.state == TrialState.RUNNING] == [2]
    code, _, err = searched("--stopper", "none", "--resume")
    assert code == 0, err
    heirs = [t for t in open_run(tmp_path / "run")[0].trials if "resumed_from" in t.user_attrs]
    assert [t.user_attrs["resumed_from"] for t in heirs] == [2]


def test_control_searches_the_control_space(searched: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = searched("--control")
    assert code == 0, err
    space = load_space(tmp_path / "run" / "space.yaml")
    assert space.name == "tiny-control"
    mixers = [hole.options for hole in space.holes() if hole.name.endswith("mixer")]
    assert mixers == [("conv", "identity")]
    code, out, err = searched("--resume")
    assert (code, out) == (2, "") and "space differ from the run's" in err


def test_settings_that_stay_are_told(searched: Callable[..., Any]) -> None:
    assert (
        searched("--max-gflops", 0.05, "--test-share", 0.25, "--confirm-seeds", 0, trials=1)[0] == 0
    )
    code, out, _ = searched("--resume", "--confirm-seeds", 0, trials=2)
    assert code == 0
    line = "the run's own settings stay, since this command gives none: "
    assert out.startswith(f"{line}limits.gflops 0.05, test_share 0.25\n")


def test_a_run_in_which_nothing_finished_says_what_happened(
    searched: Callable[..., Any], tmp_path: Path, cli: Cli
) -> None:
    code, out, _ = searched("--max-gflops", 0.000001)
    assert code == 1
    last = out.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'run'}: no trial has finished yet: ")
    assert re.search(r": \d+ over limit \(GFLOPs over the limit of 1e-06\)$", last)
    for verb in (("report",), ("best", "-o", tmp_path / "best.yaml")):
        code, out, err = cli(verb[0], tmp_path / "run", *verb[1:])
        assert (code, out) == (2, "") and last in err and err.count("\n") == 1
    assert not (tmp_path / "best.yaml").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-gflops", "-1"), "archspec: --max-gflops -1: must be greater than 0, but is -1"),
        (("--max-params", "0"), "archspec: --max-params 0: must be greater than 0"),
        (("--max-memory", "12"), "archspec: --max-memory 12: must be"),
        (("--test-share", "1"), "archspec: --test-share 1: must be less than 1, but is 1"),
        (("--stopper", "pas"), "archspec: --stopper pas: 'pas' is not allowed; allowed: pash"),
        (("-s", "search.stepps=3"), "search.stepps: unknown key; allowed: steps,"),
        (("-s", "search.stepps=3"), "did you mean 'steps'?"),
        (("-s", "search.limits.gflop=3"), "did you mean 'gflops'?"),
    ],
)
def test_a_wrong_setting_is_named_as_it_was_typed(
    searched: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    code, out, err = searched(*options)
    assert (code, out) == (2, "")
    assert words in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


IMPORTS = """
import sys
from archspec.cli.main import main
for arguments in sys.argv[1:]:
    sys.argv = ["archspec", "search", *arguments.split()]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == 2, ended.code
    heavy = {"torch", "optuna", "nnunetv2", "scipy"} & set(sys.modules)
    assert not heavy, heavy
"""


def test_cheap_checks_come_before_heavy_imports(tmp_path: Path) -> None:
    wanted = {
        "demo": "--data, --trials, --out missing",
        "demo --seconds-per-step 1": "goes with --dry-run only",
    }
    line = [sys.executable, "-W", "ignore", "-c", IMPORTS, *wanted]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()
    assert len(told) == len(wanted)
    assert all(words in text for words, text in zip(wanted.values(), told, strict=True)), told
