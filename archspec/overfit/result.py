"""How far a network came on one patch: data, a page of at most 80 columns, JSON."""

import math
from dataclasses import dataclass
from typing import Any

from archspec.overfit.cap import Cap
from archspec.overfit.gradients import Norms
from archspec.overfit.patch import mean_dice
from archspec.text import table

SHARE = 0.99
"""Of the cap, what has to be reached."""
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Overfit:
    """How far the network came, and what it takes to repeat it.

    `patch` is (C, *patch), and starts at `start` in the case. `scores` are the network's best Dice
    per class in evaluation mode, `failure` why it stopped early, and `first` and `last` gradients
    those at the first and the last step. `silent` parameters got none at either, though they have a
    part in outputs that the loss weighs; it leaves out that of `unweighted_head`.
    """

    name: str
    dataset: str
    case: str
    patch: tuple[int, ...]
    start: tuple[int, ...]
    cap: Cap
    scores: dict[str, float]
    steps: int
    seconds: float
    failure: str | None
    first: Norms
    last: Norms
    silent: tuple[str, ...]
    unweighted_head: str | None
    recipe: str
    seed: int
    device: str

    @property
    def mean(self) -> float:
        return mean_dice(self.scores)

    @property
    def share(self) -> float:
        """Return the Dice over the cap; 0 where not even the cap holds anything."""
        return self.mean / self.cap.mean if self.cap.mean > 0 else 0.0

    @property
    def reached(self) -> bool:
        return self.share >= SHARE

    @property
    def dead(self) -> list[str]:
        """Return the directions, as mixer and order, without gradient at the last step."""
        return [
            f"{path} {name}"
            for path, norms in self.last.items()
            for name, norm in norms.items()
            if norm == 0
        ]

    def text(self) -> str:
        """Return the page; one line if the numbers stopped being finite."""
        if self.failure:
            return f"{self.name} failed at {self.failure}"
        size = " x ".join(str(n) for n in self.patch)
        return "\n".join(
            [
                f"{self.name} on {self.dataset}, {self.case}",
                f"patch {size} from {list(self.start)}; {self.device}, seed {self.seed}",
                *self._scores(),
                self._verdict(),
                *self._directions(),
                *self._silent(),
                f"recipe: {self.recipe}",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec overfit --json` prints."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "case": self.case,
            "patch": list(self.patch),
            "start": list(self.start),
            "cap": {
                "head_grid": list(self.cap.grid),
                "mean": self.cap.mean,
                "classes": dict(self.cap.scores),
                "averaged": self.cap.averaged,
            },
            "dice": {"mean": self.mean, "classes": dict(self.scores)},
            "share": self.share,
            "wanted_share": SHARE,
            "reached": self.reached,
            "failure": self.failure,
            "steps": self.steps,
            "seconds": self.seconds,
            "directions": {
                path: {
                    name: {"first": _finite(norm), "last": _finite(self.last[path][name])}
                    for name, norm in norms.items()
                }
                for path, norms in self.first.items()
            },
            "dead_directions": self.dead,
            "parameters_without_gradient": list(self.silent),
            "unweighted_head": self.unweighted_head,
            "recipe": self.recipe,
            "seed": self.seed,
            "device": self.device,
        }

    def _scores(self) -> list[str]:
        cap = self.cap
        grid = " x ".join(str(n) for n in cap.grid)
        rows = [["", "cap", "Dice"]]
        rows += [
            [name, f"{score:.3f}", f"{self.scores[name]:.3f}"] for name, score in cap.scores.items()
        ]
        rows.append(["mean", f"{cap.mean:.3f}", f"{self.mean:.3f}"])
        note = f"logits are made at {grid}"
        if tuple(cap.grid) != self.patch[1:]:
            note += f" and interpolated; averaged labels would give {cap.averaged:.3f}"
        return [note, *table(rows)]

    def _verdict(self) -> str:
        spent = f"{self.steps} steps, {self.seconds:.0f} s"
        if self.reached:
            return f"reached: {self.share:.4f} of the cap after {spent}"
        return f"NOT reached: {self.share:.4f} of the cap, not {SHARE}, after {spent}"

    def _directions(self) -> list[str]:
        if not self.first:
            return []
        dead = self.dead
        rows = [["gradient norm of", "", "first step", "last step"]]
        for path, norms in self.first.items():
            for index, (name, norm) in enumerate(norms.items()):
                end = "  DEAD" if f"{path} {name}" in dead else ""
                shown = path if index == 0 else ""
                rows.append([shown, name, f"{norm:.1e}", f"{self.last[path][name]:.1e}{end}"])
        return table(rows, left=2)

    def _silent(self) -> list[str]:
        if not self.silent:
            return []
        more = len(self.silent) - _SHOWN
        end = f" and {more} more" * (more > 0)
        return [f"without gradient: {', '.join(self.silent[:_SHOWN])}{end}"]


def _finite(norm: float) -> float | None:
    """Return the norm, or None, for JSON has no word for what is not finite."""
    return norm if math.isfinite(norm) else None
