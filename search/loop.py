"""The driver's loop: what is asked of Optuna, handed to workers, and told back.

All changes of the study happen here, in one process.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from archspec.costing import Cost, cost_plan
from archspec.hashing import trial_hash
from archspec.nnunet_dataset import PreprocessedDataset
from archspec.planning import plan
from archspec.spec import ArchSpec
from archspec.yaml_source import dump
from blocks.base import SpecError
from search.driver import Message, WorkerPool
from search.space import Space
from search.trial import CHECKPOINT, METRICS, Rung, TrialTask

_MAX_REDRAWS = 100


@dataclass(frozen=True)
class Event:
    """Something to show: a trial started, reached a rung, or ended; `done` of `total` ended."""

    kind: str
    number: int
    text: str
    done: int
    total: int


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: trained to the end, or failed by a fault of their own."""
    trials = study.get_trials(deepcopy=False)
    failed = [t for t in trials if t.state == TrialState.FAIL and "reason" in t.user_attrs]
    return [t for t in trials if t.state == TrialState.COMPLETE] + failed


class SearchLoop:
    """Draw, submit, record, until `total` trials have ended."""

    def __init__(
        self,
        space: Space,
        dataset: PreprocessedDataset,
        folder: Path,
        study: optuna.Study,
        total: int,
        seed: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self.space = space
        self.dataset = dataset
        self.folder = folder
        self.study = study
        self.total = total
        self.seed = seed
        self.on_event = on_event
        self.live: dict[int, optuna.Trial] = {}

    def num_left(self) -> int:
        return max(self.total - len(ended(self.study)), 0)

    def recover(self) -> None:
        """Queue anchors that were never queued, and again what a killed search left RUNNING.

        The lock on the run folder says that no driver lives, so every RUNNING trial is lost.
        """
        for anchor in self.space.anchors():
            self.study.enqueue_trial(anchor, skip_if_exists=True)
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        queued = {t.user_attrs.get("resumed_from") for t in waiting}
        for lost in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # queued before it is told: a kill in between loses nothing and queues nothing twice
            if lost.number not in queued:
                seed = lost.user_attrs.get("seed")
                # killed before it drew its parameters, an anchor has them as fixed ones only
                params = {**lost.system_attrs.get("fixed_params", {}), **lost.params}
                self.study.enqueue_trial(
                    params, user_attrs={"resumed_from": lost.number, "seed": seed}
                )
            self.study.tell(lost.number, state=TrialState.FAIL)

    def drive(self, pool: WorkerPool) -> None:
        """Keep workers busy until enough trials have ended."""
        while True:
            while pool.num_idle and self.num_left() > pool.num_busy:
                task = self._next_task()
                if task is None:
                    break
                pool.submit(task)
            if not pool.num_busy:
                return
            for message in pool.messages():
                self._handle(message)

    def _next_task(self) -> TrialTask | None:
        """Draw a spec that is valid and new; None where the space seems used up."""
        for _ in range(_MAX_REDRAWS):
            trial = self.study.ask()
            try:
                spec = self.space.suggest(trial)
                planned = plan(
                    spec,
                    in_channels=self.dataset.num_channels,
                    num_classes=self.dataset.num_classes,
                    patch_size=self.dataset.patch_size,
                )
            except SpecError as error:
                self._reject(trial, f"invalid: {error}")
                continue
            key = trial_hash(spec)
            twin = self._twin(key, trial)
            if twin is not None:
                self._reject(trial, f"same network and recipe as trial {twin}")
                continue
            return self._task(trial, spec, cost_plan(planned), key)
        self._emit("note", -1, f"stopped early: {_MAX_REDRAWS} draws gave no new valid network")
        return None

    def _twin(self, key: str, trial: optuna.Trial) -> int | None:
        lost = trial.user_attrs.get("resumed_from")
        for other in self.study.get_trials(deepcopy=False):
            same = other.user_attrs.get("trial_hash") == key
            known = other.state != TrialState.FAIL or "reason" in other.user_attrs
            if same and known and other.number not in (trial.number, lost):
                return other.number
        return None

    def _reject(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr("rejected", reason)
        self.study.tell(trial, state=TrialState.PRUNED)

    def _task(self, trial: optuna.Trial, spec: ArchSpec, cost: Cost, key: str) -> TrialTask:
        folder = self.folder / "trials" / f"{trial.number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        named = spec.model_copy(update={"name": f"{self.space.name}-{trial.number:04d}"})
        (folder / "spec.yaml").write_text(dump(named.tree()), encoding="utf-8")
        seed = trial.user_attrs.get("seed")
        seed = 1000 * self.seed + trial.number if seed is None else seed
        resumed = trial.user_attrs.get("resumed_from")
        if resumed is not None:
            _inherit(self.folder / "trials" / f"{resumed:04d}", folder)
        attributes = {
            "seed": seed,
            "trial_hash": key,
            "flops": cost.flops,
            "macs": cost.macs,
            "scan_flops": cost.scan_flops,
            "params": cost.params,
            "started": time.time(),
        }
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        self.live[trial.number] = trial
        text = f"{cost.flops / 1e9:.3f} GFLOPs, {cost.params:,} parameters"
        if resumed is not None:
            text += f", goes on with trial {resumed}"
        self._emit("start", trial.number, text)
        settings = self.space.settings
        return TrialTask(trial.number, spec.tree(), folder, seed, settings.steps, settings.rungs)

    def _handle(self, message: Message) -> None:
        trial = self.live[message.number]
        if message.event == "failed":
            trial.set_user_attr("reason", message.reason)
            self.study.tell(trial, state=TrialState.FAIL)
            self._emit("failed", message.number, message.reason)
            return
        assert message.rung is not None
        rung = message.rung
        if message.event == "rung":
            rungs = [*trial.user_attrs.get("rungs", []), vars(rung)]
            trial.set_user_attr("rungs", rungs)
            self._emit("rung", message.number, f"step {rung.step}: Dice {rung.scores['mean']:.3f}")
            return
        self._finish(trial, rung)

    def _finish(self, trial: optuna.Trial, last: Rung) -> None:
        trial.set_user_attr("scores", last.scores)
        trial.set_user_attr("seconds", last.seconds)
        dice = last.scores["mean"]
        if not math.isfinite(dice):  # Optuna would take an infinite value as a result
            trial.set_user_attr("reason", "no Dice: no foreground in the validation cases")
            self.study.tell(trial, state=TrialState.FAIL)
            self._emit("failed", trial.number, "no Dice")
            return
        self.study.tell(trial, [dice, math.log10(trial.user_attrs["flops"])])
        self._emit("done", trial.number, f"Dice {dice:.3f} in {last.seconds:.0f} s")

    def _emit(self, kind: str, number: int, text: str) -> None:
        self.on_event(Event(kind, number, text, len(ended(self.study)), self.total))


def _inherit(old: Path, new: Path) -> None:
    """Copy checkpoint and metrics of the trial that is gone on with."""
    for name in (METRICS, CHECKPOINT):
        if (old / name).is_file():
            partial = new / f"{name}.partial"
            shutil.copyfile(old / name, partial)
            partial.replace(new / name)
