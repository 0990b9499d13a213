"""One recorded training: steps with averaged weights, scores and times at every rung."""

import math
import os
import pickle
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.training.step import Stepper
from blocks.layers.scan_branch import ScanBranch
from search.trials.batches import Loading, load_batches
from search.trials.cases import CaseScores
from search.trials.nnunet_data import TrialData
from search.trials.train import seed_everything

CPU = torch.device("cpu")
_CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_EVERY = 75
_TIMED_CASES = 5


class StoppedError(Exception):
    """Someone asked the recorder to stop; the training goes on from here the next time."""


@dataclass(frozen=True)
class Seconds:
    """Medians of CPU and wall time: a step without its batch, a case, the calibration."""

    step: tuple[float, float]
    batch: tuple[float, float]
    case: tuple[float, float]
    calibration: tuple[float, float]


@dataclass(frozen=True)
class Reached:
    """A rung: the scores of the validation cases, with the last weights and with averaged ones."""

    step: int
    loss: float
    raw: CaseScores
    ema: CaseScores
    seconds: Seconds


@dataclass
class Run:
    """A training in progress: what its checkpoint holds, and times since it was loaded."""

    net: SegNet
    averaged: AveragedModel
    stepper: Stepper
    file: Path
    done: int = 0
    losses: list[float] = field(default_factory=list)
    step_times: list[tuple[float, float]] = field(default_factory=list)
    batch_times: list[tuple[float, float]] = field(default_factory=list)

    @property
    def ema(self) -> nn.Module:
        return self.averaged.module

    def save(self) -> None:
        """Write the checkpoint; a cut-off write leaves the old one."""
        partial = self.file.with_suffix(".partial")
        state = {
            **self.stepper.state_dict(),
            "averaged": self.averaged.state_dict(),
            "done": self.done,
            "losses": self.losses[-20:],
        }
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.file)

    def restore(self) -> None:
        """Go on from the checkpoint, where one is and can be read."""
        if not self.file.is_file():
            return
        try:
            state = torch.load(self.file, map_location=CPU, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            return
        self.stepper.load_state_dict(state)
        self.averaged.load_state_dict(state["averaged"])
        self.done, self.losses = state["done"], state["losses"]


def start(planned: Plan, folder: Path, *, seed: int, ema: dict[str, float]) -> Run:
    """Return the training at its last checkpoint in the folder, or at its start."""
    folder.mkdir(parents=True, exist_ok=True)
    seed_everything(seed)
    net = build_plan(planned)
    for module in net.modules():
        if isinstance(module, ScanBranch):  # ToM would give it to its forward branch alone
            module._init_dt()

    def average(averaged: Any, current: Any, count: Any) -> None:
        taken = int(count)
        decay = min(ema["decay"], (1 + taken) / (ema["rise"] + taken))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    run = Run(
        net,
        AveragedModel(net, multi_avg_fn=average),
        Stepper(net, planned.spec.training, device=CPU, dtype=None),
        folder / _CHECKPOINT,
    )
    run.restore()
    return run


def train(
    run: Run,
    planned: Plan,
    data: "RecordedData",
    *,
    seed: int,
    rungs: list[int],
    report: Callable[[Reached], None],
    stopping: Callable[[], bool],
) -> bool:
    """Train to the last rung and report every rung before its checkpoint is written.

    Batches depend on the seed and the step alone, and nothing else draws random numbers, so a
    training that was cut off ends like one that was not. False if the loss is not a number.

    Raises:
        StoppedError: `stopping` said so.
    """
    deep = planned.spec.deep_supervision.heads > 1
    loss_of = data.loss(planned.strides, deep_supervision=deep, kind=planned.spec.training.loss)
    source = data.batches(planned.strides, deep_supervision=deep)
    total = rungs[-1]
    steps = range(run.done, total)
    with closing(load_batches(source, steps, seed=seed, loading=Loading())) as batches:
        for step in steps:
            run.net.train()
            run.net.decoder.deep_supervision = deep
            began = _now()
            batch = next(batches)
            loaded = _now()
            run.losses.append(float(run.stepper.step(loss_of, batch, step, total)))
            run.averaged.update_parameters(run.net)
            run.batch_times.append(_since(began, loaded))
            run.step_times.append(_since(loaded, _now()))
            run.done = step + 1
            if not math.isfinite(run.losses[-1]):
                return False
            if run.done in rungs:
                report(_reached(run, data))
                run.step_times.clear()
                run.batch_times.clear()
            if run.done % _CHECKPOINT_EVERY == 0 or stopping():
                run.save()
            if stopping():
                raise StoppedError
    return True


def _reached(run: Run, data: "RecordedData") -> Reached:
    cases = data.validation_cases
    return Reached(
        step=run.done,
        loss=statistics.mean(run.losses[-20:]),
        raw=score(run.net, data, cases),
        ema=score(run.ema, data, cases),
        seconds=Seconds(
            _medians(run.step_times), _medians(run.batch_times), *_case_and_calibration(run, data)
        ),
    )


def score(net: nn.Module, data: TrialData, cases: list[str]) -> CaseScores:
    """Return the scores of cases with a network as it stands."""
    net.eval()
    net.decoder.deep_supervision = False  # type: ignore[union-attr]
    return data.score_cases(net, CPU, cases)


def _case_and_calibration(
    run: Run, data: "RecordedData"
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Time one case and the calibration in turns, so that both meet the same other load."""
    run.net.eval()
    run.net.decoder.deep_supervision = False
    predict, calibrate = data.one_case(run.net), _calibration()
    cases, calibrations = [], []
    for repeat in range(_TIMED_CASES + 1):
        began = _now()
        predict()
        predicted = _now()
        calibrate()
        if repeat:  # the first warms up
            cases.append(_since(began, predicted))
            calibrations.append(_since(predicted, _now()))
    return _medians(cases), _medians(calibrations)


def _calibration() -> Callable[[], None]:
    """Return ten convolutions that are the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 20, 28, 20, generator=generator)
    weight = torch.randn(16, 16, 3, 3, 3, generator=generator)

    @torch.no_grad()
    def run() -> None:
        for _ in range(10):
            nn.functional.conv3d(x, weight, padding=1)

    return run


class RecordedData(TrialData):
    """A fold's cases, one of which is timed."""

    def one_case(self, net: nn.Module) -> Callable[[], Tensor]:
        """Return what predicts the first validation case, loaded and on its way to logits."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=False, device=CPU, perform_everything_on_device=False, allow_tqdm=False
        )
        predictor.manual_initialization(
            net, self.plans, self.configuration, None, self.dataset.dataset_json, "none", None
        )
        name = sorted(self.validation_cases)[0]
        image = torch.from_numpy(self.dataset_class(self.folder, [name]).load_case(name)[0][:])
        return lambda: predictor.predict_sliding_window_return_logits(image)


def host() -> str:
    """Return the CPU's model, and how many threads compute."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}; {torch.get_num_threads()} thread"


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _since(began: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    return ended[0] - began[0], ended[1] - began[1]


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(cpu for cpu, _ in times), statistics.median(wall for _, wall in times)
