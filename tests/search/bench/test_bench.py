"""A bench: with trainings that cost nothing, and with real ones that are cut off once."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

import search.trials.worker
from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from archspec.nnunet.persons import Persons, read_persons
from archspec.nnunet.splits import split_cases
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.bench.arena import NetworkOptions, arena
from search.bench.result import Bench
from search.bench.run import bench
from search.bench.settings import RESULT, BenchTask, Comparing, table_of
from search.retrain.retrain import Progress, read_trained
from search.trials.host import TrainingHost
from search.trials.train import METRICS, Rung, TrialTask
from search.trials.worker import Message, WorkerSettings

SPLITS = [
    {"train": ["case_0", "case_1", "case_2"], "val": ["case_3", "case_4"]},
    {"train": ["case_3", "case_4", "case_0"], "val": ["case_1", "case_2"]},
]
WIDTHS = {"narrow": 2, "wide": 4}


def tree(name: str, width: int) -> dict[str, Any]:
    return {
        "name": name,
        "patch_size": [16, 16, 16],
        "encoder": {"stages": [{"width": width, "mixer": {"kind": "conv"}}]},
        "decoder": {"kind": "sum"},
    }


@pytest.fixture
def networks(tmp_path: Path) -> list[str]:
    for name, width in WIDTHS.items():
        (tmp_path / f"{name}.yaml").write_text(dump(tree(name, width)), encoding="utf-8")
    return [str(tmp_path / f"{name}.yaml") for name in WIDTHS]


def scored(task: TrialTask, part: str, index: int) -> float:
    """Return a Dice that is 0.1 higher for the wide network, and varies by seed and case."""
    wide = task.tree["encoder"]["stages"][0]["width"] == WIDTHS["wide"]
    return 0.6 + 0.1 * wide + 0.02 * index + 0.01 * (task.seed % 3) + 0.003 * wide * index


@pytest.fixture
def engine(scoring_pool: type) -> Any:
    """Return a function that makes an engine whose trainings cost nothing, and keeps them all."""
    pools: list[Any] = []

    def make(settings: WorkerSettings, devices: list[str]) -> Any:
        pool = scoring_pool(scored, jobs=len(devices))
        pool.validation = split_cases(settings.dataset, fold=settings.fold).validation
        pools.append(pool)
        return pool

    make.pools = pools  # type: ignore[attr-defined]
    return make


@pytest.fixture
def task(dataset: PreprocessedDataset, networks: list[str], tmp_path: Path) -> BenchTask:
    (dataset.folder / "splits_final.json").write_text(json.dumps(SPLITS), encoding="utf-8")
    found = arena(networks, dataset, NetworkOptions())
    return BenchTask(arenas=(found,), folder=tmp_path / "out", folds=(0, 1), seeds=2, steps=8)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_networks_are_compared(task: BenchTask, engine: Any) -> None:
    shown: list[Progress] = []
    found = bench(task, on_progress=shown.append, make_engine=engine)
    assert [(one.done, one.total) for one in shown][-1] == (8, 8)
    assert found.labels == ["narrow", "wide"]
    narrow, wide = found.standings
    assert narrow.mean == pytest.approx(0.615)
    assert wide.mean == pytest.approx(0.7165)
    assert narrow.low <= narrow.mean <= narrow.high  # type: ignore[operator]
    assert narrow.by_seed == pytest.approx((0.61, 0.62))
    assert wide.params > narrow.params
    (versus,) = found.differences
    assert (versus.difference.a, versus.difference.b) == ("wide", "narrow")
    assert versus.difference.mean == pytest.approx(0.1015)
    assert versus.difference.low > 0.05 and versus.units == 4
    assert found.ranks == {"narrow": 2.0, "wide": 1.0} and found.num_blocks == 2
    folder = task.folder
    assert json.loads((folder / RESULT).read_text(encoding="utf-8")) == found.to_json()
    table = rows(folder, "rows.csv")
    assert [(row["network"], row["fold"], row["seed"]) for row in table] == [
        (name, fold, seed) for name in WIDTHS for fold in "01" for seed in "01"
    ]
    by_case = [row for row in rows(folder, "cases.csv") if row["network"] == "narrow"]
    assert {row["case"] for row in by_case} == {f"case_{n}" for n in (1, 2, 3, 4)}
    assert np.mean([float(row["dice"]) for row in by_case]) == pytest.approx(narrow.mean)


def test_papers_parts(task: BenchTask, engine: Any) -> None:
    found = bench(replace(task, comparing=Comparing(margin=0.005)), make_engine=engine)
    text = {path.name: path.read_text(encoding="utf-8") for path in task.folder.glob("*.*")}
    lines = [line for line in text["table.md"].splitlines() if line.startswith("|")]
    assert len(lines) == 4 and {line.count("|") for line in lines} == {10}
    assert "+10.15 [" in lines[3] and "| baseline |" in lines[2]
    cells = [line.count("&") for line in text["table.tex"].splitlines() if line.endswith(r"\\")]
    assert cells == [8, 8, 8]
    assert r"Dataset901\_X" in text["table.tex"]
    for number in found.settings.versions.values():
        assert number in text["methods.md"] and number in text["references.bib"]
    assert "VERSION" not in text["references.bib"]
    keys = {part.partition(",")[0] for part in text["references.bib"].split("{") if "," in part}
    cited = set(re.findall(r"@(\w+)", text["methods.md"]))
    assert "archspec" in cited and cited <= keys
    assert "difference of 0.5 points" in text["table.md"]
    page = found.text()
    assert max(map(len, page.splitlines())) <= 80
    assert re.search(r"wide +\+10\.15 \[", page) and "Mean rank over 2 pairs" in page


def test_it_goes_on_and_refuses_another(
    task: BenchTask, engine: Any, networks: list[str], dataset: PreprocessedDataset
) -> None:
    first = bench(task, make_engine=engine)
    number = len(engine.pools)
    with pytest.raises(SpecError, match="a bench is there already; go on with `resume`"):
        bench(task, make_engine=engine)
    assert bench(task, resume=True, make_engine=engine) == first
    other = replace(task, comparing=Comparing(baseline="wide"))
    turned = bench(other, resume=True, make_engine=engine)
    assert turned.differences[0].difference.mean == pytest.approx(-0.1015)
    assert len(engine.pools) == number, "nothing is trained twice"
    for changed, name in (
        (replace(task, steps=9), "steps"),
        (replace(task, folds=(0,)), "folds"),
        (replace(task, seeds=3), "seeds"),
        (replace(task, arenas=(arena(networks[:1], dataset, NetworkOptions()),)), "networks"),
    ):
        with pytest.raises(SpecError, match=f"cannot resume, {name} differ from the bench's"):
            bench(changed, resume=True, make_engine=engine)
    np.savez(dataset.folder / "data" / "case_4.npz", data=np.zeros(9), seg=0)
    with pytest.raises(SpecError, match="cannot resume, datasets differ"):
        bench(task, resume=True, make_engine=engine)
    (task.folder / "mine.txt").touch()
    anew = bench(replace(task, seeds=1), force=True, make_engine=engine)
    assert len(anew.settings.seeds) == 1 and "One seed" in anew.text()
    assert (task.folder / "mine.txt").exists()
    settings = task.folder / "settings.json"
    settings.write_text("{}", encoding="utf-8")
    with pytest.raises(SpecError, match="not that of a bench, or damaged"):
        bench(task, force=True, make_engine=engine)
    settings.unlink()
    with pytest.raises(SpecError, match="exists and is not a bench"):
        bench(task, resume=True, make_engine=engine)


def test_persons_count_once(task: BenchTask, engine: Any, tmp_path: Path) -> None:
    """Cases 1, 2 and 3 are one person's, and 3 trains where 1 and 2 validate."""
    file = tmp_path / "persons.json"
    who = {f"case_{n}": "p" if n in (1, 2, 3) else f"q{n}" for n in range(5)}
    file.write_text(json.dumps(who), encoding="utf-8")
    persons = read_persons(file, {"Dataset901_X": list(who)})
    found = bench(replace(task, comparing=Comparing(persons=persons)), make_engine=engine)
    assert (found.unit, found.num_units) == ("person", {"Dataset901_X": 2})
    # of seed 0: cases 1, 3 are the first of their folds (0.6), 2, 4 the second (0.62)
    assert found.standings[0].by_seed[0] == pytest.approx(((0.6 + 0.62 + 0.6) / 3 + 0.62) / 2)
    assert [
        note for note in found.notes if "train on persons that they validate on, 2 times" in note
    ]
    assert {row["person"] for row in rows(task.folder, "cases.csv")} == {"p", "q4"}
    assert Persons().unit == "case"


def test_a_fold_that_is_not_whole_is_left_out(
    task: BenchTask, engine: Any, scoring_pool: type
) -> None:
    def make(settings: WorkerSettings, devices: list[str]) -> Any:
        pool = engine(settings, devices)
        if settings.fold == 1:
            pool.fate = {3: Message(3, "failed", reason="out of memory on cpu")}
        return pool

    found = bench(task, make_engine=make)
    assert found.failed == {"Dataset901_X fold 1: wide, seed 1": "out of memory on cpu"}
    assert found.num_units == {"Dataset901_X": 2} and found.num_blocks == 1
    assert "fold 1 left out, where trainings are missing" in found.text()
    assert len(rows(task.folder, "rows.csv")) == 7
    again = bench(task, resume=True, make_engine=engine)
    assert len(engine.pools[-1].tasks) == 1 and not again.failed


def test_cases_without_a_score_count_for_nobody(task: BenchTask, scoring_pool: type) -> None:
    def make(settings: WorkerSettings, devices: list[str]) -> Any:
        def score(task: TrialTask, part: str, index: int) -> float:
            return float("nan") if index == 0 and task.seed == 1 else scored(task, part, index)

        pool = scoring_pool(score, jobs=1)
        pool.validation = split_cases(settings.dataset, fold=settings.fold).validation
        return pool

    found = bench(task, make_engine=make)
    assert found.num_units == {"Dataset901_X": 2}
    assert "2 cases left out, in which some network has no Dice" in found.text()


def test_several_datasets(task: BenchTask, engine: Any, networks: list[str]) -> None:
    """The second is the first again, so that both differences are equal, and p is twice that."""
    (first,) = task.arenas
    twin = replace(first.dataset, name="Dataset902_Y")
    both = (first, arena(networks, twin, NetworkOptions()))
    found = bench(replace(task, arenas=both), make_engine=engine)
    assert [one.dataset for one in found.differences] == ["Dataset901_X", "Dataset902_Y"]
    for one in found.differences:
        assert one.difference.p_holm == pytest.approx(2 * one.difference.p)
    assert found.num_blocks == 4 and found.ranks["wide"] == 1
    assert len(rows(task.folder, "rows.csv")) == 16
    page = found.text()
    assert page.index("Dataset901_X (3d_fullres)") < page.index("Dataset902_Y (3d_fullres)")
    assert "Holm for 2 comparisons" in page


def test_what_is_given_twice_is_refused(
    dataset: PreprocessedDataset, networks: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="two networks are called narrow"):
        arena([networks[0], networks[0]], dataset, NetworkOptions())
    twin = tmp_path / "twin.yaml"
    twin.write_text(dump(tree("twin", WIDTHS["wide"])), encoding="utf-8")
    with pytest.raises(SpecError, match="wide and twin are the same network on Dataset901_X"):
        arena([networks[1], str(twin)], dataset, NetworkOptions())


class Here:
    """An engine that trains in this process; `killed_at` names the training and step of a kill."""

    killed_at: tuple[int, int] | None = None
    tasks: list[TrialTask] = []  # noqa: RUF012

    def __init__(self, settings: WorkerSettings, devices: list[str]) -> None:
        self.settings = settings
        self.waiting: list[TrialTask] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    @property
    def num_busy(self) -> int:
        return len(self.waiting)

    @property
    def num_idle(self) -> int:
        return 1 - self.num_busy

    def submit(self, task: TrialTask) -> None:
        self.waiting.append(task)
        self.tasks.append(task)

    def stop(self, number: int) -> None: ...

    def messages(self) -> Iterator[Message]:
        task, told = self.waiting.pop(), list[Message]()

        class Connection:
            def send(self, message: Message) -> None:
                assert isinstance(message.rung, Rung)
                if (len(Here.tasks), message.rung.step) == Here.killed_at:
                    raise KeyboardInterrupt
                told.append(message)

            def recv(self) -> str:
                return "go on"

        train: Any = search.trials.worker._train
        told.append(train(task, self.settings, "cpu", Connection()))
        yield from told


def test_a_bench_that_was_cut_off_goes_on(
    dataset_environment: dict[str, str], networks: list[str], tmp_path: Path
) -> None:
    """Two networks, folds and seeds, really trained; the sixth is cut off at its first rung."""
    found = find_dataset("902").with_patch((16, 16, 16))
    task = BenchTask(
        arenas=(arena(networks, found, NetworkOptions()),),
        folder=tmp_path / "out",
        folds=(0, 1),
        seeds=2,
        steps=2,
        host=TrainingHost(devices=("cpu",)),
    )
    Here.killed_at, Here.tasks = (6, 1), []
    with pytest.raises(KeyboardInterrupt):
        bench(task, make_engine=Here)
    assert len(rows(task.folder, "rows.csv")) == 5
    before = [table_of(task, found.name, fold).read_bytes() for fold in task.folds]
    Here.killed_at, Here.tasks = None, []
    result = bench(task, resume=True, make_engine=Here)
    assert len(Here.tasks) == 3, "what had ended is not trained again"
    after = [table_of(task, found.name, fold).read_bytes() for fold in task.folds]
    assert after[0] == before[0] and after[1].startswith(before[1])
    for file in task.folder.glob(f"trainings/*/*/{METRICS}"):
        steps = [json.loads(line)["step"] for line in file.read_text("utf-8").splitlines()]
        assert steps == [1, 2], "a rung that was reached is not trained again"
    check_figures(task, result)


def check_figures(task: BenchTask, result: Bench) -> None:
    """Recompute means from the trainings as they were written down."""
    own = {label: list[float]() for label in WIDTHS}
    for fold in task.folds:
        for one in read_trained(table_of(task, task.arenas[0].dataset.name, fold)):
            own[one.name] += [scores["mean"] for scores in one.validation.values()]
    for one in result.standings:
        assert len(own[one.network]) == 8  # 2 of 10 cases per fold, 2 seeds
        assert one.mean == pytest.approx(np.mean(own[one.network]))
        assert one.seconds is not None and one.seconds > 0


def test_the_verb(
    dataset_environment: dict[str, str],
    networks: list[str],
    tmp_path: Path,
    cli: Callable[..., tuple[int, str, str]],
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As users type it: several words after --data, which typer takes for networks."""
    monkeypatch.setattr(search.retrain.retrain, "WorkerPool", engine)
    out = tmp_path / "out"
    planned = "{plans: nnUNetPlans, width: 4}"
    given = ("bench", *networks, planned, "--data", "902", "--folds", "0-1", "--seeds", "2")
    given = (*given, "--out", out)
    code, printed, told = cli(*given, "--steps", "4", "--device", "cpu", "--json")
    assert code == 0, told
    found = json.loads(printed)
    assert found["steps"] == 4 and "[12/12]" in told
    assert list(found["networks"]) == ["narrow", "wide", "nnUNetPlans, width 4"]
    assert any("recipes differ" in note for note in found["notes"])
    code, printed, _ = cli(*given, "--steps", "4", "--device", "cpu", "--resume")
    assert code == 0 and f"wrote {out}" in printed
    for more, line in (
        ((), "a bench is there already; go on with --resume"),
        (("902",), "Dataset902_Small is given twice"),
        (("--folds", "0-9"), "--folds 0,1,2,3,4,5,6,7,8,9: Dataset902_Small has 0 to 4"),
        (("--resume", "--force"), "--resume and --force exclude each other"),
        (("--stock", "--jobs", "2"), "--stock takes no --jobs"),
        (
            ("--baseline", "x"),
            "--baseline x: none of the networks; allowed: narrow, wide, nnUNetPlans, width 4",
        ),
    ):
        code, _, told = cli(*given, *more)
        assert code == 2 and line in told and told.count("\n") == 1
