"""The section `search` of a space: how trials train, what stops them, what is tried first."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from optuna.trial import BaseTrial
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from archspec.costs.fit import memory_size
from archspec.spec.claims import MAX_PATCH_AXIS
from blocks.base import ComponentSpec, Count, Grid, Positive, SpecError, Width, is_count
from search.space.holes import Hole, Value
from search.space.objectives import AnyObjectives, Objectives
from search.space.samplers import SAMPLERS, AnySampler, TpeSpec

_MAX_MACS = 1e18

StopperName = Literal["pash", "none"]
WeightsName = Literal["averaged", "last"]


def _check_memory(value: object) -> object:
    try:
        memory_size(value if isinstance(value, str) else "")
    except SpecError:
        raise ValueError(f"must be a size such as 12GB or 11.5GiB, got {value!r}") from None
    return value


def _check_patch(value: object) -> object:
    sizes = tuple(value) if isinstance(value, list | tuple) else ()
    if value is None or value == "exact":
        return value
    if len(sizes) not in (2, 3) or not all(is_count(size, most=MAX_PATCH_AXIS) for size in sizes):
        raise ValueError(
            f"must be 2 or 3 sizes in voxels up to {MAX_PATCH_AXIS}, e.g. [96, 96, 96], or exact, "
            f"got {value!r}"
        )
    return sizes


class LimitSettings(ComponentSpec):
    """What no trial may exceed; checked before it trains.

    `gflops` are 1e9 FLOPs of one patch in convention v1, `memory` is the estimate for a training
    step at the search's batch size (AMP on CUDA, float32 on a CPU), e.g. 12GB.
    """

    gflops: Positive | None = None
    params: Positive | None = None
    memory: Annotated[str, BeforeValidator(_check_memory)] | None = None


class Budgets(ComponentSpec):
    """Multiply-adds to choose from: a hole, so that a front has more than one cost."""

    choice: tuple[Annotated[float, Field(gt=0, le=_MAX_MACS)], ...]


class MatchSpec(ComponentSpec):
    """What all candidates cost: multiply-adds of a forward pass, or seconds of a training step.

    `macs_per_voxel` are those over the voxels of the patch, so that one space serves every patch:
    voxels that a network pads add to its cost and not to its budget, or strides that suit a patch
    less would buy a larger network. Either may be a choice, which a space draws like any hole,
    under the name `search.match.macs` or `search.match.macs_per_voxel`.
    `widths` are the nodes that are scaled, by one factor as far as rounding to multiples of
    `multiple` allows; `*` stands for every index or key. A node that a candidate does not have
    is left out. `tolerance` is the share by which a candidate may miss. `latency` is the median
    of `repeats` forward and backward passes of `batch_size` patches, in seconds of wall time.
    """

    macs: float | Budgets | None = None
    macs_per_voxel: float | Budgets | None = None
    latency: Positive | None = None
    widths: Annotated[tuple[str, ...], Field(min_length=1)] = ("encoder.stages.*.width",)
    multiple: Width = 4
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.03
    batch_size: Width = 2
    repeats: Annotated[int, Field(gt=0, le=10_000)] = 5

    @field_validator("macs", "macs_per_voxel", mode="before")
    @classmethod
    def _check_macs(cls, value: object, info: ValidationInfo) -> object:
        """Refuse in one message what is neither of the two."""
        if value is None or isinstance(value, Budgets) or _is_positive(value):
            return value
        several = value["choice"] if isinstance(value, dict) and set(value) == {"choice"} else ()
        numbers = isinstance(several, list | tuple) and several and all(map(_is_positive, several))
        if not numbers or len(set(several)) < len(several):
            example = "20e6, 40e6" if info.field_name == "macs" else "500, 1000"
            raise ValueError(
                "must be a positive number of multiply-adds, or a choice of different ones such "
                f"as {{choice: [{example}]}}, got {value!r}"
            )
        return Budgets(choice=tuple(map(float, several)))

    @model_validator(mode="after")
    def _one_target(self) -> "MatchSpec":
        if [self.macs, self.macs_per_voxel, self.latency].count(None) != 2:
            raise ValueError("give one of macs, macs_per_voxel and latency, null for the others")
        return self

    @property
    def target(self) -> float:
        value = self.latency if self.macs is None else self.macs
        assert isinstance(value, float), "one of several budgets must be drawn first"
        return value

    def for_patch(self, patch_size: Grid) -> "MatchSpec":
        """Return this with multiply-adds of that patch in place of those per voxel."""
        if not isinstance(self.macs_per_voxel, float):
            return self
        macs = self.macs_per_voxel * math.prod(patch_size)
        return self.model_copy(update={"macs": macs, "macs_per_voxel": None})

    @property
    def macs_field(self) -> str | None:
        """Return the field that gives multiply-adds; None where seconds are given."""
        if self.latency is not None:
            return None
        return "macs_per_voxel" if self.macs is None else "macs"

    @property
    def budgets(self) -> tuple[float, ...]:
        """Return what `macs_field` gives, one number or several."""
        value = self.macs_per_voxel if self.macs is None else self.macs
        if isinstance(value, Budgets):
            return value.choice
        return () if value is None else (value,)

    @property
    def budget(self) -> Hole | None:
        """Return the hole that a choice of budgets is."""
        if not any(isinstance(value, Budgets) for value in (self.macs, self.macs_per_voxel)):
            return None
        return Hole(f"search.match.{self.macs_field}", "choice", self.budgets)

    def drawn(self, trial: BaseTrial) -> "MatchSpec":
        """Return this with one budget: the only one, or the one drawn."""
        return self if self.budget is None else self.at(self.budget.suggest(trial))

    def at(self, budget: Value) -> "MatchSpec":
        """Return this with this budget in place of several."""
        assert self.macs_field is not None, "seconds are no choice"
        return self.model_copy(update={self.macs_field: budget})


def _is_positive(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= _MAX_MACS  # type: ignore[operator]


_LATER = ("sampler", "objectives")


class SearchSettings(ComponentSpec):
    """How trials train and which are tried first; the section `search` of a space file.

    `steps` are optimizer steps of `batch_size` patches. `patch_size`, in voxels, replaces the
    dataset's; `exact` takes that as it is, and a network that would pad it is invalid.
    `stages_from_dataset` fits the stages of every network to the dataset's spacing, as on export,
    before anything else is asked of it. The validation cases are scored at every one of `rungs`
    rungs, each with `eta` times the steps of the one before, the last at the end (eta 1 spaces them
    evenly); `validate_every` steps scores them in between too, and rungs are judged by the mean of
    up to three scores. Scored is the network with `averaged` weights, their mean over about the
    last 100 steps: while the learning rate is high that says earlier how well a training ends;
    `last` are the weights as they stand. A trial writes what it can go on from at every rung, and
    in between every `checkpoint_every` steps, by default about every two minutes; that changes no
    result. Each anchor gives values to some holes; the others take their first or lowest one. An
    anchor `{spec: unet}` is that spec, with the recipe of the space, and narrower where it exceeds
    a limit; `{plans: nnUNetPlans}` is so the network that nnU-Net planned for the dataset, and
    `{plans: nnUNetPlans, width: 8}` that of 8 features in the first stage, the others narrower
    alike. `holes` opens nodes by their paths. `match` scales the widths of every network that is
    drawn until it costs what all cost. `test_share` of the cases neither train nor validate:
    `archspec confirm` scores them. `sampler` proposes what is tried after the anchors: a name, or a
    mapping with options, `{kind: tpe, multivariate: true}`. `objectives` are a Dice (`dice`, the
    mean over classes; `{dice: {class: NAME}}`; `worst_class`) and one or two costs: `flops`,
    `params`, `memory` of a training step by estimate, `latency` of a forward pass, measured where
    the trial trains.
    """

    steps: Count = 1000
    batch_size: Width = 2
    rungs: Annotated[int, Field(gt=0, le=64)] = 4
    eta: Count = 3
    validate_every: Count | None = None
    checkpoint_every: Count | None = None
    weights: WeightsName = "averaged"
    stopper: StopperName = "pash"
    limits: LimitSettings = LimitSettings()
    anchors: Annotated[tuple[dict[str, Any], ...], Field(max_length=200)] = ()
    holes: dict[str, Any] = Field(default_factory=dict)
    match: MatchSpec | None = None
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    patch_size: Annotated[
        tuple[int, ...] | Literal["exact"] | None, BeforeValidator(_check_patch)
    ] = None
    stages_from_dataset: bool = False
    sampler: AnySampler = TpeSpec()
    objectives: AnyObjectives = Objectives()

    @field_serializer("sampler")
    def _write_sampler(self, sampler: AnySampler) -> str | dict[str, Any]:
        return sampler.written()

    def recorded(self) -> dict[str, Any]:
        """Return them as a run keeps them.

        Without those that releases added since and that say what was done before: the folder of
        such a search is one that earlier releases wrote, and read.
        """
        found, usual = self.model_dump(mode="json"), SearchSettings().model_dump(mode="json")
        return {k: v for k, v in found.items() if k not in _LATER or v != usual[k]}

    @property
    def averages(self) -> bool:
        """Say whether it is the mean of the last weights that is scored."""
        return self.weights == "averaged"

    @property
    def given_patch(self) -> Grid | None:
        """Return the patch that replaces the dataset's, where one does."""
        return None if isinstance(self.patch_size, str) else self.patch_size

    @property
    def rung_steps(self) -> tuple[int, ...]:
        """Return the steps at which trials are scored, the last at the end."""
        if self.eta == 1:
            steps = {self.steps * rung // self.rungs for rung in range(1, self.rungs + 1)}
        else:
            steps = {self.steps // self.eta**power for power in range(self.rungs)}
        return tuple(sorted(steps - {0}))


@dataclass(frozen=True, kw_only=True)
class GivenSettings:
    """Settings that `search.run` and `archspec search` take by names of their own; None: not given.

    They win over the space and its overrides.
    """

    stopper: str | None = None
    max_gflops: float | None = None
    max_params: float | None = None
    max_memory: str | None = None
    test_share: float | None = None
    patch_size: Grid | Literal["exact"] | None = None
    batch_size: int | None = None
    stages_from_dataset: bool | None = None
    sampler: str | None = None

    def paths(self) -> list[tuple[str, str, str | float]]:
        """Return (name, path in the space, value as YAML writes it) of those that were given."""
        paths = {
            "stopper": "search.stopper",
            "max_gflops": "search.limits.gflops",
            "max_params": "search.limits.params",
            "max_memory": "search.limits.memory",
            "test_share": "search.test_share",
            "patch_size": "search.patch_size",
            "batch_size": "search.batch_size",
            "stages_from_dataset": "search.stages_from_dataset",
            "sampler": "search.sampler",
        }
        found = [(name, path, getattr(self, name)) for name, path in paths.items()]
        return [(name, path, _as_yaml(value)) for name, path, value in found if value is not None]


def _as_yaml(value: Any) -> str | float:
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple | list) else value


SECTIONS: dict[str, type[BaseModel]] = {
    "search": SearchSettings,
    "search.limits": LimitSettings,
    "search.match": MatchSpec,
    **{f"search.sampler.{kind}": cls for kind, cls in SAMPLERS.items()},
}
"""Sections that a space has beside those of a spec."""
