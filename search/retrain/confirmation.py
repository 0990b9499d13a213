"""What `confirmed.json` holds and says: the front of a run, trained again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from archspec.text import table
from search.retrain.noise import DiceDifference
from search.trials.recorded import from_record, to_record

RESULT = "confirmed.json"
Part = Literal["validation", "test"]

_NO_TEST = (
    "The run has no test part (search.test_share): Dice is on the validation cases\n"
    "that the search chose by, so it flatters."
)


@dataclass(frozen=True)
class SeedScores:
    """Mean Dice over seeds and cases, the standard deviation of the means of `seeds`, and these.

    The first two are None where they are not known.
    """

    mean: float | None
    sd: float | None
    seeds: list[float]


@dataclass(frozen=True)
class ConfirmedPoint:
    """A point of the front: what the search saw, what the new trainings have, and the drop."""

    trial: int
    gflops: float
    gmac: float
    params: int
    searched: float
    validation: SeedScores
    test: SeedScores | None = None
    drop: float | None = None
    drop_by_seed: float | None = None
    drop_by_cases: float | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ConfirmedPoint":
        found = from_record(cls, content)
        validation, test = content["validation"], content.get("test")
        return replace(
            found,
            validation=from_record(SeedScores, validation),
            test=None if test is None else from_record(SeedScores, test),
        )

    def to_json(self) -> dict[str, Any]:
        found = {**to_record(self), "validation": to_record(self.validation)}
        if self.test is None:
            del found["test"]
            return found
        return {**found, "test": to_record(self.test)}

    def scores(self, part: Part) -> SeedScores:
        """Return the scores of the cases of a part."""
        if part == "validation":
            return self.validation
        assert self.test is not None, "asked for only where there is a test part"
        return self.test


@dataclass(frozen=True)
class Confirmation:
    """The front trained again, cheapest first; neighbours along it are compared.

    `failed` tells why trainings have no result. `other` is what a later release wrote beside.
    """

    compared_on: Part
    num_cases: dict[Part, int]
    points: tuple[ConfirmedPoint, ...]
    differences: tuple[DiceDifference, ...]
    failed: dict[str, str]
    dataset: str
    fold: int
    steps: int
    seeds: int
    test_cases: tuple[str, ...]
    convention: str
    measure: str = ""
    """What Dice it is, where it is not the mean of the classes."""
    num_persons: int | None = None
    """Of the compared cases, where the run knows whose they are: differences count persons."""
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Confirmation":
        """Read the content of `confirmed.json`.

        Raises:
            TypeError, KeyError, ValueError: it is none.
        """
        found = from_record(cls, content)
        points = tuple(ConfirmedPoint.from_json(one) for one in content["points"])
        found = replace(
            found,
            points=points,
            differences=tuple(DiceDifference.from_json(one) for one in content["differences"]),
            test_cases=tuple(found.test_cases),
        )
        if not all(isinstance(found.num_cases[part], int) for part in found.parts):
            raise TypeError("num_cases")
        if not isinstance(found.num_persons, int | None):
            raise TypeError("num_persons")
        if not isinstance(found.seeds, int) or not isinstance(found.failed, dict):
            raise TypeError("seeds, failed")
        if found.compared_on == "test" and any(point.test is None for point in points):
            raise ValueError("points without test")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the content of `confirmed.json`."""
        known = to_record(self)
        if not self.measure:
            del known["measure"]
        if self.num_persons is None:
            del known["num_persons"]
        return {
            **known,
            "points": [point.to_json() for point in self.points],
            "differences": [one.to_json() for one in self.differences],
            "test_cases": list(self.test_cases),
        }

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the parts whose cases were scored, the compared one last."""
        return ("validation", "test") if self.compared_on == "test" else ("validation",)

    @property
    def unit(self) -> str:
        """Return what differences count."""
        return "case" if self.num_persons is None else "person"

    def text(self) -> str:
        """Return a table of points and a line per difference, for a terminal of 80 columns."""
        head = ["trial", "GFLOPs", "params", "searched"]
        head += [word for part in self.parts for word in (part, "sd")]
        rows = [[*head, "drop"]]
        for point in self.points:
            row = [str(point.trial), f"{point.gflops:.3f}", f"{point.params:,}"]
            row.append(f"{point.searched:.3f}")
            for scores in map(point.scores, self.parts):
                row += [_number(scores.mean), _number(scores.sd)]
            rows.append([*row, _number(point.drop, "+")])
        lines = [
            f"The front, trained again with {self.seeds} seed{'s' * (self.seeds > 1)} for "
            f"{self.steps} steps: {self.measure or 'mean Dice of the classes'}",
            *table(rows),
            f"searched: Dice when it was chosen; drop: from there to {self.parts[-1]}",
            "sd: standard deviation of the means of the seeds",
        ]
        counts = ", ".join(f"{self.num_cases[part]} {part}" for part in self.parts)
        lines.append(f"cases: {counts}")
        if self.compared_on == "validation":
            lines.append(_NO_TEST)
        if self.differences:
            noise = f", by the noise of {self.unit}s only" if self.seeds == 1 else ""
            whose = "" if self.num_persons is None else f" of {self.num_persons} persons"
            cases = f"{self.parts[-1]} cases{whose}"
            lines += ["", f"Neighbours along the front, on {cases}{noise}:"]
            lines += [_compared(one, self.unit) for one in self.differences]
        if self.seeds == 1:
            told = f"intervals hold the noise of {self.unit}s only"
            lines.append(f"One seed: {told}; give 3 seeds or more.")
        lines += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        return "\n".join(lines)


def _compared(one: DiceDifference, unit: str) -> str:
    text = f"  {one.a} - {one.b}: {one.mean:+.3f}"
    if not one.has_interval:
        return f"{text}: one {unit}, no interval"
    verdict = "exceeds noise" if one.exceeds_noise else "within noise"
    return f"{text} [{one.low:+.3f}, {one.high:+.3f}], p {one.p_holm:.4f} (Holm): {verdict}"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"
