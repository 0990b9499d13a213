"""A network against what its paper and others state about it, computed when asked.

Every claim about a cost stands beside the same quantity of the network that is built here, at the
sizes of the claim. Results are not reproduced, for nothing is trained: they stand beside rows of
independent benchmarks. What the paper leaves open shows the value of the spec itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from archspec.costs.flops import Cost, cost_plan
from archspec.costs.memory import training_memory
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, plan
from archspec.papers.data import Point
from archspec.spec.claims import ClaimSpec
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import node_at, paths_at, split_path
from blocks.base import SpecError

SCALES = {None: 1, "M": 1e6, "G": 1e9, "MB": 2**20, "GB": 2**30}
"""What a unit stands for; that of memory is not stated by the sources, but usual."""
RESULTS = ("dice", "iou", "hd95", "detected_length", "detected_branches")
_AGREES = 0.01
_STAGES = "encoder.stages.*."
_NOWHERE = object()


@dataclass(frozen=True, slots=True)
class Reading:
    """What is built here, read as one of the things that the claim may mean.

    `built` is in plain numbers, bytes, or what the claim's ratio would be; `ratio` is built over
    claimed.
    """

    label: str
    built: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Compare:
    """A claim, the input that it was computed at, and its readings: none where nothing can be."""

    claim: ClaimSpec
    input: tuple[int, ...]
    num_classes: int
    readings: tuple[Reading, ...]

    @property
    def unexplained(self) -> bool:
        """Say whether what is built is another figure, by every reading, and no note says why."""
        missed = all(abs(reading.ratio - 1) > _AGREES for reading in self.readings)
        return bool(self.readings) and missed and not self.claim.note

    def to_json(self) -> dict[str, Any]:
        """Return plain data; the batch is 1 but for the memory of training."""
        return {
            **self.claim.model_dump(mode="json", exclude={"at"}),
            "input": list(self.input),
            "num_classes": self.num_classes,
            "batch": self.claim.at.batch if self.claim.what == "training_memory" else 1,
            "built": [{"as": r.label, "value": r.built, "ratio": r.ratio} for r in self.readings],
            "unexplained": self.unexplained,
        }


def compare_claims(spec: ArchSpec) -> tuple[Compare, ...]:
    """Compute the spec's claims.

    Raises:
        SpecError: a claim's sizes do not fit the network.
    """

    @cache
    def planned(sizes: InputSizes) -> Plan:
        return plan(spec, sizes)

    costs = cache(lambda sizes: cost_plan(planned(sizes)))
    found = []
    for index, claim in enumerate(spec.claims):
        sizes = InputSizes(
            in_channels=claim.at.in_channels,
            num_classes=claim.at.num_classes,
            patch_size=claim.at.patch_size,
            exact=True,  # a figure was taken at the size that it states
        )
        try:
            at = planned(sizes)
        except SpecError as error:
            problem, field = f"does not fit: {error.line}", f"claims.{index}.at"
            raise SpecError(problem, where=spec.name, field=field) from None
        readings = tuple(_readings(claim, at, partial(costs, sizes)))
        found.append(Compare(claim, (1, at.in_channels, *at.patch_size), at.num_classes, readings))
    return tuple(found)


def used(spec: ArchSpec, point: Point) -> str:
    """Return what the spec has at the point's paths, and the point's own words."""
    tree = spec.tree()
    values = [f"{path.removeprefix(_STAGES)} {_at(tree, path)}" for path in point.paths]
    return "; ".join(filter(None, [", ".join(values), point.used]))


def _readings(claim: ClaimSpec, planned: Plan, cost: Callable[[], Cost]) -> list[Reading]:
    """Return what is built as everything that the claim may mean."""
    if isinstance(claim.value, str) or (claim.unit not in SCALES and claim.against is None):
        return []
    built: dict[str, float] = {}
    if claim.what == "parameters":
        built = {"": cost().params}
    elif claim.what == "macs":
        built = {"": cost().macs}
    elif claim.what == "flops":
        found = cost()
        built = {"as FLOPs": found.flops, "as multiply-adds": found.macs}
        if found.scan_flops:
            kinds = found.by_kind
            built["convolutions only"] = kinds["conv"] + kinds["transposed_conv"]
    elif claim.what == "training_memory":
        optimizer, batch = planned.spec.training.optimizer, claim.at.batch
        for label, amp in ((f"float32, batch {batch}", False), (f"AMP, batch {batch}", True)):
            memory = training_memory(planned, batch=batch, amp=amp, optimizer=optimizer)
            built[label] = memory.total
    if claim.against is not None:
        built = {label: claim.against / value for label, value in built.items()}
    scale = SCALES.get(claim.unit, 1)
    return [Reading(label, v, v / (claim.value * scale)) for label, v in built.items()]


def _at(tree: Any, path: str) -> str:
    """Return the value at a path, of every stage that has it, once where all are alike."""
    found = [node_at(tree, one, _NOWHERE) for one in paths_at(tree, split_path(path))]
    texts = [_shown(value) for value in found if value is not _NOWHERE]
    return ", ".join(texts[:1] if len(set(texts)) == 1 else texts) or "does not apply"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_shown, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
