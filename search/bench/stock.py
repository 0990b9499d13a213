"""Trainings by stock nnU-Net: plans that hold the network, its own command, its own validation.

Verified with nnU-Net 2.8.1. It goes on from checkpoints that it writes every 50 epochs, and seeds
nothing, so that seeds are repetitions here.
"""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archspec.files import appending, make_folder, write_text
from archspec.network.plan import Plan
from archspec.nnunet.commands import TRAINER, TRAINERS
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.export import export_nnunet
from archspec.nnunet.names import default_plans_name
from archspec.scoring.dice import mean
from archspec.scoring.labels import scored_labels
from archspec.spec.hashing import trial_hash
from blocks.base import SpecError
from search.bench.arena import Arena
from search.bench.rows import Row
from search.bench.settings import PLANS, STOCK, BenchTask
from search.retrain.retrain import Progress
from search.trials.batches import num_loaders
from search.trials.cases import CaseScores

_PATIENCE = 30.0
"""Seconds that nnU-Net has to end its processes."""
_EPOCHS, _ITERATIONS = 1000, 250
"""Of nnU-Net's trainer, where a recipe does not say."""
_SECONDS = "seconds.txt"


@dataclass(frozen=True)
class _Training:
    """One call of nnU-Net's command: network, data, fold and repetition."""

    task: BenchTask
    arena: Arena
    label: str
    fold: int
    seed: int

    @property
    def plans_name(self) -> str:
        return default_plans_name(self.planned.spec)

    @property
    def planned(self) -> Plan:
        return self.arena.planned[self.label]

    @property
    def results(self) -> Path:
        """Return what `nnUNet_results` is for it: nnU-Net has no other place for a repetition."""
        return (self.task.folder / STOCK / f"seed_{self.seed}").absolute()

    @property
    def folder(self) -> Path:
        dataset = self.arena.dataset
        name = f"{TRAINER}__{self.plans_name}__{dataset.configuration}"
        return self.results / dataset.name / name / f"fold_{self.fold}"

    @property
    def steps(self) -> int:
        recipe = self.planned.spec.training
        return (recipe.epochs or _EPOCHS) * (recipe.iterations or _ITERATIONS)

    def row(self) -> Row | None:
        """Return what nnU-Net found on its validation cases; None before it has."""
        cases = read_summary(self.folder / "validation" / "summary.json", self.arena.dataset)
        if cases is None:
            return None
        seconds = _seconds(self.folder)
        spec, name = self.planned.spec, self.arena.dataset.name
        known = (trial_hash(spec), self.steps, seconds or None)
        return Row(self.label, name, self.fold, self.seed, *known, cases)


def check_stock(task: BenchTask) -> None:
    """Refuse networks whose plans would have the same name.

    Raises:
        SpecError: see above.
    """
    for arena in task.arenas:
        names: dict[str, str] = {}
        for label, planned in arena.planned.items():
            name = default_plans_name(planned.spec)
            if name in names:
                raise SpecError(
                    f"the plans of {names[name]} and {label} would both be called {name}",
                    field="networks",
                    suggestion="give each spec a `name` of its own",
                )
            names[name] = label


def stock_rows(task: BenchTask) -> list[Row]:
    """Return the trainings that ended."""
    return [row for one in _trainings(task) if (row := one.row()) is not None]


def train_stock(
    task: BenchTask, *, force: bool, on_progress: Callable[[Progress], None]
) -> dict[str, str]:
    """Train what has no summary yet; return why trainings failed, by name.

    `force` replaces plans that others wrote under the names that are needed.

    Raises:
        SpecError: plans of that name exist, or were changed since.
    """
    todo = [one for one in _trainings(task) if one.row() is None]
    failed: dict[str, str] = {}
    total = task.num_trainings
    for arena in task.arenas:
        for label in arena.planned:
            own = [one for one in todo if one.arena is arena and one.label == label]
            if own:
                _write_plans(own[0], force=force)
    for number, one in enumerate(todo):
        name = f"{one.arena.dataset.name} fold {one.fold}: {one.label}, seed {one.seed}"
        done = total - len(todo) + number
        on_progress(Progress(name, "nnUNetv2_train", done, total))
        code, log = _train(one)
        if one.row() is not None:
            on_progress(Progress(name, "trained and scored", done + 1, total))
        else:
            failed[name] = f"nnUNetv2_train ended with code {code}; see {log}"
            on_progress(Progress(name, f"failed: {failed[name]}", done + 1, total))
    return failed


def read_summary(file: Path, dataset: PreprocessedDataset) -> CaseScores | None:
    """Return Dice by case and class, and `mean`, from nnU-Net's summary; None where there is none.

    One that a kill cut off counts as none. NaN where a class is neither in the case nor predicted.
    """
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        classes, _ = scored_labels(dataset.dataset_json)
        cases: CaseScores = {}
        for one in found["metric_per_case"]:
            metrics = {_values(key): value["Dice"] for key, value in one["metrics"].items()}
            own = {name: float(metrics[tuple(sorted(v))]) for name, v in classes.items()}
            name = Path(one["prediction_file"]).name
            ending = dataset.dataset_json.get("file_ending", "")
            cases[name.removesuffix(ending)] = {"mean": mean(own.values()), **own}
        return cases
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _values(key: str) -> tuple[int, ...]:
    """Return the values of a label, `1`, or of a region, `(1, 2)`."""
    return tuple(sorted(int(number) for number in re.findall(r"\d+", key)))


def _trainings(task: BenchTask) -> list[_Training]:
    return [
        _Training(task, arena, label, fold, seed)
        for arena in task.arenas
        for seed in task.all_seeds
        for fold in task.folds
        for label in arena.planned
    ]


def _write_plans(one: _Training, *, force: bool) -> None:
    """Export the network, once: a copy beside the results says that the plans are this bench's."""
    task, dataset, name = one.task, one.arena.dataset, one.plans_name
    target = dataset.folder / f"{name}.json"
    copy = task.folder / PLANS / dataset.name / f"{name}.json"
    if not copy.is_file():
        export_nnunet(
            one.planned.spec,
            dataset.name,
            configuration=dataset.configuration,
            base_plans=task.host.plans,
            plans_name=name,
            patch_size=dataset.patch_size,
            batch_size=task.batch_size,
            force=force,
        )
        make_folder(copy.parent)
        write_text(copy, target.read_text(encoding="utf-8"))
    kept = copy.read_text(encoding="utf-8")
    if not target.is_file():
        write_text(target, kept)
    elif target.read_text(encoding="utf-8") != kept:
        raise SpecError(
            f"is not what this bench wrote ({copy})",
            where=target,
            suggestion="put the copy back, or begin anew in another `folder`",
        )


def _train(one: _Training) -> tuple[int, Path]:
    """Run nnU-Net's command to its end; return its code, and where its output is."""
    log = one.results / f"{one.arena.dataset.name}__{one.plans_name}__fold{one.fold}.log"
    make_folder(one.results)
    device, _, index = one.task.host.devices[0].partition(":")
    where = [one.arena.dataset.name, one.arena.dataset.configuration, str(one.fold)]
    words = [*where, "-p", one.plans_name, "-tr", TRAINER, "-device", device, *_going_on(one)]
    environment = _environment(one)
    if index:
        environment["CUDA_VISIBLE_DEVICES"] = index
    began = time.monotonic()
    with appending(log) as output:
        output.write(f"\n$ nnUNetv2_train {' '.join(words)}\n")
        output.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "search.bench.nnunet_train", *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            code = process.wait()
        finally:
            _end(process)
            _add_seconds(one.folder, time.monotonic() - began)
    return code, log


def _going_on(one: _Training) -> Sequence[str]:
    """Return the option with which nnU-Net goes on from what it left."""
    if (one.folder / "checkpoint_final.pth").is_file():
        return ["--val"]
    there = any((one.folder / f"checkpoint_{n}.pth").is_file() for n in ("latest", "best"))
    return ["--c"] if there else []


def _environment(one: _Training) -> dict[str, str]:
    """Return nnU-Net's variables, with few processes."""
    device, variable = one.task.host.devices[0], "nnUNet_extTrainer"
    others = [path for path in os.environ.get(variable, "").split(os.pathsep) if path]
    return {
        **os.environ,
        "nnUNet_results": str(one.results),
        variable: os.pathsep.join([str(TRAINERS), *others]),
        "nnUNet_n_proc_DA": str(num_loaders(device, 1)),
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": str(one.task.host.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and its children, where it has not ended by itself."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _add_seconds(folder: Path, seconds: float) -> None:
    """Note how long nnU-Net ran, validation included; calls that were killed hard are not in it."""
    if folder.is_dir():
        write_text(folder / _SECONDS, f"{_seconds(folder) + seconds:.1f}\n")


def _seconds(folder: Path) -> float:
    try:
        found = float((folder / _SECONDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    return found if math.isfinite(found) else 0.0
