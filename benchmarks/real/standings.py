"""What is on record of each network, as the tables of report.py need it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

import numpy as np
from numpy.typing import NDArray
from program import Job, Records, chosen_rate, ladder, make_job

from archspec.scoring.statistics import Interval, hierarchical_bootstrap

Row = Mapping[str, str]
_DRAWS = 4000


@dataclass(frozen=True)
class Standing:
    """A network after the usual number of steps at its own rate.

    `latency` and `step`, of training with its batch, are in calibration convolutions, which takes
    out most of how fast the machine was just then; `seconds` is CPU seconds of a step. Scores of
    validation are means over cases, by seed; `test` is (seeds, persons), empty while it is closed.
    """

    network: str
    rate: float
    gflops: float
    params: int
    memory: int
    latency: float
    step: float
    seconds: float
    validation: dict[int, float]
    raw: dict[int, float]
    test: NDArray[np.float64]

    @property
    def test_mean(self) -> float:
        return float(self.test.mean()) if self.test.size else math.nan

    def test_interval(self) -> Interval:
        """Return the test score with its 95 % interval over persons x seeds."""
        return hierarchical_bootstrap(self.test, np.zeros((1, self.test.shape[1])), 0, draws=_DRAWS)


def standing(records: Records, network: str, *, persons: Sequence[int] = ()) -> Standing | None:
    """Return what is on record of a network; None where no seed came to its last step.

    `persons` restricts the test part. Before the selection is decided no test case is looked at.
    """
    rate = known_rate(records, network)
    if rate is None:
        return None
    last = {
        int(row["seed"]): row
        for job in _seeds(records, network, rate)
        for row in records.rungs.matching(**job.key, rung=job.steps)
    }
    if not last:
        return None
    rows = records.rungs.matching(network=network)
    some = next(iter(last.values()))
    return Standing(
        network=network,
        rate=rate,
        gflops=int(some["flops"]) / 1e9,
        params=int(some["params"]),
        memory=int(some["memory_bytes"]),
        latency=_median(float(row["case_cpu"]) / float(row["calibration_cpu"]) for row in rows),
        step=_median(_step(row) / float(row["calibration_cpu"]) for row in rows),
        seconds=_median(map(_step, rows)),
        validation={seed: float(row["ema"]) for seed, row in last.items()},
        raw={seed: float(row["raw"]) for seed, row in last.items()},
        test=_test(records, network, rate, persons),
    )


def known_rate(records: Records, network: str) -> float | None:
    """Return the network's learning rate, None while a ladder that decides it is not done."""
    for source in records.protocol.rate_sources(network):
        if next(ladder(records, source), None) is not None:
            return None
    return chosen_rate(records, network)


def _seeds(records: Records, network: str, rate: float) -> Iterator[Job]:
    seeds = {int(row["seed"]) for row in records.rungs.matching(network=network)}
    return (make_job(records.protocol, network, seed, rate) for seed in sorted(seeds))


def _test(
    records: Records, network: str, rate: float, persons: Sequence[int]
) -> NDArray[np.float64]:
    if records.decided("selection") is None:
        return np.zeros((0, 0))
    found = []
    for job in _seeds(records, network, rate):
        by_person: dict[int, list[float]] = {}
        for row in records.test.matching(**job.key):
            by_person.setdefault(int(row["person"]), []).append(float(row["ema"]))
        if by_person:
            kept = sorted(set(by_person) & set(persons)) if persons else sorted(by_person)
            found.append([mean(by_person[person]) for person in kept])
    return np.array(found)


def _step(row: Row) -> float:
    return float(row["step_cpu"]) + float(row["batch_cpu"])


def _median(values: Iterable[float]) -> float:
    """Return the median; rows of a training that diverged have no times."""
    return median(value for value in values if not math.isnan(value))
