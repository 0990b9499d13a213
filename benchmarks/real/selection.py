"""The networks that train on, chosen from rows of validation cases by the rule of the lock."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median
from typing import Any

from protocol import Protocol

Row = Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """A network's score at its last rung, with FLOPs, and latency in calibrations."""

    score: float
    flops: int
    latency: float


def measure(last: Row, rows: Iterable[Row]) -> Measured:
    """Return a network's figures, from its last rung and from all its rows, for the latency."""
    ratios = [float(row["case_cpu"]) / float(row["calibration_cpu"]) for row in rows]
    timed = [ratio for ratio in ratios if not math.isnan(ratio)]  # rows of diverged ones have none
    return Measured(float(last["ema"]), int(last["flops"]), median(timed))


def select(found: Mapping[str, Measured], protocol: Protocol) -> dict[str, Any]:
    """Return what the lock's rule chooses among all measured networks, and the union of it."""
    rule = protocol.tree["selection"]
    space = {name: found[name] for name in protocol.networks if not math.isnan(found[name].score)}

    def best(names: Iterable[str], cap: float = math.inf) -> str | None:
        fitting = [name for name in names if space[name].latency <= cap * rule["slack"]]
        return max(fitting, key=lambda name: space[name].score, default=None)

    caps = {unet: best(space, found[unet].latency) for unet in rule["caps"]}
    tom = best(_pure(protocol, space, "tom"))
    conv = None if tom is None else best(_pure(protocol, space, "conv"), space[tom].latency)
    pair = max(
        _pairs(protocol, space),
        key=lambda names: mean(space[name].score for name in names),
        default=(),
    )
    chosen = [name for name in (*caps.values(), tom, conv, *pair) if name is not None]
    return {
        "caps": caps,
        "tom": tom,
        "conv": conv,
        "pair": list(pair),
        "networks": list(dict.fromkeys(chosen)),
        "long": [*rule["long"]["curve"], *_along_front(space, rule["long"]["gflops"])],
    }


def _pure(protocol: Protocol, names: Iterable[str], mixer: str) -> list[str]:
    values = protocol.tree["networks"]
    return [name for name in names if {values[name]["early"], values[name]["late"]} == {mixer}]


def _pairs(protocol: Protocol, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs (sum, concat) that are equal in everything else."""
    values = protocol.tree["networks"]
    found = []
    for pair in combinations(names, 2):
        by_decoder = {values[name]["decoder"]: name for name in pair}
        rest = [{k: v for k, v in values[name].items() if k != "decoder"} for name in pair]
        if set(by_decoder) == {"sum", "concat"} and rest[0] == rest[1]:
            found.append((by_decoder["sum"], by_decoder["concat"]))
    return found


def _along_front(space: Mapping[str, Measured], gflops: Iterable[float]) -> list[str]:
    """Return the network of the front nearest to each figure in log FLOPs, each once."""
    front: list[str] = []
    for name in sorted(space, key=lambda name: (space[name].flops, -space[name].score)):
        if not front or space[name].score > space[front[-1]].score:
            front.append(name)
    taken: list[str] = []
    for figure in gflops:
        left = [name for name in front if name not in taken]
        if left:
            taken.append(
                min(left, key=lambda name: abs(math.log(space[name].flops / (1e9 * figure))))
            )
    return taken
