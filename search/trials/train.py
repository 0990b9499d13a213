"""Train one spec: optimizer steps in segments, each ending at a rung with a score and a file."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.network.start_weights import load_start_weights
from archspec.training.devices import timed_convolutions
from archspec.training.losses import Losses
from archspec.training.step import Stepper, autocast_dtype
from archspec.training.waits import Waits
from blocks.errors import reason
from search.trials.batches import Loading, load_batches
from search.trials.cases import CaseScores, ShownCases, TrialCases
from search.trials.checkpoint import (
    CHECKPOINT,
    CheckpointError,
    random_states,
    read_checkpoint,
    set_random_states,
    write_checkpoint,
)
from search.trials.lines import append_line
from search.trials.pictures import PICTURES, Picture, draw, three_of, write_pictures
from search.trials.recorded import from_record

METRICS = "metrics.jsonl"
CHECKPOINT_SECONDS = 120.0
"""Between two checkpoints, where no number of steps is given."""
_LOSSES = 20
"""Steps whose mean loss a rung tells."""


@dataclass(frozen=True)
class TrialTask:
    """What a worker needs to train one trial; a checkpoint in its folder is gone on from.

    `by_case` asks for the scores of every validation and test case at the end. `checkpoint_every`
    are the steps between two checkpoints; None: `CHECKPOINT_SECONDS` of training.
    `measure_latency` asks for that before it trains. `average` scores the mean of the weights over
    the last steps in their place. `name` is what is shown of it while it trains.
    """

    number: int
    tree: dict[str, Any]
    folder: Path
    seed: int
    rung_steps: tuple[int, ...]
    validate_every: int | None = None
    by_case: bool = False
    checkpoint_every: int | None = None
    measure_latency: bool = False
    average: bool = False
    name: str = ""


@dataclass(frozen=True)
class Rung:
    """A score on the way: `scores` are Dice by class and group, and their `mean`.

    `smoothed` is the mean Dice over up to three validations since the rung before; once recorded
    in a search for another Dice than the mean over classes, that Dice. `seconds` are
    those of training since its start, `waited` those of them in which a step waited for its batch
    (unknown to earlier releases).
    """

    step: int
    scores: dict[str, float]
    loss: float
    seconds: float
    smoothed: float | None = None
    waited: float | None = None

    @property
    def dice(self) -> float:
        """Return the Dice by which the rung is judged."""
        return self.scores["mean"] if self.smoothed is None else self.smoothed

    @property
    def busy(self) -> float | None:
        """Return the share of the seconds in which no step waited for its batch."""
        return None if self.waited is None else 1 - self.waited / max(self.seconds, 1e-9)

    @property
    def time_text(self) -> str:
        """Return how long it trained, and how busy that was."""
        busy = "" if self.busy is None else f", {100 * self.busy:.0f} % busy"
        return f"{self.seconds:.0f} s{busy}"


@dataclass(frozen=True)
class Listener:
    """Who is told of a training: of its rungs, and after each step of that and the last loss known.

    A GPU's losses are known some steps later, for nothing waits for them.
    """

    on_rung: Callable[[Rung], None] = lambda rung: None
    on_step: Callable[[int, float | None], None] = lambda step, loss: None


class StoppedError(Exception):
    """The driver stopped the trial at a rung."""


@dataclass
class Segment:
    """What a training has come to since its last rung, beside its weights: at `step` of all.

    `losses` are the last ones, `random` the states of random numbers at that step.
    """

    step: int
    losses: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    random: dict[str, Any] = field(default_factory=dict)


def train(
    task: TrialTask,
    planned: Plan,
    data: TrialCases,
    device: torch.device,
    listener: Listener,
    loading: Loading = Loading(),  # noqa: B008
) -> Rung:
    """Train, tell of every rung, and return the last one.

    A checkpoint is written before a rung is told, so what was told is never trained again;
    its rung is told again when it is gone on from. Others are written between rungs, see
    `TrialTask`. Batches depend on the seed and the step alone, so that those that were loaded ahead
    of a cut are loaded again alike; other random numbers start from the seed and the segment, and
    checkpoints between rungs keep their states. A resumed trial ends like one that was never cut
    off: on a CPU to the last bit, for one number of threads.

    Raises:
        DivergedError: the loss became NaN or infinite; on a GPU that is seen some steps later.
        StoppedError: whoever is told of a rung may raise it.
        CheckpointError: a checkpoint cannot be written.
        SpecError: pretrained weights do not come.
        LoadingError, RuntimeError: see `load_batches`.
    """
    seed_everything(task.seed)
    recipe = planned.spec.training
    net = build_plan(planned).to(device)
    deep_supervision = planned.spec.deep_supervision.heads > 1
    dtype = autocast_dtype(device)
    stepper = Stepper(net, recipe, device=device, dtype=dtype, average=task.average)
    scored = cast(SegNet, stepper.scored)
    loss_of = data.loss(planned.strides, deep_supervision=deep_supervision, kind=recipe.loss)
    restored = _restored(task.folder, stepper)
    if restored is None:
        load_start_weights(net)
    last, segment = restored or (None, Segment(0))
    if last is not None:
        listener.on_rung(last)
    listener.on_step(segment.step, None)
    source = data.batches(planned.strides, deep_supervision=deep_supervision)
    total = task.rung_steps[-1]
    ahead = load_batches(source, range(segment.step, total), seed=task.seed, loading=loading)
    with timed_convolutions(device), closing(ahead) as batches:
        for rung, end in enumerate(task.rung_steps, start=1):
            if end <= segment.step:
                continue
            if segment.random:
                set_random_states(segment.random, device)
            else:
                seed_everything(task.seed + 7919 * rung)
            clock = _Clock(segment, device)
            _set_training(net, deep_supervision)
            for step in range(segment.step, end):
                clock.losses.add(stepper.step(loss_of, clock.waits.next(batches), step, total))
                listener.on_step(step + 1, clock.losses.last)
                if step + 1 == end:
                    break
                if task.validate_every and (step + 1) % task.validate_every == 0:
                    clock.losses.read()
                    segment.validations.append(_scores(scored, data, device)["mean"])
                    _set_training(net, deep_supervision)
                if clock.is_due(step + 1, task.checkpoint_every):
                    clock.note(step + 1)
                    segment.random = random_states(device)
                    _save(task.folder, stepper, last, segment)
                    clock.checkpoint()
            clock.note(end)
            scores = _scores(scored, data, device)
            last = _rung(segment, scores, last)
            _save(task.folder, stepper, last)
            listener.on_rung(last)
            segment = Segment(end)
    assert last is not None
    return last


class _Clock:
    """What one stretch of steps adds to its segment: losses, seconds, and whether to save it."""

    def __init__(self, segment: Segment, device: torch.device) -> None:
        self._segment = segment
        self._before = segment.losses, segment.seconds, segment.waited
        self.losses = Losses(device, segment.step)
        self.waits = Waits(device)
        self._started = self._saved = time.monotonic()

    def is_due(self, step: int, every: int | None) -> bool:
        """Say whether a checkpoint is to be written after so many steps of all."""
        if every is not None:
            return step % every == 0
        return time.monotonic() - self._saved >= CHECKPOINT_SECONDS

    def checkpoint(self) -> None:
        """Note that a checkpoint was written."""
        self._saved = time.monotonic()

    def note(self, step: int) -> None:
        """Bring the segment up to this step; a GPU is waited for.

        Raises:
            DivergedError: see `Losses`.
        """
        losses, seconds, waited = self._before
        found = self.losses.read()
        self._segment.step = step
        self._segment.losses = [*losses, *found][-_LOSSES:]
        self._segment.seconds = seconds + time.monotonic() - self._started
        self._segment.waited = waited + self.waits.seconds()


def _rung(segment: Segment, scores: dict[str, float], last: Rung | None) -> Rung:
    """Return the rung that ends the segment after the last one."""
    smoothed = float(np.mean([*segment.validations, scores["mean"]][-3:]))
    seconds, waited = segment.seconds, segment.waited
    if last is not None:
        seconds += last.seconds
        waited += last.waited or 0.0
    loss = float(np.mean(segment.losses))
    return Rung(segment.step, scores, loss, seconds, smoothed, waited)


def score_trained(
    task: TrialTask, planned: Plan, data: TrialCases, device: torch.device
) -> tuple[CaseScores, CaseScores]:
    """Return the scores of the validation and the test cases, with the last checkpoint's weights.

    Three of the test cases are pictured in the folder, or of the validation cases where no case
    tests: where the data show what was predicted.

    Raises:
        CheckpointError: there is no checkpoint of the last step, or no picture can be written.
    """
    trained = build_plan(planned).to(device)
    recipe = planned.spec.training
    stepper = Stepper(trained, recipe, device=device, dtype=None, average=task.average)
    net = cast(SegNet, stepper.scored)
    last, _ = _restored(task.folder, stepper) or (None, None)
    if last is None or last.step != task.rung_steps[-1]:
        raise CheckpointError(f"{task.folder / CHECKPOINT}: is not of step {task.rung_steps[-1]}")
    net.decoder.deep_supervision = False
    net.eval()
    part = "test" if data.test_cases else "validation"
    cases = {"validation": data.validation_cases, "test": data.test_cases}
    scores = {
        name: data.score_cases(net, device, names) for name, names in cases.items() if name != part
    }
    if isinstance(data, ShownCases):
        scores[part], pictures = _pictured(data, net, device, cases[part])
        try:
            write_pictures(task.folder / PICTURES, part, pictures)
        except OSError as error:
            raise CheckpointError(f"{task.folder / PICTURES}: {reason(error)}") from error
    else:
        scores[part] = data.score_cases(net, device, cases[part])
    return scores["validation"], scores["test"]


def _pictured(
    data: ShownCases, net: SegNet, device: torch.device, names: list[str]
) -> tuple[CaseScores, list[Picture]]:
    """Return the scores of the cases, and pictures of three of them."""
    scores, drawn = {}, {}
    for one in data.predicted(net, device, names):
        scores[one.case] = data.scores_of(one)
        drawn[one.case] = draw(one)
    return scores, three_of(scores, drawn)


def _set_training(net: SegNet, deep_supervision: bool) -> None:
    net.train()
    net.decoder.deep_supervision = deep_supervision


def _scores(net: SegNet, data: TrialCases, device: torch.device) -> dict[str, float]:
    net.decoder.deep_supervision = False
    return data.score(net, device)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch; nnU-Net's loader draws from the first two."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # it takes no more; the other two take them all
    torch.manual_seed(seed)


def _restored(folder: Path, stepper: Stepper) -> tuple[Rung | None, Segment] | None:
    """Load the checkpoint of the folder: its last rung, and what came after it.

    None where there is none, or it is damaged; that one is kept aside.
    """
    file = folder / CHECKPOINT
    if not file.is_file():
        return None
    state = read_checkpoint(file)
    try:
        found = _progress(state or {})
        stepper.load_state_dict(state or {})
    except (KeyError, TypeError):
        file.replace(folder / f"{CHECKPOINT}.unreadable")
        return None
    return found


def _progress(state: dict[str, Any]) -> tuple[Rung | None, Segment]:
    """Return the last rung, and what came after it.

    Raises:
        KeyError, TypeError: it is not the state of a training.
    """
    if "between" not in state:
        last = from_record(Rung, state["rung"])
        return last, Segment(last.step)
    between = state["between"]
    before = None if between["last"] is None else from_record(Rung, between["last"])
    return before, from_record(Segment, between["segment"])


def _save(
    folder: Path, stepper: Stepper, last: Rung | None, segment: Segment | None = None
) -> None:
    """Write the checkpoint of a rung, then the metric line; or one between rungs.

    That one has no `rung`: an earlier release, which would take the weights for the rung's, begins
    the trial anew.

    Raises:
        CheckpointError: they cannot be written.
    """
    told = None if last is None else vars(last)
    if segment is not None:
        between = {"last": told, "segment": vars(segment)}
        state = {**stepper.state_dict(), "step": segment.step, "between": between}
        write_checkpoint(folder / CHECKPOINT, state)
        return
    assert last is not None, "a rung has just been scored"
    state = {**stepper.state_dict(), "step": last.step, "rung": told}
    write_checkpoint(folder / CHECKPOINT, state)
    try:
        append_line(folder / METRICS, vars(last))
    except OSError as error:
        raise CheckpointError(f"{folder / METRICS}: cannot be written: {reason(error)}") from error
