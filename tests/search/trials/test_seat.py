"""A seat, and the engine of seats on a Ray that is made up: what is answered, lost and refused."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import search.trials.ray_engine
import search.trials.seat
from archspec.nnunet.dataset import PreprocessedDataset
from blocks.errors import AbsentError, SpecError
from search.trials.handshake import Hello, differences, fingerprint, hello, local
from search.trials.host import Cluster, training_host
from search.trials.ray_connection import MODE, TOKEN, TOKEN_FILE, check_address, guard
from search.trials.ray_engine import RayEngine
from search.trials.seat import Seat
from search.trials.train import TrialTask
from search.trials.worker import Message, WorkerSettings

CLUSTER = Cluster(address="10.0.0.1:1")


class FakeError(Exception):
    """What Ray raises for a place that is gone."""


class FakeTaskError(Exception):
    """What Ray raises for an error of ours."""


@dataclass(eq=False)
class Call:
    """What an actor is asked: answered when it is waited for."""

    work: Callable[[], Any]
    answer: Any = None


@dataclass
class FakeRay:
    """A Ray whose actors live here: `rooms` are the places it has, `faults` what calls raise."""

    pool: Any
    rooms: int = 2
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    hello: Callable[[Hello], Any] = lambda found: found
    made: int = 0
    killed: int = 0
    asked: list[str] = field(default_factory=list)
    exceptions: Any = field(
        default_factory=lambda: SimpleNamespace(RayError=FakeError, RayTaskError=FakeTaskError)
    )

    def remote(self, kind: type[Seat]) -> Any:
        return SimpleNamespace(options=lambda **given: SimpleNamespace(remote=self._make))

    def _make(self, *given: Any) -> Any:
        self.made += 1
        has_room, seat = self.made - self.killed <= self.rooms, Seat(*given, lambda *_: self.pool())
        found = SimpleNamespace()
        for name in ("hello", "train", "go_on"):
            method = getattr(seat, name)
            setattr(found, name, SimpleNamespace(remote=self._asker(name, method, has_room)))
        return found

    def _asker(self, name: str, method: Any, has_room: bool) -> Any:
        def ask(*args: Any, **kwargs: Any) -> Call:
            self.asked.append(name)
            fault = self.faults.get(name, [])
            if fault:
                raised = fault.pop(0)
                return Call(lambda: raised)
            if name == "hello":
                return Call(lambda: self.hello(method())) if has_room else Call(lambda: NotHere)
            return Call(NotHere, (method(*args, **kwargs),))  # in the order of the calls

        return ask

    def wait(self, calls: list[Call], num_returns: int = 1, timeout: float = 0) -> Any:
        for call in calls:
            if call.answer is None:
                call.answer = (call.work(),)
        done = [call for call in calls if call.answer[0] is not NotHere][:num_returns]
        return done, [call for call in calls if call not in done]

    def get(self, call: Call) -> Any:
        (found,) = call.answer
        if isinstance(found, FakeError | FakeTaskError):
            raise found
        return found

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        assert no_restart
        self.killed += 1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


class NotHere:
    """The answer of a place that there is no room for yet."""


@pytest.fixture
def shared(dataset: PreprocessedDataset) -> WorkerSettings:
    return WorkerSettings(dataset, 0, 2, 1)


@pytest.fixture
def connect(fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRay]:
    """Return a function that makes up a Ray, with what is given, in place of the real one."""

    def make(**given: Any) -> FakeRay:
        ray = FakeRay(pool=fakes.FakePool, **given)

        class Connected:
            def __init__(self, *_: Any) -> None:
                pass

            def __enter__(self) -> FakeRay:
                return ray

            def __exit__(self, *_: Any) -> None:
                pass

        monkeypatch.setattr(search.trials.ray_engine, "connected", Connected)
        monkeypatch.setattr(search.trials.ray_engine, "PATIENCE", 0.0)
        return ray

    guarded = search.trials.handshake.hello
    monkeypatch.setattr(
        search.trials.seat, "hello", lambda *given: replace(guarded(*given), guarded=True)
    )
    return make


def task_of(number: int, folder: Path, rungs: tuple[int, ...] = (1, 2)) -> TrialTask:
    folder.mkdir(exist_ok=True)
    return TrialTask(number, {}, folder, number, rungs)


def told(engine: RayEngine, most: int = 20) -> list[Message]:
    """Return what is said until nobody is busy."""
    found = []
    for _ in range(most):
        if not engine.num_busy:
            return found
        found += engine.messages()
    raise AssertionError("it does not end")


def test_seats_say_what_a_pool_does(
    shared: WorkerSettings, connect: Callable[..., FakeRay], tmp_path: Path
) -> None:
    connect()
    with RayEngine(shared, ["cpu", "cpu"], CLUSTER) as engine:
        assert engine.num_idle + engine.num_busy >= 1
        engine.submit(task_of(4, tmp_path / "a"))
        engine.submit(task_of(7, tmp_path / "b"))
        assert (engine.num_idle, engine.num_busy) == (0, 2)
        found = told(engine)
    for number in (4, 7):
        events = [(one.event, one.rung and one.rung.step) for one in found if one.number == number]
        assert events == [("rung", 1), ("rung", 2), ("done", 2)]
    assert all(one.host and not one.place_lost for one in found)


def test_a_rung_waits_and_is_the_last_where_it_is_stopped(
    shared: WorkerSettings, connect: Callable[..., FakeRay], tmp_path: Path
) -> None:
    ray = connect(rooms=1)
    with RayEngine(shared, ["cpu"], CLUSTER) as engine:
        engine.submit(task_of(3, tmp_path / "a"))
        (message,) = (one for one in engine.messages() if not engine.stop(one.number))
        assert message.event == "rung" and message.rung is not None and message.rung.step == 1
        assert ray.asked[-2:] == ["train", "go_on"], "it went on when the message was done with"
        assert (engine.num_idle, engine.num_busy) == (1, 0)
        engine.submit(task_of(5, tmp_path / "b"))
        assert {one.number for one in told(engine)} == {5}


def test_a_place_that_is_gone_is_told_and_another_one_comes(
    shared: WorkerSettings, connect: Callable[..., FakeRay], tmp_path: Path
) -> None:
    ray = connect(rooms=1, faults={"go_on": [FakeError("the node is dead\nmore")]})
    with RayEngine(shared, ["cpu"], CLUSTER) as engine:
        engine.submit(task_of(3, tmp_path / "a"))
        *_, last = told(engine)
        assert (last.event, last.place_lost) == ("lost", True)
        assert last.reason.endswith("is lost: the node is dead")
        assert engine.num_idle == 1, "a lost place counts as idle"
        engine.submit(task_of(4, tmp_path / "b"))
        assert told(engine)[-1].event == "done"
    assert ray.made == 2


def test_a_worker_that_is_gone_is_no_lost_place(
    shared: WorkerSettings, connect: Callable[..., FakeRay], tmp_path: Path, fakes: Any
) -> None:
    ray = connect(rooms=1)
    ray.pool = lambda: fakes.FakePool(fate={3: Message(3, "lost", reason="code -9")})
    with RayEngine(shared, ["cpu"], CLUSTER) as engine:
        engine.submit(task_of(3, tmp_path / "a"))
        (found,) = told(engine)
    assert (found.event, found.place_lost) == ("lost", False)
    assert ray.made == 1


def test_no_place_within_the_time_is_told(
    shared: WorkerSettings, connect: Callable[..., FakeRay]
) -> None:
    connect(rooms=0)
    with pytest.raises(AbsentError, match=r"no place came .*for 1 CPUs and 0 GPUs.*has 2 CPUs"):
        RayEngine(shared, ["cpu"], CLUSTER).__enter__()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"shared": {"torch": "1.0"}}, r"node7: .*torch is 1\.0 there and "),
        ({"guarded": False}, "node7: its Ray daemon runs programs of whoever reaches it"),
    ],
)
def test_a_machine_that_differs_is_refused_by_name(
    shared: WorkerSettings, connect: Callable[..., FakeRay], change: Any, problem: str
) -> None:
    def spoil(found: Hello) -> Hello:
        alike = {**found.shared, **change.get("shared", {})}
        return replace(found, **{**change, "shared": alike, "host": "node7"})

    connect(hello=spoil)
    with pytest.raises(SpecError, match=problem):
        RayEngine(shared, ["cpu"], CLUSTER).__enter__()


def test_an_answer_that_no_trial_can_help_ends_the_search(
    shared: WorkerSettings, connect: Callable[..., FakeRay]
) -> None:
    connect(hello=lambda found: SpecError("no such folder", where="/data"))
    with pytest.raises(SpecError, match="/data: no such folder"):
        RayEngine(shared, ["cpu"], CLUSTER).__enter__()
    connect(hello=lambda found: FakeTaskError("KeyError: 3\ntraceback"))
    with pytest.raises(SpecError, match="a place cannot train: KeyError: 3"):
        RayEngine(shared, ["cpu"], CLUSTER).__enter__()


def test_places_that_die_at_once_are_not_asked_for_without_end(
    shared: WorkerSettings, connect: Callable[..., FakeRay], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = connect(hello=lambda found: FakeError("worker died"))
    monkeypatch.setattr(search.trials.ray_engine, "PATIENCE", 100.0)
    with pytest.raises(SpecError, match="no place starts: worker died"):
        RayEngine(shared, ["cpu"], CLUSTER).__enter__()
    assert ray.made == 5


def test_a_machine_that_lacks_a_module_names_it(
    shared: WorkerSettings, connect: Callable[..., FakeRay]
) -> None:
    """The text is Ray's own, of a cluster whose Python lacks us."""
    said = (
        "The actor died because of an error raised in its creation task, ray::Seat.__init__()\n"
        "RuntimeError: The actor with name Seat failed to import on the worker. This may be "
        "because needed library dependencies are not installed in the worker environment:\n\n"
        'Traceback (most recent call last):\n  File "function_manager.py", line 1\n'
        "ModuleNotFoundError: No module named 'search'\n"
    )
    error = FakeError(said)
    error.actor_init_failed = True  # type: ignore[attr-defined]
    connect(hello=lambda found: error)
    with pytest.raises(SpecError) as refused:
        RayEngine(shared, ["cpu"], CLUSTER).__enter__()
    assert "no place starts: ModuleNotFoundError: No module named 'search'" in str(refused.value)


def test_a_folder_that_is_not_shared_is_told(
    shared: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search.trials.seat, "_PATIENCE", 0.0)
    seat = Seat(pickle.dumps(shared), (), "cpu", 1, lambda: None)
    found = seat.train(TrialTask(0, {}, tmp_path / "elsewhere", 0, (1,)))
    assert isinstance(found, SpecError)
    assert "elsewhere: is not seen by a machine" in str(found)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give a home without tokens, and take back what a seat sets for its workers."""
    for name in (MODE, TOKEN, TOKEN_FILE, "nnUNet_preprocessed", "nnUNet_n_proc_DA"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield


@pytest.mark.parametrize(
    ("answer", "model", "precision"),
    [
        ("9.0, NVIDIA H200", "NVIDIA H200", "bfloat16"),
        ("7.0, Tesla V100, 16 GB", "Tesla V100, 16 GB", "float16"),
        ("", None, None),
    ],
)
def test_a_place_says_what_its_gpu_is(
    answer: str, model: str | None, precision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the driver tells it: the place itself is to use none of the memory."""
    asked = []

    def run(line: list[str], **_: Any) -> Any:
        asked.append(line)
        return SimpleNamespace(returncode=0, stdout=f"{answer}\n")

    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("subprocess.run", run)
    found = hello(None, "3")
    assert (found.gpu, found.precision) == (model, precision)
    assert asked[0][0] == "/bin/nvidia-smi" and asked[0][-2:] == ["-i", "3"]
    assert (hello(None).gpu, hello(None).precision) == (None, "float32")
    assert len(asked) == 1, "without a GPU nobody is asked"


def test_data_are_compared_by_what_trains(
    dataset: PreprocessedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakes: Any
) -> None:
    other = tmp_path / "other" / dataset.folder.name
    fakes.fake_dataset(other)
    monkeypatch.setenv("nnUNet_preprocessed", str(other.parent))
    there = local(dataset)
    assert isinstance(there, PreprocessedDataset) and there.folder == other
    assert differences(fingerprint(dataset), fingerprint(there)) == ""
    (other / "splits_final.json").write_text("[]", encoding="utf-8")
    (other / "data" / "case_9.pkl").touch()
    told = differences(fingerprint(dataset), fingerprint(there))
    assert told.startswith("the list of cases is ") and "the splits is " in told
    with pytest.raises(SpecError, match="has no such folder"):
        fingerprint(replace(there, folder=tmp_path / "nothing"))


def test_a_cluster_without_a_token_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match=r"runs programs of whoever reaches it.*RAY_AUTH_MODE"):
        guard("10.0.0.1:6379")
    guard("127.0.0.2:6379")
    guard(None)  # a cluster of its own: it makes a token
    file = tmp_path / "home" / ".ray" / "auth_token"
    assert file.stat().st_mode & 0o777 == 0o600 and len(file.read_text()) == 64
    guard("10.0.0.1:6379")
    file.chmod(0o644)
    with pytest.raises(SpecError, match="others can read this token; chmod 600"):
        guard("10.0.0.1:6379")
    file.unlink()
    with pytest.raises(SpecError, match="has no token"):
        guard("10.0.0.1:6379")
    monkeypatch.setenv(MODE, "disabled")
    with pytest.raises(SpecError, match="runs programs of whoever reaches it"):
        guard(None)


@pytest.mark.parametrize("address", ["auto", "ray://host:1", "host", "host:x", ":5"])
def test_what_is_no_address_of_a_head_is_refused(address: str) -> None:
    with pytest.raises(SpecError, match="is not host:port"):
        check_address(address)


def test_what_a_host_is_asked_for() -> None:
    host = training_host("cuda", 3, engine="ray", address="h:1", gpus_per_job=0.5, cpus_per_job=2)
    assert host.devices == ("cuda:0",) * 3
    assert host.cluster == Cluster(address="h:1", gpus_per_job=0.5, cpus_per_job=2)
    assert training_host("cpu", 1, engine="ray").devices == ("cpu",)
    assert training_host("cpu", 1).cluster is None
    for wrong in ({"address": "h:1"}, {"engine": "dask"}, {"engine": "ray", "gpus_per_job": 1.5}):
        with pytest.raises(SpecError):
            training_host("cpu", 1, **wrong)  # type: ignore[arg-type]
