"""The lock's program: its trainings and decisions, what of them is on record, and what is left."""

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protocol import Protocol, best_rate, check_digests, choose_margin, next_rate, pilot_sds
from selection import measure, select
from tables import Table

from blocks.base import SpecError

KEY = ("network", "seed", "lr", "steps")
_IDENTITY = ("lock", *KEY, "trial_hash")
_COSTS = ("flops", "params", "memory_bytes")
_RUN = ("host", "torch", "date")
MOVED = ("mean", "largest")
"""How far a repeated training's validation Dice is from the recorded: of the mean, of any case."""
TIMES = tuple(
    f"{what}_{kind}"
    for what in ("step", "batch", "case", "calibration")
    for kind in ("cpu", "wall")
)
WEIGHTS = ("ema", "raw")
DECISIONS = ("margin", "selection")


@dataclass(frozen=True)
class Job:
    """A training to record; `tested` says whether its test cases are scored at its end."""

    network: str
    seed: int
    lr: float
    steps: int
    rungs: tuple[int, ...]
    tested: bool

    @property
    def key(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in KEY}

    def __str__(self) -> str:
        return f"{self.network} lr {self.lr:g} seed {self.seed} steps {self.steps}"


class Records:
    """The tables of a protocol, and what was decided from them."""

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        self.protocol = protocol
        classes = [name.lower() for name in protocol.tree["dataset"]["classes"]]
        self.scores = tuple(
            "_".join([weights, *one])
            for weights in WEIGHTS
            for one in ((), *((c,) for c in classes))
        )
        rungs = (
            *_IDENTITY,
            "rung",
            *self.scores,
            "loss",
            *_COSTS,
            *TIMES,
            *_RUN,
        )
        cases = (*_IDENTITY, "case", "person", *self.scores)
        self.rungs = Table(folder / "rungs.csv", rungs, protocol.digest)
        self.validation = Table(folder / "validation_cases.csv", cases, protocol.digest)
        self.test = Table(folder / "test_cases.csv", cases, protocol.digest)
        again = (*_IDENTITY, *(f"{weights}_{what}" for weights in WEIGHTS for what in MOVED), *_RUN)
        self.again = Table(folder / "again.csv", again, protocol.digest)
        self._folder = folder

    @property
    def files(self) -> list[Path]:
        tables = [self.rungs.path, self.validation.path, self.test.path, self.again.path]
        every = [*tables, *(self._file(name) for name in DECISIONS)]
        return [path for path in every if path.is_file()]

    def decided(self, name: str) -> dict[str, Any] | None:
        """Return a decision, None where it has not been made.

        Raises:
            SpecError: it was made under another protocol.
        """
        file = self._file(name)
        if not file.is_file():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        check_digests([found["lock"]], self.protocol.digest, str(file))
        return found

    def decide(self, name: str, found: dict[str, Any]) -> None:
        """Write a decision down."""
        text = json.dumps({"lock": self.protocol.digest, **found}, indent=1) + "\n"
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._file(name).with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def is_done(self, job: Job) -> bool:
        """Say whether the last rung is on record, and the test where there is to be one."""
        last = self.rungs.matching(**job.key, rung=job.steps)
        if not last:
            return False
        diverged = math.isnan(float(last[0]["ema"]))
        return diverged or not job.tested or bool(self.test.matching(**job.key))

    def score(self, job: Job) -> float | None:
        """Return the primary metric at the last rung; None where it is not on record."""
        rows = self.rungs.matching(**job.key, rung=job.steps)
        return float(rows[0]["ema"]) if rows else None


def jobs(records: Records, only: Collection[str] = ()) -> Iterator[Job | str]:
    """Yield what is left of the program: trainings, and names of decisions.

    Each is yielded until it is on record. With `only`, trainings of other networks are left out.
    """
    for step in records.protocol.tree["program"]:
        if step["step"] == "rates":
            for network in step["networks"]:
                if not only or network in only:
                    yield from ladder(records, network)
            continue
        decision = {"margin": "margin", "selected": "selection"}.get(step["step"])
        while decision and records.decided(decision) is None:
            yield decision
        if step["step"] != "margin":
            yield from _left(records, step, only)


def _left(records: Records, step: dict[str, Any], only: Collection[str]) -> Iterator[Job]:
    for network in _networks(records, step):
        if only and network not in only:
            continue
        for seed in step["seeds"]:
            pilot = step.get("rate") == "pilot"
            lr = records.protocol.tree["rates"]["pilot"] if pilot else chosen_rate(records, network)
            job = make_job(records.protocol, network, seed, lr, tested=step.get("tested", False))
            if "steps" in step:
                job = replace(job, steps=step["steps"], rungs=tuple(step["rungs"]))
            while not records.is_done(job):
                yield job


def _networks(records: Records, step: dict[str, Any]) -> list[str]:
    """Return the networks of a step, those of the selection where that names them."""
    named: list[str] | str | None = step.get("networks")
    if named == "all":
        return records.protocol.networks
    if isinstance(named, list):
        return named
    selection = records.decided("selection")
    assert selection is not None, "the program selects before"
    chosen: list[str] = selection["long" if step["step"] == "long" else "networks"]
    return chosen


def ladder(records: Records, network: str) -> Iterator[Job]:
    """Yield the next training of a network's ladder of rates until its best rate is interior."""
    while (lr := next_rate(_tried(records, network), *_rule(records.protocol))) is not None:
        yield make_job(records.protocol, network, records.protocol.tree["rates"]["seed"], lr)


def chosen_rate(records: Records, network: str) -> float:
    """Return the network's rate: the lowest of the best rates of those it takes them from."""
    return min(
        best_rate(_tried(records, source)) for source in records.protocol.rate_sources(network)
    )


def _rule(protocol: Protocol) -> tuple[list[float], int]:
    rates = protocol.tree["rates"]
    return rates["first"], rates["most"]


def _tried(records: Records, network: str) -> dict[float, float]:
    """Return the scores of a network's rates, in the order in which the ladder asks for them."""
    first, most = _rule(records.protocol)
    tried: dict[float, float] = {}
    while (lr := next_rate(tried, first, most)) is not None:
        seed = records.protocol.tree["rates"]["seed"]
        found = records.score(make_job(records.protocol, network, seed, lr))
        if found is None:
            break
        tried[lr] = found
    return tried


def make_job(
    protocol: Protocol, network: str, seed: int, lr: float, *, tested: bool = False
) -> Job:
    """Return a training of the protocol's usual length."""
    training = protocol.tree["training"]
    return Job(network, seed, lr, training["steps"], tuple(training["rungs"]), tested)


def set_margin(records: Records, num_persons: int) -> None:
    """Write down the margin that the pilot's validation cases give.

    Raises:
        SpecError: a test case has been scored already.
    """
    if records.test.rows:
        raise SpecError(f"{records.test.path}: has rows, but the margin comes before any test case")
    step = next(s for s in records.protocol.tree["program"] if s["step"] == "pilot")
    lr = records.protocol.tree["rates"]["pilot"]
    scores = [
        [
            {row["case"]: float(row["ema"]) for row in records.validation.matching(**job.key)}
            for job in (make_job(records.protocol, name, seed, lr) for seed in step["seeds"])
        ]
        for name in step["networks"]
    ]
    person_sd, seed_sd = pilot_sds(scores)
    found = choose_margin(
        records.protocol.tree["margin"],
        person_sd=person_sd,
        seed_sd=seed_sd,
        persons=num_persons,
    )
    records.decide("margin", found)


def set_selection(records: Records) -> None:
    """Write down what the lock's rule selects; test cases are not looked at."""
    protocol = records.protocol
    found = {}
    for network in (*protocol.tree["selection"]["caps"], *protocol.networks):
        job = make_job(
            protocol, network, protocol.tree["rates"]["seed"], chosen_rate(records, network)
        )
        (last,) = records.rungs.matching(**job.key, rung=job.steps)
        found[network] = measure(last, records.rungs.matching(network=network))
    records.decide("selection", select(found, protocol))
