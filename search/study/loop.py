"""The driver's loop: what is asked of Optuna, handed to workers, and told back.

All changes of the study happen here, in one process.
"""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from archspec.costs.flops import Cost
from archspec.costs.memory import training_memory
from archspec.files import make_folder, replacing, write_text
from archspec.spec.hashing import VERSION, trial_hash
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.anchors import Anchor
from search.space.first import first_of, invalid, left_out
from search.space.references import reference_of
from search.study.data import classes_of, windows_of
from search.study.draw import Drawing
from search.study.end import End
from search.study.ledger import Ledger
from search.study.recovery import place_among_drawn, queue_again, recover, this_host
from search.study.stop import Costs, make_stopper
from search.study.storage import first_heartbeat, queued_params, stored_trial, trial_id
from search.study.task import SearchTask
from search.study.trial_record import JudgedRung, TrialRecord, write
from search.trials.checkpoint import CHECKPOINT, is_whole
from search.trials.engine import PLACE_LOSSES, Engine
from search.trials.latency import Latency
from search.trials.train import METRICS, Rung, TrialTask
from search.trials.worker import Message


@dataclass(frozen=True)
class Event:
    """Something to show: a trial started, reached a rung, or ended; `done` of `total` ended."""

    kind: str
    number: int
    text: str
    done: int
    total: int


class SearchLoop:
    """Draw, submit, record, until the task's number of trials have ended."""

    def __init__(
        self,
        task: SearchTask,
        study: optuna.Study,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.space = task.space
        self.dataset = task.dataset
        self.folder = task.folder
        self.study = study
        self.total = task.trials
        self.seconds = task.seconds
        self.first = task.first
        self.seed = task.host.seed
        self.on_event = on_event
        self.drawing = Drawing(task.space, task.dataset, study, task.host.devices[0])
        self.live: dict[int, optuna.Trial] = {}
        self.rung_steps = task.space.settings.rung_steps
        self.stopper = make_stopper(task.space.settings)
        self.objectives = task.space.settings.objectives
        self.classes = classes_of(task.dataset)
        self.ledger = Ledger([])

    def num_left(self) -> int:
        return max(self.total - self.ledger.num_ended, 0)

    def live_ids(self) -> list[int]:
        """Return Optuna's ids of the trials being trained, for their heartbeats."""
        return [trial_id(trial) for trial in list(self.live.values())]

    def recover(self, *, alone: bool = False) -> None:
        """Queue anchors that were never queued, and again what a killed search left RUNNING.

        `alone` is that of `recovery.recover`.

        Raises:
            SpecError: another driver lives.
        """
        queued = self._queue_anchors()
        taken = self._queue_taken()
        recover(self.study, alone=alone)
        self._read_study()
        self._tell_untried(queued)
        if taken:
            plural = "s" * (taken > 1)
            self.note(f"queued from an earlier front: {taken} network{plural}")

    def note(self, text: str) -> None:
        """Tell of something that is about no trial."""
        self._emit("note", -1, text)

    def _queue_anchors(self) -> list[Anchor]:
        """Queue the anchors that never were, and return them.

        Optuna's own check would take those that name networks for one if they have one recipe. Lost
        ones are queued again with their attributes, so that one trial of each is enough.
        """
        trials = self.study.get_trials(deepcopy=False)
        known = [(reference_of(trial), queued_params(trial)) for trial in trials]
        queued = []
        for anchor in first_of(self.space):
            before, own = len(self.study.get_trials(deepcopy=False)), anchor.reference is None
            if own or (anchor.reference, anchor.params) not in known:
                self.study.enqueue_trial(
                    anchor.params, user_attrs=anchor.attributes, skip_if_exists=own
                )
            if len(self.study.get_trials(deepcopy=False)) > before:
                queued.append(anchor)
        return queued

    def _queue_taken(self) -> int:
        """Queue what an earlier run found, as far as it never was; return how many that are."""
        before = len(self.study.get_trials(deepcopy=False))
        for one in self.first:
            told = TrialRecord(taken_from=one.text).attributes()
            self.study.enqueue_trial(one.params, user_attrs=told, skip_if_exists=True)
        return len(self.study.get_trials(deepcopy=False)) - before

    def _tell_untried(self, queued: Sequence[Anchor]) -> None:
        """Tell of anchors that will not be tried, before hours of training and not after."""
        sizes, device = self.dataset.sizes, self.drawing.device
        for text in (*left_out(self.space), *invalid(self.space, queued, sizes, device=device)):
            self.note(text)

    def _read_study(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        self.ledger = Ledger(trials, self._hash_of)
        for trial in trials:
            record = TrialRecord.of(trial)
            for rung in record.rungs:
                if record.flops is None or rung.step not in self.rung_steps[:-1]:
                    continue
                if math.isfinite(rung.dice):  # as when it was recorded
                    self.stopper.remember(
                        self.rung_steps.index(rung.step),
                        rung.dice,
                        self._costs(record),
                        record.first(trial.number),
                    )

    def _hash_of(self, trial: FrozenTrial, stored: str) -> str:
        """Return the trial's hash as this release computes it, where its spec can still be read."""
        if stored.startswith(VERSION):
            return stored
        try:
            return trial_hash(load(self.folder / "trials" / f"{trial.number:04d}" / "spec.yaml"))
        except SpecError:
            return stored

    def drive(self, engine: Engine) -> None:
        """Keep the engine busy until enough trials have ended, or none may be begun any more."""
        until = math.inf if self.seconds is None else time.monotonic() + self.seconds
        while True:
            while engine.num_idle and self.num_left() > engine.num_busy:
                if time.monotonic() >= until:
                    break
                task = self._next_task()
                if task is None:
                    break
                engine.submit(task)
            if not engine.num_busy:
                if self.num_left() and time.monotonic() >= until:
                    self.note("the hours are used up: no further trial is begun")
                return
            for message in engine.messages():
                self._handle(message, engine)

    def _next_task(self) -> TrialTask | None:
        """Draw what to train next; None where there seems to be nothing."""
        drawn = self.drawing.draw(self.ledger, self._emit)
        return None if drawn is None else self._task(*drawn)

    def _task(self, trial: optuna.Trial, spec: ArchSpec, cost: Cost, key: str) -> TrialTask:
        folder = self.folder / "trials" / f"{trial.number:04d}"
        make_folder(folder)
        first_heartbeat(self.study, trial)  # before `host`: a trial of a host must be able to age
        name = f"{self.space.name}-{trial.number:04d}"
        reference = reference_of(trial)
        if reference is not None:
            name = f"{name}-{spec.name}"
        named = spec.model_copy(update={"name": name})
        write_text(folder / "spec.yaml", dump(named.tree()))
        record = TrialRecord.of(trial)
        seed = record.seed
        if seed is None:
            place = place_among_drawn(self.study, record.first(trial.number))
            seed = trial_seed(self.seed, place)
        if record.resumed_from is not None:
            self._inherit(trial.number, record.resumed_from, folder)
        windows = windows_of(self.dataset)
        told = TrialRecord(
            seed=seed,
            trial_hash=key,
            flops=cost.flops,
            macs=cost.macs,
            scan_flops=cost.scan_flops,
            params=cost.params,
            memory=self._memory(cost),
            network=None if reference is None else reference.label_of(spec),
            windows_per_volume=windows,
            flops_per_volume=windows and windows * cost.flops,
            host=this_host(),
            started=time.time(),
        )
        write(trial, told)
        self.live[trial.number] = trial
        self.ledger.start(key, trial)
        text = f"{cost.flops / 1e9:.3f} GFLOPs, {cost.params:,} parameters"
        text = text if told.network is None else f"{told.network}, {text}"
        if record.resumed_from is not None:
            text += f", goes on with trial {record.resumed_from}"
        self._emit("start", trial.number, text)
        settings = self.space.settings
        return TrialTask(
            trial.number,
            spec.tree(),
            folder,
            seed,
            self.rung_steps,
            settings.validate_every,
            checkpoint_every=settings.checkpoint_every,
            measure_latency="latency" in self.objectives.costs and record.latency is None,
            average=settings.averages,
        )

    def _memory(self, cost: Cost) -> int | None:
        """Return the bytes of a training step by estimate, where they are an objective."""
        if "memory" not in self.objectives.costs:
            return None
        batch, amp = self.space.settings.batch_size, self.drawing.device.startswith("cuda")
        return training_memory(cost.planned, batch=batch, amp=amp).total

    def _inherit(self, number: int, lost: int, folder: Path) -> None:
        """Copy metrics and checkpoint of the trial that is gone on with, unless that is damaged."""
        for name in (METRICS, CHECKPOINT):
            old = self._kept(lost, name)
            if old is None:
                continue
            if name == CHECKPOINT and not is_whole(old):
                text = f"{old} is damaged and stays as it is; trained from the first step"
                self._emit("note", number, text)
                continue
            with replacing(folder / name) as partial:
                shutil.copyfile(old, partial)

    def _kept(self, lost: int, name: str) -> Path | None:
        """Return the file of the lost trial, or of the nearest one that it went on with.

        A search killed before it had copied the file leaves a trial without one behind.
        """
        trials, number = self.study.get_trials(deepcopy=False), lost
        while True:
            file = self.folder / "trials" / f"{number:04d}" / name
            if file.is_file():
                return file
            before = TrialRecord.of(trials[number]).resumed_from
            if before is None:
                return None
            number = before

    def _handle(self, message: Message, engine: Engine) -> None:
        """Record what a worker said.

        Raises:
            SpecError: nothing can be written any more, or a case cannot be used.
        """
        if message.event in ("storage", "data"):
            raise SpecError(message.reason)
        trial = self.live[message.number]
        try:
            if message.host is not None:
                host, gpu, precision = message.host, message.gpu, message.precision
                write(trial, TrialRecord(trained_on=host, gpu=gpu, precision=precision))
            if message.event == "failed":
                self._fail(trial, message.reason)
            elif message.event == "lost":
                self._lose(trial, message)
            elif message.rung is not None and message.event == "rung":
                self._time(trial, message.latency)
                self._record(trial, message.rung, engine)
            elif message.rung is not None:
                self._finish(trial, message.rung)
        except UpdateFinishedTrialError:  # given up by another driver while this one was stalled
            del self.live[trial.number]
            if message.event == "rung":
                engine.stop(trial.number)
            self._read_study()
            self._emit("refused", trial.number, "too late: given up and queued again meanwhile")

    def _time(self, trial: optuna.Trial, found: Latency | None) -> None:
        """Record a latency; the first stands, so that a resumed search decides no other."""
        if found is not None and TrialRecord.of(trial).latency is None:
            # the calibration first: without it a kill in between leaves no latency
            write(trial, TrialRecord(calibration=found.calibration))
            write(trial, TrialRecord(latency=found.seconds))

    def _record(self, trial: optuna.Trial, rung: Rung, engine: Engine) -> None:
        """Record a rung together with what was decided there: a resumed search decides no other."""
        record = TrialRecord.of(trial)
        if record.last is not None and rung.step <= record.last.step:
            return  # recorded before the trial was lost
        index = self.rung_steps.index(rung.step)
        if not self.objectives.is_mean:
            rung = replace(rung, smoothed=self.dice_of(rung))
        goes_on = not math.isfinite(rung.dice) or self.stopper.decide(
            index, rung.dice, self._costs(record), record.first(trial.number)
        )
        judged = JudgedRung.of(rung, stop=not goes_on)
        write(trial, TrialRecord(rungs=(*record.rungs, judged)))
        self._emit("rung", trial.number, f"step {rung.step}: Dice {rung.dice:.3f}")
        if not goes_on:
            engine.stop(trial.number)
            write(trial, TrialRecord(end=End.STOPPED))
            self.study.tell(trial, state=TrialState.PRUNED)
            self._end(trial, "stopped", judged.stop_text)

    def dice_of(self, rung: Rung) -> float:
        """Return the Dice by which a rung, as a worker tells it, is judged."""
        if self.objectives.is_mean:
            return rung.dice
        return self.objectives.score(rung.scores, self.classes)

    def _lose(self, trial: optuna.Trial, message: Message) -> None:
        """Queue a trial whose worker died or stalled; once, unless it came to a rung since.

        One whose whole place is gone, of which it is no cause, has `PLACE_LOSSES` such losses.
        """
        record, reason = TrialRecord.of(stored_trial(self.study, trial)), message.reason
        step = 0 if record.last is None else record.last.step
        places = (record.places_lost or 0) + 1
        if message.place_lost and places > PLACE_LOSSES:
            self._fail(trial, f"{reason}, as {PLACE_LOSSES} times before")
            return
        if not message.place_lost and record.retried_at == step:
            self._fail(trial, f"{reason}, and so before")
            return
        write(trial, TrialRecord(lost=reason, end=End.LOST))
        lost = stored_trial(self.study, trial)
        if message.place_lost:
            queue_again(self.study, lost, places_lost=places)
        else:
            queue_again(self.study, lost, retried_at=step)
        self.study.tell(trial, state=TrialState.FAIL)
        assert record.trial_hash is not None, "written before it was handed to a worker"
        self.ledger.lose(record.trial_hash, trial)
        del self.live[trial.number]
        self._emit("lost", trial.number, f"{reason}; queued again")

    def _finish(self, trial: optuna.Trial, last: Rung) -> None:
        write(trial, TrialRecord(scores=last.scores, seconds=last.seconds))
        dice = self.objectives.score(last.scores, self.classes)
        if not math.isfinite(dice):  # Optuna would take an infinite value as a result
            self._fail(trial, "no Dice: no foreground in the validation cases")
            return
        self.study.tell(trial, [dice, *self._costs(TrialRecord.of(trial))])
        self._end(trial, "done", f"Dice {dice:.3f} in {last.time_text}")

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        write(trial, TrialRecord(reason=reason, end=End.FAILED))
        self.study.tell(trial, state=TrialState.FAIL)
        self._end(trial, "failed", reason)

    def _end(self, trial: optuna.Trial, kind: str, text: str) -> None:
        del self.live[trial.number]
        self.ledger.end()
        self._emit(kind, trial.number, text)

    def _costs(self, record: TrialRecord) -> Costs:
        """Return log10 of what the objectives hold against the network."""
        return tuple(math.log10(record.cost(name) or 1) for name in self.objectives.costs)

    def _emit(self, kind: str, number: int, text: str) -> None:
        self.on_event(Event(kind, number, text, self.ledger.num_ended, self.total))


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a trial of the search with this seed: 48 bits of a hash.

    So no two trials of any searches share one in practice, and spreadsheets show all its digits. A
    trial keeps the seed that it was started with, whatever release did that.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 16)
