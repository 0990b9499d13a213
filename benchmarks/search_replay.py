"""Replay recorded trainings to a search: its own loop and stopper, a worker that looks things up.

Only training is left out. What it would have cost is counted in full trainings of an average
network, by a model fitted to the recorded CPU seconds, so that a busy machine changes no budget.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import optuna
from curves import CurvePoint, Training
from moasha import NonDominatedHalving
from optuna.samplers import BaseSampler
from search_curves import Params, Seconds, name_of, networks

from archspec.costs.flops import Cost, cost_plan
from archspec.network.plan import Plan
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.hashing import trial_hash
from search.pareto import hypervolume, pareto_front
from search.space.holes import Hole
from search.space.settings import StopperName
from search.space.space import Space
from search.study import draw as drawing
from search.study.loop import SearchLoop
from search.study.task import SearchTask
from search.trials.train import Rung, TrialTask
from search.trials.worker import Message

AnyStopper = StopperName | Literal["moasha"]


@dataclass(frozen=True)
class CostModel:
    """CPU seconds: `start`, then by step and by validation a fixed part and one per FLOP."""

    start: float
    step: tuple[float, float]
    validation: tuple[float, float]

    def until(self, step: int, validations: int, flops: int) -> float:
        """Return what a training has cost at a step, after so many validations."""
        return (
            self.start
            + step * (self.step[0] + self.step[1] * flops)
            + validations * (self.validation[0] + self.validation[1] * flops)
        )


@dataclass(frozen=True, eq=False)
class Table:
    """The recorded trainings of every network of a space, by name; all have the same rungs."""

    steps: tuple[int, ...]
    flops: dict[str, int]
    dice: dict[str, tuple[float, ...]]
    cost: CostModel

    @classmethod
    def of(
        cls, curves: dict[Training, list[CurvePoint]], seconds: dict[str, Seconds], space: Space
    ) -> "Table":
        """Return the table of a space; its cost model is fitted by least squares.

        Raises:
            ValueError: a network of the space has no whole curve or no cost.
        """
        steps = space.settings.rung_steps
        found = {training.name: points for training, points in curves.items()}
        names = [name_of(params) for params in networks(space)]
        for name in names:
            if [point.step for point in found.get(name, [])] != list(steps) or name not in seconds:
                raise ValueError(f"{name}: not recorded at all of the steps {steps}")
        flops = {name: found[name][0].training.flops for name in names}
        dice = {name: tuple(point.dice for point in found[name]) for name in names}
        sizes = [flops[name] for name in names]
        training = [seconds[name].training / steps[-1] for name in names]
        validation = [seconds[name].validation / len(steps) for name in names]
        start = float(np.median([seconds[name].start for name in names]))
        cost = CostModel(start, _line(sizes, training), _line(sizes, validation))
        return cls(steps, flops, dice, cost)

    def cost_until(self, name: str, rung: int) -> float:
        """Return the cost of a training up to a rung, in full trainings of an average network."""
        return self._seconds(name, rung) / self._unit

    def misfit(self, seconds: dict[str, Seconds]) -> float:
        """Return by what share the model misses the recorded cost of a full training (median)."""
        whole = {n: s.start + s.training + s.validation for n, s in seconds.items()}
        last = len(self.steps) - 1
        return float(np.median([abs(self._seconds(n, last) / whole[n] - 1) for n in self.flops]))

    def point(self, name: str) -> tuple[float, float]:
        """Return (log10 FLOPs, Dice) of the network, trained to the end."""
        return math.log10(self.flops[name]), self.dice[name][-1]

    @cached_property
    def reference(self) -> tuple[float, float]:
        """Return the worst of the table: a tenth above its highest FLOPs, and its lowest Dice."""
        points = [self.point(name) for name in self.flops]
        return max(f for f, _ in points) + math.log10(1.1), min(d for _, d in points)

    @cached_property
    def front(self) -> list[str]:
        """Return the names on the front of all networks, cheapest first."""
        names = list(self.flops)
        return [names[index] for index in pareto_front([self.point(name) for name in names])]

    def share(self, names: Sequence[str]) -> float:
        """Return the hypervolume of the named networks, as a share of that of all."""
        whole = hypervolume([self.point(name) for name in self.front], self.reference)
        return hypervolume([self.point(name) for name in names], self.reference) / whole

    def _seconds(self, name: str, rung: int) -> float:
        return self.cost.until(self.steps[rung], rung + 1, self.flops[name])

    @cached_property
    def _unit(self) -> float:
        return float(np.mean([self._seconds(name, len(self.steps) - 1) for name in self.flops]))


@dataclass
class Replay:
    """What a search did: names in the order of their ends, with what had been spent by then.

    One that spent less than its budget found nothing new to train.
    """

    done: list[tuple[float, str]] = field(default_factory=list)
    stopped: list[tuple[float, str]] = field(default_factory=list)
    spent: float = 0.0


class Replayer:
    """Stand in for the pool of workers: one worker, who reads a table, until the budget is spent.

    The training that is under way at that point is ended, so one is too many at most.
    """

    def __init__(self, table: Table, study: optuna.Study, budget: float) -> None:
        self.table, self.study, self.budget = table, study, budget
        self.replay = Replay()
        self.task: TrialTask | None = None

    @property
    def num_idle(self) -> int:
        return int(self.task is None and self.replay.spent < self.budget)

    @property
    def num_busy(self) -> int:
        return int(self.task is not None)

    def submit(self, task: TrialTask) -> None:
        self.task = task

    def stop(self, number: int) -> None:
        assert self.task is not None and self.task.number == number
        self.replay.stopped.append((self.replay.spent, self._name(self.task)))
        self.task = None

    def messages(self) -> Iterator[Message]:
        task = self.task
        assert task is not None and task.rung_steps == self.table.steps
        name, before = self._name(task), self.replay.spent
        rung = None
        for index, step in enumerate(task.rung_steps):
            self.replay.spent = before + self.table.cost_until(name, index)
            rung = Rung(step, {"mean": self.table.dice[name][index]}, 0.0, 0.0)
            yield Message(task.number, "rung", rung)
            if self.task is None:
                return
        self.task = None
        self.replay.done.append((self.replay.spent, name))
        yield Message(task.number, "done", rung)

    def _name(self, task: TrialTask) -> str:
        return name_of(self.study.get_trials(deepcopy=False)[task.number].params)


@dataclass(frozen=True)
class Known(Space):
    """A space of plain choices whose networks were planned before."""

    plans: dict[str, Plan] = field(default_factory=dict)

    @classmethod
    def of(cls, space: Space) -> "Known":
        """Plan every network of the space for the space's own sizes."""
        plans = {name_of(p): space.draw(optuna.trial.FixedTrial(p)) for p in networks(space)}
        return cls(space.source, space.settings, plans=plans)

    def draw(self, trial: optuna.Trial, *sizes: Any, **of_device: Any) -> Plan:
        drawn: Params = {hole.name: hole.suggest(trial) for hole in self.open_holes}
        return self.plans[name_of(drawn)]

    @cached_property
    def open_holes(self) -> list[Hole]:
        """Return the holes, read once."""
        return self.holes()

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Return the cost by hash."""
        return {trial_hash(planned.spec): cost_plan(planned) for planned in self.plans.values()}


def replay(
    known: Known,
    table: Table,
    sampler: BaseSampler,
    *,
    stopper: AnyStopper,
    budget: float,
    anchors: bool = True,
) -> Replay:
    """Search with the loop that `archspec search` runs, for a budget of average trainings."""
    named = "none" if stopper == "moasha" else stopper
    settings = known.settings.model_copy(update={"stopper": named})
    if not anchors:
        settings = settings.model_copy(update={"anchors": ()})
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    pool = Replayer(table, study, budget)
    with tempfile.TemporaryDirectory() as name:
        space = replace(known, settings=settings)
        task = SearchTask(space, _no_data(Path(name), known), Path(name), 10**6)
        loop = SearchLoop(task, study)
        if stopper == "moasha":
            loop.stopper = NonDominatedHalving(len(settings.rung_steps), eta=settings.eta)
        loop.recover()
        # traced once per network and not once per replay
        with mock.patch.object(drawing, "cost_plan", lambda p: known.costs[trial_hash(p.spec)]):
            loop.drive(pool)  # type: ignore[arg-type]
    return pool.replay


def _no_data(folder: Path, space: Space) -> PreprocessedDataset:
    """Return a dataset of the space's own sizes without cases."""
    tree = space.source.tree
    labels = {str(label): label for label in range(tree["num_classes"])}
    description = {"channel_names": {"0": "MR"}, "labels": labels}
    settings = {"patch_size": list(tree["patch_size"]), "spacing": [1, 1, 1]}
    settings["data_identifier"] = "data"
    return PreprocessedDataset(folder, "Dataset950_X", "3d", {}, description, settings)


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    slope, fixed = np.polyfit(sizes, seconds, 1)
    return float(fixed), float(slope)
