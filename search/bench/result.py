"""What `bench.json` holds and says: networks on datasets, compared."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from archspec.scoring.text import wrapped
from archspec.text import table
from search.bench.settings import BenchSettings
from search.retrain.noise import DiceDifference

POINTS = 100
"""Dice points: hundredths."""
ALPHA, POWER = 0.05, 0.8
_LONGEST = 22


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A network on a dataset: what it costs, its mean Dice with the 95 % interval.

    `by_seed` are the means of the seeds. `seconds` is the median over its trainings. What is not
    known is None.
    """

    dataset: str
    network: str
    gflops: float
    params: int
    seconds: float | None
    mean: float | None
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]

    @property
    def dice_text(self) -> str:
        """Return the mean with its interval, in Dice points."""
        if self.mean is None:
            return "-"
        text = f"{POINTS * self.mean:.2f}"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{POINTS * self.low:.2f}, {POINTS * self.high:.2f}]"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "by_seed": list(self.by_seed)}


@dataclass(frozen=True)
class Versus:
    """A network less the baseline on a dataset, over `units` persons or cases.

    `needed` of them would show a difference of this size, or the margin, with power 0.8, were there
    no noise of seeds: more cases do not lessen that.
    """

    dataset: str
    difference: DiceDifference
    units: int
    needed: int | None

    @property
    def p_text(self) -> str:
        """Return the corrected p."""
        p = self.difference.p_holm
        return "-" if math.isnan(p) else f"{p:.4f}"

    @property
    def needed_text(self) -> str:
        """Return the units needed."""
        if self.needed is None or not self.difference.has_interval:
            return "-"
        return ">99,999" if self.needed > 99_999 else f"{self.needed:,}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        rest = {"units": self.units, "needed": self.needed}
        return {"dataset": self.dataset, **self.difference.to_json(), **rest}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was found.

    `ranks` are mean ranks over `num_blocks` pairs of dataset and fold, 1 the best; networks that
    tie share theirs. `unit` is what statistics count, `num_units` how many by dataset. `recipes`
    tell how each network trains, `failed` why trainings are missing, `notes` what else to know.
    """

    settings: BenchSettings
    baseline: str
    score: str
    margin: float | None
    unit: str
    num_units: dict[str, int]
    standings: tuple[Standing, ...]
    ranks: dict[str, float]
    num_blocks: int
    differences: tuple[Versus, ...]
    recipes: dict[str, str]
    failed: dict[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `bench.json`."""
        plain = {
            **asdict(self.settings),
            "baseline": self.baseline,
            "score": self.score,
            "margin": self.margin,
            "unit": self.unit,
            "num_units": self.num_units,
            "standings": [one.to_json() for one in self.standings],
            "ranks": self.ranks,
            "num_blocks": self.num_blocks,
            "differences": [one.to_json() for one in self.differences],
            "recipes": self.recipes,
            "failed": self.failed,
        }
        return {**plain, "notes": list(self.notes)}

    @property
    def labels(self) -> list[str]:
        """Return the networks, the baseline first."""
        return list(dict.fromkeys(one.network for one in self.standings))

    def of(self, dataset: str) -> tuple[list[Standing], list[Versus]]:
        """Return what was found on a dataset."""
        standings = [one for one in self.standings if one.dataset == dataset]
        return standings, [one for one in self.differences if one.dataset == dataset]

    def text(self) -> str:
        """Return a table of networks and one of differences per dataset, 80 columns wide."""
        lines = [self._head()]
        for dataset in self.settings.datasets:
            lines += ["", *self._dataset_lines(dataset)]
        if self.ranks:
            where = f"{self.num_blocks} pair{'s' * (self.num_blocks != 1)} of dataset and fold"
            lines += ["", f"Mean rank over {where}, 1 the best:"]
            ranked = sorted(self.ranks.items(), key=lambda item: item[1])
            lines += table([[f"  {shortened(name)}", f"{rank:.2f}"] for name, rank in ranked])
        return "\n".join([*lines, "", *self._foot()])

    def _head(self) -> str:
        settings = self.settings
        folds, seeds = len(settings.folds), len(settings.seeds)
        length = "" if settings.steps is None else f", {settings.steps:,} steps"
        return (
            f"{len(self.labels)} network{'s' * (len(self.labels) != 1)}, "
            f"{len(settings.datasets)} dataset{'s' * (len(settings.datasets) != 1)}, "
            f"{folds} fold{'s' * (folds != 1)}, {seeds} seed{'s' * (seeds != 1)}{length}"
        )

    def _dataset_lines(self, dataset: str) -> list[str]:
        standings, differences = self.of(dataset)
        told = self.settings.datasets[dataset]
        patch, units = " x ".join(map(str, told["patch_size"])), self.num_units.get(dataset, 0)
        lines = [
            f"{dataset} ({told['configuration']})",
            f"patch {patch}, {units} {self.unit}{'s' * (units != 1)}",
        ]
        rows = [["network", "GFLOPs", "params", "train s", "Dice points [95 %]"]]
        for one in standings:
            seconds = "-" if one.seconds is None else f"{one.seconds:.0f}"
            cost = [f"{one.gflops:.3f}", f"{one.params:,}", seconds]
            rows.append([shortened(one.network), *cost, one.dice_text])
        lines += table(rows)
        if differences:
            rows = [
                [f"less {shortened(self.baseline)}", "points [95 %]", "p Holm", "needed", "> noise"]
            ]
            for versus in differences:
                found = versus.difference
                verdict = "yes" if found.exceeds_noise else "no"
                verdict = verdict if found.has_interval else "-"
                rows.append(
                    [
                        shortened(found.a),
                        found.text(POINTS, 2),
                        versus.p_text,
                        versus.needed_text,
                        verdict,
                    ]
                )
            lines += table(rows)
        return lines

    def _foot(self) -> list[str]:
        count = len(self.differences)
        lines = [
            f"Dice: {self.score_text}, over {self.unit}s and seeds; bootstrap over both.",
        ]
        if count:
            size = "its size" if self.margin is None else f"{POINTS * self.margin:g} points"
            lines += [
                f"p: corrected by Holm for {count} comparison{'s' * (count != 1)}; needed: "
                f"{self.unit}s that would show",
                f"a difference of {size} with power {POWER:g}, noise of seeds apart.",
            ]
        if len(self.settings.seeds) == 1:
            lines.append("One seed: intervals hold the noise of cases only; give 3 seeds or more.")
        told = [f"note: {note}" for note in self.notes]
        told += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        return lines + [line for one in told for line in wrapped(one)]

    @property
    def score_text(self) -> str:
        """Return which Dice is compared, in words."""
        return "mean over the classes" if self.score == "mean" else f"of {self.score}"


def shortened(name: str) -> str:
    """Return a label for a column."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 2]}.."
