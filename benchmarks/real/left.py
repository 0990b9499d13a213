"""What of the program is not on record, and about how many CPU hours it would take."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from program import Records
from protocol import width_of

_FIRST_RATES = 3


@dataclass(frozen=True)
class Left:
    """A step of the program: its trainings on record, all of them, and the hours of the rest.

    A training that is `trained` and not `done` lacks its test cases: it must be made again.
    """

    step: str
    trained: int
    done: int
    total: int
    hours: float


class Estimate:
    """CPU seconds of trainings: measured ones, elsewhere those of the others of the same kind.

    For a U-Net that was not measured they are linear in FLOPs, which grow as the width squared;
    for another network they are the mean of the candidates'.
    """

    def __init__(self, records: Records) -> None:
        measured: dict[str, list[float]] = {}
        shares = []
        for row in records.rungs.rows:
            step = float(row["step_cpu"]) + float(row["batch_cpu"])
            if not math.isnan(step):  # a training that diverged has none
                measured.setdefault(row["network"], []).append(step)
                shares.append(float(row["case_cpu"]) / step)
        self._measured = {name: median(seconds) for name, seconds in measured.items()}
        self._case = median(shares)

    def step(self, network: str) -> float:
        """Return the seconds of one step with its batch."""
        if network in self._measured:
            return self._measured[network]
        width = width_of(network)
        curve = {w: s for name, s in self._measured.items() if (w := width_of(name)) is not None}
        others = [s for name, s in self._measured.items() if width_of(name) is None]
        if width is None:
            return fmean(others or curve.values())
        if len(curve) < 2:
            return fmean(curve.values() or others)
        slope, base = np.polyfit(np.square(list(curve)), list(curve.values()), 1)
        return max(float(base + slope * width**2), fmean(curve.values()))

    def hours(self, network: str, steps: int, *, scored: int) -> float:
        """Return the hours of one training in which so many cases are scored."""
        return self.step(network) * (steps + self._case * scored) / 3600


def left(records: Records) -> Iterator[Left]:
    """Yield the program's steps; of a ladder of rates only the first three are counted.

    What the selection will name is not known before it: as many as it may choose, each as dear as
    the space's mean.
    """
    tree, estimate = records.protocol.tree, Estimate(records)
    cases = len({row["case"] for row in records.validation.rows})
    for step in tree["program"]:
        if step["step"] == "margin":
            continue
        steps = step.get("steps", tree["training"]["steps"])
        rungs = step.get("rungs", tree["training"]["rungs"])
        scored = 2 * cases * (len(rungs) + bool(step.get("tested")))
        every = list(_trainings(records, step))
        open_ones = [name for name, _, done in every if not done]
        trained = sum(found for _, found, _ in every)
        hours = [
            fmean(estimate.hours(one, steps, scored=scored) for one in records.protocol.networks)
            if name is None
            else estimate.hours(name, steps, scored=scored)
            for name in open_ones
        ]
        yield Left(step["step"], trained, len(every) - len(open_ones), len(every), sum(hours))


def _trainings(records: Records, step: dict[str, Any]) -> Iterator[tuple[str | None, bool, bool]]:
    """Yield a step's trainings, with whether each is trained and done; None is a name to come."""
    tree = records.protocol.tree
    if step["step"] == "rates":
        for network in step["networks"]:
            rows = records.rungs.matching(
                network=network, seed=tree["rates"]["seed"], rung=tree["training"]["steps"]
            )
            there = (k < len(rows) for k in range(_FIRST_RATES))
            yield from ((network, found, found) for found in there)
        return
    selection = records.decided("selection")
    names: list[str | None]
    if step.get("networks") == "all":
        names = list(records.protocol.networks)
    elif "networks" in step:
        names = list(step["networks"])
    elif selection is None:
        names = [None] * tree["selection"]["most"]
    else:
        names = selection["long" if step["step"] == "long" else "networks"]
    steps = step.get("steps", tree["training"]["steps"])
    for name in names:
        for seed in step["seeds"]:
            key = {"network": name, "seed": seed, "steps": steps}
            trained = name is not None and bool(records.rungs.matching(**key, rung=steps))
            tested = not step.get("tested") or bool(records.test.matching(**key))
            yield name, trained, trained and tested
