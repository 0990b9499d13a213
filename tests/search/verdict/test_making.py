"""`archspec verdict --data --hours --out`: a run with what a verdict compares, all of it faked."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import archspec.nnunet.dataset
import search.launch
import search.retrain.confirm
import search.study.run
from search.retrain.confirm import TABLE
from search.retrain.retrain import read_trained
from search.study.hours import Speed
from search.study.protocol import LOCK
from search.trials.host import Cluster
from search.verdict.judge import PAGE

Cli = Callable[..., tuple[int, str, str]]
Make = Callable[..., tuple[int, str, str]]


@pytest.fixture
def make(
    tmp_path: Path,
    inputs: Any,
    fakes: SimpleNamespace,
    scoring_pool: Callable[..., Any],
    in_place_of_workers: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,
) -> Make:
    """Return a function that asks for a verdict of three hours, into tmp_path / "run".

    The search thinks well of what attends; on test cases the wider of the planned networks wins.
    """

    def attends(task: Any) -> bool:
        kinds = [stage["mixer"]["kind"] for stage in task.tree["encoder"]["stages"]]
        return "attention" in kinds

    def is_planned(task: Any) -> bool:
        return "nnUNetPlans" in task.tree["name"]

    def scored(task: Any, part: str, index: int) -> float:
        noise = 0.002 * (index % 5) + 0.001 * (task.seed % 3)
        return 0.5 + 0.2 * is_planned(task) + noise

    monkeypatch.setattr(
        search.study.run,
        "WorkerPool",
        lambda settings, jobs: fakes.FakePool(dice=lambda task, step: 0.5 + 0.3 * attends(task)),
    )
    speed = Speed(1.0, 0.0, ((1.0, 1.0),), 1)
    monkeypatch.setattr(search.launch, "measure_speed", lambda *_, **__: speed)
    for module in (archspec.nnunet.dataset, search.retrain.confirm):
        monkeypatch.setattr(module, "find_dataset", lambda *_, **__: inputs)

    def run(*options: object) -> tuple[int, str, str]:
        in_place_of_workers(scoring_pool(scored))
        given = ("--data", 901, "--hours", 0.1, "--out", tmp_path / "run", "--device", "cpu")
        return cli("verdict", *given, "--space", tmp_path / "space.yaml", *options)

    return run


def test_persons_are_held_out_whole_and_count(make: Make, tmp_path: Path) -> None:
    names = [f"case_{number}" for number in range(60)]
    owners = {case: f"p{number // 2}" for number, case in enumerate(names)}
    (tmp_path / "persons.json").write_text(json.dumps(owners), encoding="utf-8")
    code, _, err = make("--seeds", 2, "--groups", tmp_path / "persons.json")
    assert code == 0, err
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["persons"] == owners
    test = set(record["test_cases"])
    persons = {owners[case] for case in test}
    assert not persons & {owners[case] for case in names if case not in test}
    assert f"{len(persons)} test persons" in (tmp_path / "run" / PAGE).read_text(encoding="utf-8")


def test_persons_of_whom_no_part_can_be_made_are_refused_before_steps_are_timed(
    make: Make, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search.launch, "measure_speed", None)
    file = tmp_path / "one.json"
    file.write_text(json.dumps({f"case_{n}": "one" for n in range(60)}), encoding="utf-8")
    space = ("search", tmp_path / "space.yaml", "--dry-run", "--device", "cpu", "--groups", file)
    for code, out, err in (make("--groups", file), cli(*space, "--data", 901)):
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert "of two persons or more" in err
    assert not (tmp_path / "run").exists()
    assert cli(*space)[2] == "archspec: search: --groups needs --data, whose cases it names\n"


def test_it_plans_searches_trains_the_rivals_and_judges(make: Make, tmp_path: Path) -> None:
    code, out, err = make("--margin", 0.02, "--seeds", 2)
    run = tmp_path / "run"
    assert code == 0, err
    assert "2 new seeds for each network of the front" in out
    assert "the front and its rivals again" in out
    assert json.loads((run / LOCK).read_text(encoding="utf-8"))["margin"] == 0.02
    trained = read_trained(run / TABLE)
    assert {"trial 4", "trial 5"} <= {one.name for one in trained}, "the curve is not on the front"
    assert len({one.protocol for one in trained}) == 1 and trained[0].protocol
    assert re.search(
        r"keep nnU-Net's network: trial \d+, the best spec found, is worse", " ".join(out.split())
    )
    assert (run / PAGE).is_file() and out.endswith(f"wrote {run / PAGE}\n")
    assert "it costs less than all of the curve" in out
    code, out, err = make("--resume")
    assert code == 2 and "its protocol says margin 0.02, seeds 2, which other options" in err


def test_a_cluster_searches_and_trains_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    for module in (search.study.run, search.retrain.confirm):
        monkeypatch.setattr(module, "engine_of", lambda host: seen.append(host.cluster))
    code, _, err = make("--address", "h:1")
    assert code == 2 and "goes with" in err and not seen
    asked = ("--engine", "ray", "--address", "h:1", "--gpus-per-job", 0, "--cpus-per-job", 3)
    code, _, err = make("--seeds", 2, *asked)
    assert code == 0, err
    assert seen == [Cluster(address="h:1", cpus_per_job=3)] * 2


@pytest.mark.long
def test_a_question_about_a_mixer_trains_its_rival(make: Make, tmp_path: Path) -> None:
    code, out, err = make("--mixer", "attention", "--seeds", 2, "--json")
    assert code == 0 and err.startswith("plan for 0.1 hours"), err
    found = json.loads(out)
    assert found["answer"] == "mixer" and found["sentence"].endswith(": not shown")
    assert not (tmp_path / "run" / PAGE).exists()
    code, _, err = make("--mixer", "tomm")
    assert code == 2 and "tiny has no mixer 'tomm'" in err and err.count("\n") == 1


def test_a_run_of_search_has_a_protocol_and_confirm_trains_its_rivals(
    make: Make, tmp_path: Path, cli: Cli
) -> None:
    """And a changed lock is refused before anything is trained under it."""
    given = ("--data", 901, "--trials", 6, "--out", tmp_path / "run", "--device", "cpu")
    assert cli("search", tmp_path / "space.yaml", *given, "--confirm-seeds", 0)[0] == 0
    run = tmp_path / "run"
    assert json.loads((run / LOCK).read_text(encoding="utf-8"))["seeds"] == 3
    code, _, err = cli("verdict", run)
    assert code == 2 and "has 0 of 3 new trainings of trial 1" in err
    content = (run / LOCK).read_text(encoding="utf-8")
    (run / LOCK).write_text(content.replace('"margin": 0.01', '"margin": 0.1'), encoding="utf-8")
    code, _, err = cli("confirm", run, "--device", "cpu", "--rivals")
    assert code == 2 and "but sessions.jsonl notes" in err and not (run / TABLE).exists()
