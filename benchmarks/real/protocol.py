"""The protocol as the recorder and its tables read it: parts, networks, rates, margin."""

import hashlib
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import Any

import yaml
from optuna.trial import FixedTrial

from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from blocks.base import SpecError
from search.space.space import Space, load_space

HERE = Path(__file__).resolve().parent
LOCK, SPACE, UNET = "protocol.lock", "space.yaml", "unet.yaml"
_BASE_WIDTH = "unet-"


@dataclass(frozen=True)
class Parts:
    """Names of the cases that train, validate and test."""

    train: list[str]
    validation: list[str]
    test: list[str]


@dataclass(frozen=True)
class Protocol:
    """The lock's tree, and the digits of its hash that every row carries."""

    folder: Path
    tree: dict[str, Any]
    digest: str

    @property
    def networks(self) -> list[str]:
        """Return the names of the space's networks, as the lock orders them."""
        return list(self.tree["networks"])

    @cached_property
    def _space(self) -> Space:
        return load_space(self.folder / SPACE)

    def plan(self, name: str, rate: float) -> Plan:
        """Return the network of that name with a learning rate."""
        if (width := width_of(name)) is not None:
            widths = [f"encoder.stages.{stage}.width={width * 2**stage}" for stage in range(4)]
            return resolve(
                self.folder / UNET, overrides=[f"name={name}", *widths, f"training.lr={rate}"]
            )
        values = dict(self.tree["networks"][name])
        host = self.tree["hosts"][values.pop("host")]
        firsts = {hole.name: hole.options[0] for hole in self._space.holes()}
        drawn = self._space.suggest(FixedTrial({**firsts, **host, **values}))
        return resolve(drawn, overrides=[f"name={name}", f"training.lr={rate}"])

    def rate_sources(self, name: str) -> list[str]:
        """Return the networks whose rates decide this network's: the lowest of them holds."""
        rates = self.tree["rates"]
        if width_of(name) is not None:
            return [rates["of"].get(name, name)]
        values = self.tree["networks"][name]
        return sorted({rates["of_mixer"][values[place]] for place in ("early", "late")})


def width_of(name: str) -> int | None:
    """Return the base width of a U-Net of the curve, None for a network of the space."""
    return int(name.removeprefix(_BASE_WIDTH)) if name.startswith(_BASE_WIDTH) else None


def read_protocol(folder: Path = HERE) -> Protocol:
    """Return the protocol in a folder."""
    content = [(folder / name).read_bytes() for name in (LOCK, SPACE, UNET)]
    parts = b"".join(hashlib.sha256(one).digest() for one in content)
    return Protocol(folder, yaml.safe_load(content[0]), hashlib.sha256(parts).hexdigest()[:12])


def check_digests(digests: Iterable[str], digest: str, where: str) -> None:
    """Refuse rows of another protocol.

    Raises:
        SpecError: a digest is not this protocol's.
    """
    others = sorted(set(digests) - {digest})
    if others:
        raise SpecError(
            f"{where}: has rows of the protocol {', '.join(others)}, but this is {digest}; "
            "keep each protocol's rows in a folder of their own"
        )


def person_of(case: str) -> int:
    """Return the person of a case: 2k - 1 and 2k are the two sides of person k."""
    return (int(case.rsplit("_", 1)[1]) + 1) // 2


def deal(
    persons: Iterable[int], *, seed: int, num_test: int, num_folds: int
) -> tuple[list[int], list[list[int]]]:
    """Return the persons of the test part and of every fold."""
    shuffled = sorted(persons)
    random.Random(seed).shuffle(shuffled)
    rest = shuffled[num_test:]
    return sorted(shuffled[:num_test]), [sorted(rest[k::num_folds]) for k in range(num_folds)]


def parts_of(split: Mapping[str, Any], cases: Iterable[str], fold: int) -> Parts:
    """Return the parts of the cases, each person's in one part.

    Raises:
        SpecError: a case's person is in no part.
    """
    part = dict.fromkeys(split["test"], "test")
    for number, persons in enumerate(split["folds"]):
        part |= dict.fromkeys(persons, "validation" if number == fold else "train")
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for case in sorted(cases):
        if person_of(case) not in part:
            raise SpecError(f"{case}: its person, {person_of(case)}, is not in the protocol")
        found[part[person_of(case)]].append(case)
    return Parts(**found)


def next_rate(tried: Mapping[float, float], first: Sequence[float], most: int) -> float | None:
    """Return the rate to try next, given scores by rate; None when the best one is interior.

    A rate whose training diverged has the score NaN, which is below all others.
    """
    for rate in first:
        if rate not in tried:
            return rate
    best, low, high = best_rate(tried), min(tried), max(tried)
    if len(tried) >= most or low < best < high:
        return None
    return best * 2 if best == high else best / 2


def best_rate(tried: Mapping[float, float]) -> float:
    """Return the rate with the highest score; of equal ones the lower."""
    return max(sorted(tried), key=lambda rate: _or_worst(tried[rate]))


def _or_worst(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def power(
    margin: float, *, person_sd: float, seed_sd: float, persons: int, seeds: int, alpha: float
) -> float:
    """Return the power of a two-sided test to find a mean difference as large as the margin.

    `person_sd` is that of differences of persons, `seed_sd` that of a network's mean score.
    """
    error = math.sqrt(person_sd**2 / persons + 2 * seed_sd**2 / seeds)
    normal = NormalDist()
    return normal.cdf(margin / error - normal.inv_cdf(1 - alpha / 2))


def pilot_sds(scores: Sequence[Sequence[Mapping[str, float]]]) -> tuple[float, float]:
    """Return the SD of the persons' differences, and the pooled SD of means over the seeds.

    Scores are those of two networks by seed and case. Differences are those of means over seeds
    and over a person's cases.
    """
    per_person = [_by_person(by_seed) for by_seed in scores]
    differences = [per_person[0][person] - per_person[1][person] for person in per_person[0]]
    variances = [stdev(mean(cases.values()) for cases in by_seed) ** 2 for by_seed in scores]
    return stdev(differences), math.sqrt(mean(variances))


def _by_person(by_seed: Sequence[Mapping[str, float]]) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for cases in by_seed:
        for case, score in cases.items():
            found.setdefault(person_of(case), []).append(score)
    return {person: mean(values) for person, values in found.items()}


def choose_margin(
    rule: Mapping[str, Any], *, person_sd: float, seed_sd: float, persons: int
) -> dict[str, float]:
    """Return the margin, the power it has, and what that follows from; Dice from 0 to 1."""
    powers = {
        margin: power(
            margin,
            person_sd=person_sd,
            seed_sd=seed_sd,
            persons=persons,
            seeds=rule["seeds"],
            alpha=rule["alpha"],
        )
        for margin in rule["candidates"]
    }
    enough = [margin for margin in powers if powers[margin] >= rule["power"]]
    margin = (enough or rule["candidates"][-1:])[0]
    return {
        "margin": margin,
        "power": powers[margin],
        "person_sd": person_sd,
        "seed_sd": seed_sd,
        "persons": persons,
        "seeds": rule["seeds"],
    }
