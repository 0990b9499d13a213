"""Train given specs with given seeds to the end, once each, and keep their scores by case.

Every training that ended is a line of a JSONL file. A killed run goes on from the last checkpoint
of what it was training, and never repeats what has a line.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from archspec.files import check_writable, make_folder, move_folder
from archspec.spec.hashing import is_hash_of, trial_hash
from archspec.spec.load import load
from archspec.spec.plugins import refuse_scripted
from blocks.errors import Place, SpecError, reason
from search.trials.cases import CaseScores
from search.trials.checkpoint import CHECKPOINT, is_whole
from search.trials.engine import PLACE_LOSSES, MakeEngine
from search.trials.lines import append_line, read_lines
from search.trials.moves import OnMoves
from search.trials.moving import moving
from search.trials.pool import WorkerPool
from search.trials.recorded import from_record
from search.trials.train import Rung, TrialTask
from search.trials.worker import Message, WorkerSettings

_ANEW = "take the line out to train it anew; the others stand"


@dataclass(frozen=True)
class Retraining:
    """A spec to train with a seed; `name` is what messages call it.

    `protocol` is the digest of the run's, where it has one.
    """

    name: str
    tree: dict[str, Any]
    seed: int
    protocol: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return trial_hash(load(self.tree)), self.seed


@dataclass(frozen=True)
class Trained:
    """A training that ended: Dice by case, class and group, and their `mean`.

    `test` is empty where there is no test part. `seconds` are those of training. `spec` is the tree
    that was trained; lines of releases that did not write it have their hash alone. `protocol` is
    that of the job.
    """

    name: str
    trial_hash: str
    seed: int
    steps: int
    seconds: float
    validation: CaseScores
    test: CaseScores
    spec: dict[str, Any] | None = None
    protocol: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.trial_hash, self.seed


@dataclass(frozen=True)
class Progress:
    """Something to show: what happened to a training; `done` of `total` have ended."""

    name: str
    text: str
    done: int
    total: int


@dataclass(frozen=True)
class Outcome:
    """The trainings asked for that ended well, and why others did not."""

    trained: list[Trained]
    failed: dict[str, str]

    def of(self, job: Retraining) -> Trained | None:
        """Return what became of a training, None where it failed."""
        key = job.key
        return next((one for one in self.trained if one.key == key), None)


def retrain(
    jobs: Sequence[Retraining],
    *,
    table: Path,
    settings: WorkerSettings,
    rung_steps: tuple[int, ...],
    devices: Sequence[str],
    checkpoint_every: int | None = None,
    average: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_moves: OnMoves | None = None,
    make_engine: MakeEngine | None = None,
) -> Outcome:
    """Train what has no line in the table yet, and return all that was asked for.

    With `average` the mean of the last weights is scored, see `TrialTask`; a table has one of the
    two only. Checkpoints lie in a folder beside the table. A training that failed has no line: the
    next call tries it again. By default worker processes of this machine train.

    Raises:
        SpecError: another process writes this table, or nothing can be written.
    """
    for job in jobs:
        refuse_scripted("the processes that train", job.tree)
    make_folder(table.parent)
    check_writable(table)
    try:
        with FileLock(sign_of_life(table), timeout=0):
            how = _How(rung_steps, checkpoint_every, average)
            runner = _Runner(jobs, table, settings, how, on_progress)
            return runner.run(devices, moving(make_engine or WorkerPool, on_moves, _dice_of))
    except Timeout:
        raise SpecError(
            "another process is writing it", where=table, suggestion="wait for its end"
        ) from None


def sign_of_life(table: Path) -> Path:
    """Return the file whose date is fresh while somebody trains for the table; it locks it."""
    return table.with_suffix(".lock")


def read_trained(table: Path) -> list[Trained]:
    """Return the lines of the table; one that a kill cut off does not count.

    Hashes are computed anew where a line has its spec: another release may hash it differently.

    Raises:
        SpecError: a line is damaged, or no training; the message names it.
    """
    return [one for _, one in read_numbered(table)]


def read_numbered(table: Path) -> list[tuple[int, Trained]]:
    """Return the lines as `read_trained` does, each with its number.

    Raises:
        SpecError: see there.
    """
    found = []
    for number, content in read_lines(table, suggestion=_ANEW):
        try:
            one = from_record(Trained, content)
            digest = one.trial_hash if one.spec is None else trial_hash(load(one.spec))
            validation, test = _scores(one.validation), _scores(one.test)
        except (TypeError, AttributeError, SpecError) as error:
            raise SpecError(
                f"not a training ({reason(error)})",
                where=Place(str(table), number),
                suggestion=_ANEW,
            ) from None
        one = replace(one, trial_hash=digest, validation=validation, test=test)
        found.append((number, one))
    return found


class _How(NamedTuple):
    """What all trainings of a table have in common, see `TrialTask`."""

    rung_steps: tuple[int, ...]
    checkpoint_every: int | None
    average: bool


class _Runner:
    """The loop that keeps workers busy and writes down what they say."""

    def __init__(
        self,
        jobs: Sequence[Retraining],
        table: Path,
        settings: WorkerSettings,
        how: _How,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.table = table
        self.settings = settings
        self.how = how
        self.on_progress = on_progress
        self.jobs = {job.key: job for job in jobs}  # equal networks are trained once
        self.specs = {key: load(job.tree) for key, job in self.jobs.items()}
        self.trained = {
            key: replace(one, trial_hash=key[0])
            for one in read_trained(table)
            if one.steps == how.rung_steps[-1] and (key := self._key(one.trial_hash, one.seed))
        }
        self.failed: dict[str, str] = {}
        self.lost: set[int] = set()
        self.places_lost: Counter[int] = Counter()

    def _key(self, stored: str, seed: int) -> tuple[str, int] | None:
        """Return the key of the job that a stored hash, of any release, and a seed are of."""
        return next(
            (
                key
                for key, spec in self.specs.items()
                if key[1] == seed and is_hash_of(stored, spec, "trial")
            ),
            None,
        )

    def run(self, devices: Sequence[str], make_engine: MakeEngine) -> Outcome:
        waiting = [
            self._task(number, job)
            for number, (key, job) in enumerate(self.jobs.items())
            if key not in self.trained
        ]
        tasks = {task.number: task for task in waiting}
        if waiting:
            self._show("", f"{len(waiting)} of {len(self.jobs)} trainings to do")
            with make_engine(self.settings, list(devices)[: len(waiting)]) as engine:
                while waiting or engine.num_busy:
                    with suppress(OSError):  # only who looks on would miss it
                        os.utime(sign_of_life(self.table))
                    while waiting and engine.num_idle:
                        engine.submit(waiting.pop(0))
                    for message in engine.messages():
                        number = message.number
                        if self._handle(message, list(self.jobs.values())[number]):
                            if message.place_lost:
                                tasks[number] = self._moved(tasks[number])
                            waiting.insert(0, tasks[number])
        return Outcome(list(self.trained.values()), self.failed)

    def _task(self, number: int, job: Retraining) -> TrialTask:
        folder = self._folder(job)
        make_folder(folder)
        if (folder / CHECKPOINT).is_file() and not is_whole(folder / CHECKPOINT):
            text = f"{folder / CHECKPOINT} is damaged and kept aside; trained from the first step"
            self._show(_name_of(job), text)
        return TrialTask(
            number,
            job.tree,
            folder,
            job.seed,
            self.how.rung_steps,
            by_case=True,
            checkpoint_every=self.how.checkpoint_every,
            average=self.how.average,
            name=_name_of(job),
        )

    def _moved(self, task: TrialTask) -> TrialTask:
        """Give the task's folder another name: a place that is only out of reach writes no more."""
        name = f"{self.places_lost[task.number]}.{task.folder.name.rpartition('.')[2]}"
        return replace(task, folder=move_folder(task.folder, task.folder.with_name(name)))

    def _folder(self, job: Retraining) -> Path:
        """Return where the job's checkpoints are, be it under the hash of an earlier release."""
        root, steps = self.table.with_suffix(""), self.how.rung_steps[-1]
        for path in sorted(root.glob(f"*-{job.seed}-{steps}")):
            stored = path.name.removesuffix(f"-{job.seed}-{steps}").replace("-", ":")
            stored = stored.rpartition(".")[2]  # see `_moved`
            if self._key(stored, job.seed) == job.key:
                return path
        return root / f"{job.key[0].replace(':', '-')}-{job.seed}-{steps}"

    def _handle(self, message: Message, job: Retraining) -> bool:
        """Record what a worker said; say whether its training is to be tried again."""
        name = _name_of(job)
        if message.event in ("storage", "data"):
            raise SpecError(message.reason)
        if message.event == "lost" and self._is_tried_again(message):
            self._show(name, f"{message.reason}; tried again")
            return True
        if message.event in ("failed", "lost"):
            self.failed[name] = message.reason
            self._show(name, f"failed: {message.reason}")
        elif message.event == "rung":
            assert message.rung is not None
            self._show(name, f"step {message.rung.step}: Dice {_dice_of(message.rung):.3f}")
        else:
            self._record(message, job)
            self._show(name, "trained and scored")
        return False

    def _is_tried_again(self, message: Message) -> bool:
        """Say whether this is the first loss of its worker, or of few of whole places."""
        if message.place_lost:
            self.places_lost[message.number] += 1
            return self.places_lost[message.number] <= PLACE_LOSSES
        first = message.number not in self.lost
        self.lost.add(message.number)
        return first

    def _record(self, message: Message, job: Retraining) -> None:
        assert message.rung is not None and message.cases is not None
        digest, seed = job.key
        validation, test = message.cases
        done = Trained(
            job.name,
            digest,
            seed,
            message.rung.step,
            message.rung.seconds,
            validation,
            test,
            job.tree,
            job.protocol,
        )
        _append(self.table, done)
        self.trained[done.key] = done

    def _show(self, name: str, text: str) -> None:
        done = len(self.trained) + len(self.failed)
        self.on_progress(Progress(name, text, done, len(self.jobs)))


def _name_of(job: Retraining) -> str:
    return f"{job.name}, seed {job.seed}"


def _dice_of(rung: Rung) -> float:
    return rung.scores["mean"]


def _append(table: Path, done: Trained) -> None:
    """Add a line, on the disk when this returns; NaN, which JSON does not have, is null."""
    content = asdict(replace(done, validation=_finite(done.validation), test=_finite(done.test)))
    if not done.protocol:
        del content["protocol"]
    try:
        append_line(table, content)
    except OSError as error:
        raise SpecError(f"cannot be written: {error.strerror}", where=table) from error


def _scores(cases: Any) -> CaseScores:
    return {
        case: {name: math.nan if score is None else score for name, score in scores.items()}
        for case, scores in cases.items()
    }


def _finite(cases: CaseScores) -> Any:
    return {
        case: {name: None if math.isnan(score) else score for name, score in scores.items()}
        for case, scores in cases.items()
    }
