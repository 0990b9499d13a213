"""The section `search` of a space: how trials train, what stops them, what is tried first."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from archspec.costs.fit import memory_size
from blocks.base import ComponentSpec, Count, SpecError
from search.matching import MatchSpec

StopperName = Literal["pash", "moasha", "none"]


def _check_memory(value: object) -> object:
    try:
        memory_size(value if isinstance(value, str) else "")
    except SpecError:
        raise ValueError(f"must be a size such as 12GB or 11.5GiB, got {value!r}") from None
    return value


Positive = Annotated[float, Field(gt=0)]


class LimitSettings(ComponentSpec):
    """What no trial may exceed; checked before it trains.

    `gflops` are 1e9 FLOPs of one patch in convention v1, `memory` is the estimate for a training
    step at the search's batch size (AMP on CUDA, float32 on a CPU), e.g. 12GB.
    """

    gflops: Positive | None = None
    params: Positive | None = None
    memory: Annotated[str, BeforeValidator(_check_memory)] | None = None


class SearchSettings(ComponentSpec):
    """How trials train and which are tried first; the section `search` of a space file.

    `steps` are optimizer steps of `batch_size` patches. The validation cases are scored at every
    one of `rungs` rungs, each with `eta` times the steps of the one before, the last at the end
    (eta 1 spaces them evenly); `validate_every` steps scores them in between too, and rungs are
    judged by the mean of up to three scores. Each anchor gives values to some holes; the others
    take their first or lowest one. An anchor `{spec: unet}` is that spec, with the recipe of the
    space, and narrower where it exceeds a limit. `holes` opens nodes by their paths. `match` scales
    the widths of every network that is drawn until it costs what all cost. `test_share` of the
    cases neither train nor validate: `archspec confirm` scores them.
    """

    steps: Count = 1000
    batch_size: Annotated[int, Field(ge=1)] = 2
    rungs: Count = 4
    eta: Count = 3
    validate_every: Count | None = None
    stopper: StopperName = "pash"
    limits: LimitSettings = LimitSettings()
    anchors: tuple[dict[str, Any], ...] = ()
    holes: dict[str, Any] = Field(default_factory=dict)
    match: MatchSpec | None = None
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def rung_steps(self) -> tuple[int, ...]:
        """Return the steps at which trials are scored, the last at the end."""
        if self.eta == 1:
            steps = {self.steps * rung // self.rungs for rung in range(1, self.rungs + 1)}
        else:
            steps = {self.steps // self.eta**power for power in range(self.rungs)}
        return tuple(sorted(steps - {0}))


def of_earlier_release(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a run's recorded settings, with what was done before there was a setting for it."""
    before = SearchSettings(eta=1, stopper="none").model_dump(mode="json")
    return {**before, **settings}
