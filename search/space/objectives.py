"""What a search is after: a Dice first, then one or two costs, of which FLOPs are the usual one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, PlainSerializer

from archspec.spec.words import nearest, shown
from blocks.base import ComponentSpec

CostName = Literal["flops", "params", "memory", "latency"]
Measure = Literal["dice", "worst_class"]
_COSTS: tuple[str, ...] = get_args(CostName)
_MEASURES: tuple[str, ...] = get_args(Measure)
_MOST_COSTS = 2


@dataclass(frozen=True)
class Cost:
    """A cost as people read it: `scale` of the recorded unit are one of `unit`.

    `column` is its name in files, `head` the head of its column in tables.
    """

    column: str
    unit: str
    head: str
    title: str
    scale: float


COSTS: Mapping[str, Cost] = {
    "flops": Cost("gflops", "GFLOPs", "GFLOPs", "GFLOPs per patch", 1e9),
    "params": Cost("mparams", "M parameters", "M params", "parameters, millions", 1e6),
    "memory": Cost("memory_gb", "GB", "GB", "GB of a training step, by estimate", 1e9),
    "latency": Cost(
        "latency", "calibrations", "latency", "latency of a patch, in calibration convolutions", 1.0
    ),
}


class Objectives(ComponentSpec):
    """Dice, as `measure` says or that of `of_class` alone, and what it is held against."""

    measure: Measure = "dice"
    of_class: str | None = None
    costs: tuple[CostName, ...] = ("flops",)

    def score(self, scores: Mapping[str, float], classes: Sequence[str]) -> float:
        """Return the Dice that is sought, of scores by class, group and `mean`.

        `classes` are those of the dataset, without groups. One that has no value in any case, NaN,
        is not the worst.
        """
        if self.of_class is not None:
            return scores[self.of_class]
        if self.measure == "dice":
            return scores["mean"]
        known = [scores[name] for name in classes if not math.isnan(scores[name])]
        return min(known, default=math.nan)

    @property
    def is_mean(self) -> bool:
        """Say whether the Dice is the mean over classes, as trainings report it."""
        return self.measure == "dice" and self.of_class is None

    @property
    def dice_label(self) -> str:
        """Return what the Dice is called in tables."""
        if self.of_class is not None:
            return f"Dice of {self.of_class}"
        return "Dice" if self.measure == "dice" else "Dice of the worst class"

    @property
    def metric_names(self) -> list[str]:
        """Return the names of the values of a trial."""
        dice = "dice" if self.is_mean else self.dice_label.replace(" ", "_").lower()
        return [dice, *(f"log10_{name}" for name in self.costs)]

    @property
    def first_cost(self) -> Cost:
        """Return the cost that orders the front, and is the axis of its picture."""
        return COSTS[self.costs[0]]

    @property
    def other_costs(self) -> tuple[str, ...]:
        """Return those beside FLOPs and parameters, which every table has."""
        return tuple(name for name in self.costs if name not in ("flops", "params"))

    @property
    def note(self) -> str:
        """Return what must be said beside a picture; nothing for Dice against FLOPs alone."""
        if self == Objectives():
            return ""
        told = f"The front is that of {self.dice_label} against {' and '.join(self.costs)}"
        if len(self.costs) == 1:
            return f"{told}."
        return (
            f"{told}: no other network is as good in all {len(self.metric_names)}. A picture shows "
            "the Dice against one of the costs, so one of the front may stand behind another there."
        )

    @classmethod
    def read(cls, recorded: object) -> "Objectives":
        """Return those of a run, which has none where it has the usual ones.

        Raises:
            ValueError: they are no objectives.
        """
        found = cls() if recorded is None else _parsed(recorded)
        assert isinstance(found, Objectives)
        return found

    def written(self) -> list[Any]:
        """Return them as a space writes them."""
        dice = self.measure if self.of_class is None else {"dice": {"class": self.of_class}}
        return [dice, *self.costs]


def _parsed(value: object) -> object:
    """Return the list of a space as the objectives that it stands for.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, Objectives):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(_rule(value))
    first, *costs = value
    wrong = [cost for cost in costs if not isinstance(cost, str) or cost not in _COSTS]
    if wrong:
        meant = nearest(str(wrong[0]), _COSTS)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise ValueError(f"{_rule(wrong[0])} among the costs{hint}")
    if not 1 <= len(costs) <= _MOST_COSTS or len(set(costs)) < len(costs):
        raise ValueError(_rule(list(value)))
    if isinstance(first, str) and first in _MEASURES:
        return Objectives(measure=first, costs=tuple(costs))  # type: ignore[arg-type]
    inner = first.get("dice") if isinstance(first, dict) and set(first) == {"dice"} else None
    name = inner.get("class") if isinstance(inner, dict) and set(inner) == {"class"} else None
    if not isinstance(name, str):
        raise ValueError(f"{_rule(first)} first")
    return Objectives(of_class=name, costs=tuple(costs))


def _rule(got: object) -> str:
    return (
        "must be a Dice (dice, worst_class or {dice: {class: NAME}}), then one or two different "
        f"costs of {', '.join(_COSTS)}, as [dice, flops]; got {shown(got)}"
    )


AnyObjectives = Annotated[
    Objectives,
    BeforeValidator(
        _parsed, json_schema_input_type=list[Measure | CostName | dict[str, dict[str, str]]]
    ),
    PlainSerializer(Objectives.written),
]
