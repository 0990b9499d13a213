"""What `ablation.json` holds and says: what each part of a network is worth."""

from dataclasses import asdict, dataclass
from typing import Any

from archspec.costs.flops import Cost
from search.retrain.noise import DiceDifference

_POINTS = 100
"""Dice points: hundredths."""


@dataclass(frozen=True)
class AblationSettings:
    """What must be equal for an ablation to be gone on with; `network` is a hash."""

    network: str
    dataset: str
    configuration: str
    fold: int
    test_cases: list[str]
    steps: int
    batch_size: int
    seed: int
    convention: str
    patch_size: list[int] | None = None
    """The patch that replaced the dataset's, if one did."""


@dataclass(frozen=True)
class SeedDice:
    """Mean Dice over seeds and cases, None where nothing was trained, and the means of seeds."""

    dice: float | None
    dice_by_seed: list[float]


@dataclass(frozen=True)
class Saving:
    """What the original costs more than a variant."""

    gmac: float
    scan_gflop: float
    params: int

    @classmethod
    def of(cls, original: Cost, variant: Cost) -> "Saving":
        return cls(
            (original.macs - variant.macs) / 1e9,
            (original.scan_flops - variant.scan_flops) / 1e9,
            original.params - variant.params,
        )


@dataclass(frozen=True)
class AblatedPart:
    """A part, what stood instead of it, and what the part is worth: None without trainings."""

    part: str
    instead: str
    scores: SeedDice
    worth: DiceDifference | None
    costs: Saving

    def to_json(self) -> dict[str, Any]:
        worth = None if self.worth is None else self.worth.to_json()
        return {
            "part": self.part,
            "instead": self.instead,
            **asdict(self.scores),
            "worth": worth and {key: worth[key] for key in worth if key not in ("a", "b")},
            "costs": asdict(self.costs),
        }

    def lines(self) -> list[str]:
        """Return three lines: what it is worth and over what, if that is sure, its cost."""
        costs = self.costs
        scan = f", {costs.scan_gflop:+.3f} scan GFLOP" if costs.scan_gflop else ""
        last = f"    costs {costs.gmac:+.3f} GMAC{scan}, {costs.params:+,} parameters"
        worth = self.worth
        if worth is None:
            return [f"{self.part}: no training to compare", "    unknown", last]
        over = f"over {self.instead}" if self.instead != "none" else "over leaving it out"
        verdict = "one case, no interval"
        if worth.has_interval:
            noise = "noise" if len(self.scores.dice_by_seed) > 1 else "the noise of cases"
            verdict = f"{'exceeds' if worth.exceeds_noise else 'within'} {noise}"
            verdict = f"p {worth.p_holm:.4f}: {verdict}"
        return [f"{self.part}: worth {worth.text(_POINTS, 1)} {over}", f"    {verdict}", last]


@dataclass(frozen=True)
class Ablation:
    """What was found; `failed` and `left_out` tell why trainings and variants are missing."""

    settings: AblationSettings
    name: str
    seeds: int
    compared_on: str
    num_cases: int
    original: SeedDice
    parts: tuple[AblatedPart, ...]
    failed: dict[str, str]
    left_out: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `ablation.json`."""
        return {
            **asdict(self.settings),
            "name": self.name,
            "seeds": self.seeds,
            "compared_on": self.compared_on,
            "num_cases": self.num_cases,
            "original": asdict(self.original),
            "parts": [part.to_json() for part in self.parts],
            "failed": self.failed,
            "left_out": self.left_out,
        }

    def text(self) -> str:
        """Return three lines per part, for a terminal of 80 columns."""
        seeds, cases = self.seeds, self.num_cases
        lines = [
            f"{self.name} on {self.settings.dataset}: {self.settings.steps} steps, {seeds} "
            f"seed{'s' * (seeds != 1)}, {cases} {self.compared_on} case{'s' * (cases != 1)}",
        ]
        if self.original.dice is not None:
            lines.append(f"as it is: Dice {_POINTS * self.original.dice:.1f} of 100")
        for part in self.parts:
            lines += part.lines()
        lines += [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        lines += [f"failed: {name}: {reason}" for name, reason in self.failed.items()]
        lines.append(
            "worth: Dice points, mean with its 95 % interval over seeds and cases; p by Holm"
        )
        if seeds == 1:
            lines.append("One seed: intervals hold the noise of cases only; give 3 seeds or more.")
        return "\n".join(lines)
