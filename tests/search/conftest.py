"""A search that does not train, and a small phantom, preprocessed by real nnU-Net."""

import importlib.util
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import optuna
import pytest

import search.retrain.retrain
import search.study.run
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.phantom.dataset import write_dataset
from archspec.phantom.reach import ReachTask
from archspec.spec.yaml_file import dump
from search.space.space import load_space
from search.study.loop import Event, SearchLoop
from search.study.task import SearchTask
from search.trials.host import TrainingHost
from search.trials.train import TrialTask
from search.trials.worker import Message, WorkerSettings
from tests.postgres import Postgres, programs
from tests.ray_cluster import NODES, RayCluster

NAME = "Dataset902_Small"

SPACE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": {"choice": [2, 3, 4]}, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"choice": [{"kind": "conv"}, {"kind": "identity"}]}},
        ]
    },
    "decoder": {"kind": "sum"},
    "search": {"steps": 27, "anchors": [{}, {"encoder.stages.0.width": 4}]},
}
"""Six networks."""

LoopFactory = Callable[..., SearchLoop]

ENGINES = (
    "search.trials.pool:WorkerPool",
    pytest.param("tests.search.threaded_ray:ThreadedRayEngine", marks=pytest.mark.long),
)
"""Everything that trains for a search, as `pkgutil.resolve_name` finds it; the next adds itself."""


@pytest.fixture(params=ENGINES, ids=lambda name: name.rpartition(":")[2])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an engine; a test that kills, faults or resumes asks for each."""
    for variable in ("OMP_NUM_THREADS", "nnUNet_n_proc_DA"):  # which a seat sets in its process
        monkeypatch.setenv(variable, "1")
    name: str = request.param
    return name


@pytest.fixture
def space_tree() -> dict[str, Any]:
    """Return the raw tree of a space of six networks with two anchors."""
    return SPACE


@pytest.fixture(scope="session")
def fakes() -> SimpleNamespace:
    """Return what fake_search.py defines; a test module cannot import it."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("fake_search.py"))))


@pytest.fixture
def task(tmp_path: Path) -> TrialTask:
    """Return a task of three rungs for the data of fake_training.py."""
    made = runpy.run_path(str(Path(__file__).with_name("fake_training.py")))
    return TrialTask(3, made["tiny_tree"](), tmp_path, 5, (2, 4, 8))


@pytest.fixture
def dataset(tmp_path: Path, fakes: SimpleNamespace) -> PreprocessedDataset:
    found: PreprocessedDataset = fakes.fake_dataset(tmp_path)
    return found


def _absent(what: str) -> NoReturn:
    """Skip; .ci/run installs what is asked for, and forbids it by ARCHSPEC_NO_SKIPS."""
    told = pytest.fail if os.environ.get("ARCHSPEC_NO_SKIPS") else pytest.skip
    told(f"{what} is not installed")
    raise AssertionError


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        _absent(f"{module} (extra: cluster)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a PostgreSQL server of these tests; a test that stops it starts it again."""
    found = programs()
    if found is None:
        _absent("PostgreSQL (apt-get install postgresql)")
    _needs("psycopg")
    with tempfile.TemporaryDirectory(prefix="archspec-pg-") as root:  # of no other's folder
        server = Postgres(found, Path(root))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """Return a Ray cluster of these tests, of a head and a node; a killed node is added again."""
    _needs("ray")
    with tempfile.TemporaryDirectory(prefix="as-") as root:  # sockets below it have long names
        cluster = RayCluster(Path(root), Path(__file__).parent, NODES[:1])
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


@pytest.fixture
def make_loop(tmp_path: Path, dataset: PreprocessedDataset) -> LoopFactory:
    """Return a function that makes a recovered loop over a study; `tree` is its space."""

    def make(
        study: optuna.Study,
        total: int,
        tree: dict[str, Any] = SPACE,
        on_event: Callable[[Event], None] = lambda event: None,
        seed: int = 7,
    ) -> SearchLoop:
        path = tmp_path / "space.yaml"
        path.write_text(dump(tree), encoding="utf-8")
        space, host = load_space(path), TrainingHost(seed=seed)
        loop = SearchLoop(
            SearchTask(space, dataset, tmp_path / "run", total, host), study, on_event
        )
        loop.recover()
        return loop

    return make


@pytest.fixture(scope="session")
def nnunet_environment(
    made_once: Callable[..., Path], nnunet_command: Callable[..., None]
) -> dict[str, str]:
    """Return the environment in which dataset 902 is preprocessed: 10 cases."""

    def environment(root: Path) -> dict[str, str]:
        folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {
            **os.environ,
            **{name: str(root / name) for name in folders},
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": "1",
            "OMP_NUM_THREADS": "1",
        }

    def fill(root: Path) -> None:
        for name in ("nnUNet_preprocessed", "nnUNet_results"):
            (root / name).mkdir()
        raw = root / "nnUNet_raw" / NAME
        write_dataset(raw, ReachTask(distance=16), num_cases=10, num_test_cases=1, seed=0)
        chosen = ("-d", "902", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
        nnunet_command("nnUNetv2_plan_and_preprocess", *chosen, env=environment(root))

    return environment(made_once("nnunet", fill))


@pytest.fixture
def dataset_environment(
    nnunet_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Set the variables in this process too."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, nnunet_environment[name])
    return nnunet_environment


@pytest.fixture(scope="session")
def scoring_pool(fakes: SimpleNamespace) -> type:
    """Return a fake pool that also scores cases, by `score(task, part, index of the case)`."""

    class ScoringPool(fakes.FakePool):  # type: ignore[misc, name-defined]
        validation = tuple(f"case_{number}" for number in range(4))
        test: tuple[str, ...] = ()

        def __init__(self, score: Callable[[TrialTask, str, int], float], **options: Any) -> None:
            super().__init__(**options)
            self.score = score

        def messages(self) -> Iterator[Message]:
            for message in super().messages():
                if message.event != "done":
                    yield message
                    continue
                task = next(task for task in self.tasks if task.number == message.number)
                assert task.by_case
                scores = tuple(
                    {c: {"mean": self.score(task, part, i)} for i, c in enumerate(cases)}
                    for part, cases in (("validation", self.validation), ("test", self.test))
                )
                yield replace(message, cases=scores)

    return ScoringPool


@pytest.fixture
def in_place_of_workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return a function that makes retraining use this pool."""

    def use(pool: Any) -> None:
        def make(settings: WorkerSettings, devices: list[str]) -> Any:
            pool.test = settings.held_out
            return pool

        monkeypatch.setattr(search.retrain.retrain, "WorkerPool", make)

    return use


@pytest.fixture(scope="session")
def imported() -> Callable[[Path], Any]:
    """Return a function that imports a file by its name, so that what it defines can be pickled."""

    def load(file: Path) -> Any:
        if file.stem not in sys.modules:
            spec = importlib.util.spec_from_file_location(file.stem, file)
            assert spec is not None and spec.loader is not None
            sys.modules[file.stem] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[file.stem])
        return sys.modules[file.stem]

    return load


@pytest.fixture
def in_this_process(imported: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have searches and retrainings train here, one at a time: processes would cost seconds."""
    pool = imported(Path(__file__).with_name("inline_pool.py")).InlinePool
    for module in (search.study.run, search.retrain.retrain):
        monkeypatch.setattr(module, "WorkerPool", pool)
