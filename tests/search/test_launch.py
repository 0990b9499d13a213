"""`search.run`: the options of the verb, from Python, with trainings that cost nothing."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import archspec.cli.search
import archspec.nnunet.dataset
import search
import search.launch
import search.retrain.confirm
import search.study.run
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.study.task import SearchTask
from search.trials.host import TrainingHost

CASES = [f"case_{number}" for number in range(12)]
ONLY_THE_VERBS = {"context", "dry_run", "seconds_per_step"}


@pytest.fixture
def launch(
    tmp_path: Path,
    dataset: PreprocessedDataset,
    space_tree: dict[str, Any],
    fakes: SimpleNamespace,
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Return a function that searches six networks; gives the study and run.json."""
    (tmp_path / "space.yaml").write_text(dump(space_tree), encoding="utf-8")
    fakes.fake_dataset(dataset.folder, cases=len(CASES))
    folds = [{"train": CASES[4:], "val": CASES[:4]}]
    (dataset.folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    monkeypatch.setattr(search.study.run, "WorkerPool", lambda settings, jobs: fakes.FakePool())
    for module in (search.launch, search.retrain.confirm):
        monkeypatch.setattr(module, "find_dataset", lambda *_, **__: dataset)

    def run(**options: Any) -> tuple[Any, dict[str, Any]]:
        in_place_of_workers(scoring_pool(lambda *_: 0.5))
        options = {"space": tmp_path / "space.yaml", "out": tmp_path / "run", **options}
        study = search.run(options.pop("space"), data=901, trials=2, device="cpu", **options)
        return study, json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))

    return run


def test_parameters_are_the_options_of_the_verb() -> None:
    verb = inspect.signature(archspec.cli.search.search).parameters
    function = {
        {"patch_size": "patch", "batch_size": "batch"}.get(name, name): parameter
        for name, parameter in inspect.signature(search.run).parameters.items()
    }
    assert set(function) - {"on_event", "cases"} == set(verb) - ONLY_THE_VERBS
    for name in set(function) - {"on_event", "cases", "data", "trials", "out", "overrides"}:
        assert function[name].default == verb[name].default, name


def test_the_verb_and_the_function_ask_for_the_same(
    launch: Callable[..., Any],
    dataset: PreprocessedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.setattr(archspec.nnunet.dataset, "find_dataset", lambda *_, **__: dataset)
    asked: list[tuple[Any, ...]] = []

    def ask(task: SearchTask, *, watcher: Any, rivals: bool = False, **rest: Any) -> Any:
        assert not rivals
        asked.append((task.space.source.tree, task.space.settings, task.host, task.groups, rest))
        assert (task.dataset, task.folder, task.trials) == (dataset, tmp_path / "run", 2)
        raise SpecError("no more")

    monkeypatch.setattr(search.launch, "run_task", ask)
    options = {"jobs": 2, "threads": 3, "fold": 1, "seed": 4, "plans": "mine", "confirm_seeds": 5}
    options |= {"max_gflops": 1.5, "max_params": 2e6, "max_memory": "12GB", "test_share": 0.25}
    options |= {"groups": tmp_path / "persons.csv"}
    sizes = {"patch_size": (16, 16, 24), "batch_size": 3, "stages_from_dataset": True}
    with pytest.raises(SpecError, match="no more"):
        launch(resume=True, stopper="none", sampler="nsga2", **options, **sizes)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    given = [word.replace("_", "-") if isinstance(word, str) else word for word in words]
    given += ["--patch", "16,16,24", "--batch", 3, "--stages-from-dataset", "--sampler", "nsga2"]
    fixed = ("--data", 901, "--trials", 2, "--out", tmp_path / "run", "--device", "cpu")
    code, _, err = cli(
        "search", tmp_path / "space.yaml", *fixed, "--resume", "--stopper", "none", *given
    )
    assert code == 2 and "no more" in err
    assert asked[0] == asked[1]
    settings = asked[0][1]
    assert (settings.patch_size, settings.batch_size) == ((16, 16, 24), 3)
    assert settings.stages_from_dataset and settings.sampler.kind == "nsga2"
    assert asked[0][3] == tmp_path / "persons.csv"
    assert asked[0][2] == TrainingHost(
        devices=("cpu", "cpu"), threads=3, fold=1, seed=4, plans="mine"
    )


def test_options_reach_the_run(launch: Callable[..., Any], tmp_path: Path) -> None:
    events: list[Any] = []
    study, record = launch(
        overrides=["search.steps=9"],
        max_gflops=50,
        max_params=2e6,
        max_memory="12GB",
        stopper="none",
        seed=3,
        on_event=events.append,
    )
    assert study.best_trials and events
    settings = record["settings"]
    assert (record["seed"], settings["steps"], settings["stopper"]) == (3, 9, "none")
    assert settings["limits"] == {"gflops": 50, "params": 2e6, "memory": "12GB"}
    assert not (tmp_path / "run" / search.retrain.confirm.RESULT).exists()


def test_a_patch_holds_for_the_whole_run(
    launch: Callable[..., Any],
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Networks, batches and windows of search, resumed search and confirmation have it."""
    seen: list[PreprocessedDataset] = []

    def pool(settings: Any, jobs: Any) -> Any:
        seen.append(settings.dataset)
        return fakes.FakePool()

    monkeypatch.setattr(search.study.run, "WorkerPool", pool)
    real = search.retrain.confirm.retrain

    def retrain(jobs: Any, *, settings: Any, **rest: Any) -> Any:
        seen.append(settings.dataset)
        return real(jobs, settings=settings, **rest)

    monkeypatch.setattr(search.retrain.confirm, "retrain", retrain)
    study, record = launch(patch_size=(16, 24, 32), batch_size=3, stages_from_dataset=True)
    small = study.trials[0].user_attrs["flops"]
    assert record["settings"]["patch_size"] == [16, 24, 32]
    out = tmp_path / "run"
    with pytest.raises(SpecError, match="settings differ"):
        launch(resume=True, patch_size=(16, 16, 16))
    task = search.launch.SearchTask(
        search.load_space(tmp_path / "space.yaml"), search.launch.find_dataset(901), out, 4
    )
    search.launch.run_task(task, resume=True, confirm_seeds=1)
    assert len(seen) == 3 and {one.patch_size for one in seen} == {(16, 24, 32)}
    assert seen[0].plans["configurations"]["3d_fullres"]["patch_size"] == [16, 24, 32]
    sessions = (out / "sessions.jsonl").read_text(encoding="utf-8").split("\n")
    sizes = [json.loads(line)["input"]["patch_size"] for line in sessions if line]
    assert sizes == [[16, 24, 32]] * 2
    plain, _ = launch(out=tmp_path / "plain")
    assert small == pytest.approx(3 * plain.trials[0].user_attrs["flops"], rel=0.01)


@pytest.mark.parametrize(("asked", "seeds"), [(None, 3), (2, 2), (0, 0)])
def test_a_test_part_is_scored_at_the_end(
    launch: Callable[..., Any], tmp_path: Path, asked: int | None, seeds: int
) -> None:
    launch(test_share=0.25, confirm_seeds=asked)
    file = tmp_path / "run" / search.retrain.confirm.RESULT
    assert file.exists() == bool(seeds)
    if seeds:
        assert json.loads(file.read_text(encoding="utf-8"))["seeds"] == seeds


def test_control_is_asked_for(launch: Callable[..., Any]) -> None:
    with pytest.raises(SpecError, match="it is its own control"):
        launch(control=True)


def test_a_loaded_space_takes_no_more_overrides(launch: Callable[..., Any], tmp_path: Path) -> None:
    space = search.load_space(tmp_path / "space.yaml")
    with pytest.raises(SpecError, match=r"-s search.limits.gflops=5: the space is loaded already"):
        launch(space=space, max_gflops=5)
    assert not (tmp_path / "run").exists()
    assert launch(space=space)[0].trials
