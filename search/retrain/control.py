"""Searches beside their controls: which is whose, what the difference says, as text and JSON."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.trial import TrialState

from archspec.spec.tree import frozen
from archspec.spec.yaml_file import Source
from archspec.text import table
from blocks.base import SpecError
from search.pareto import hypervolume
from search.space.control import control_source
from search.space.holes import size_of
from search.study.ledger import Ledger, ended
from search.study.record import RunRecord
from search.study.storage import open_run

_LEVEL = 0.95
_SAME = ("dataset", "configuration", "fold", "cases", "convention", "earlier_stopper")
_SAME_SETTINGS = (
    *("steps", "batch_size", "patch_size", "stages_from_dataset"),
    *("rungs", "eta", "weights", "stopper", "limits", "match", "objectives"),
)


@dataclass(frozen=True)
class ControlVerdict:
    """Mean hypervolume of searches less that of their controls, with its 95 % interval.

    `searches` and `controls` are the hypervolumes by run folder. The interval is Welch's for a
    difference of two means over seeds of searches: the numbers of runs are small, and their spreads
    may differ. Its ends are NaN where either has one run.
    """

    searches: dict[str, float]
    controls: dict[str, float]
    low: float
    high: float

    @classmethod
    def of(cls, searches: Mapping[str, float], controls: Mapping[str, float]) -> "ControlVerdict":
        """Return the verdict on hypervolumes, one per run."""
        ends = _welch(list(searches.values()), list(controls.values()))
        return cls(dict(searches), dict(controls), *ends)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.searches.values()) - statistics.fmean(self.controls.values())

    @property
    def verdict(self) -> str:
        """Return the verdict in one sentence; the strong word only where the interval allows it."""
        runs = f"{len(self.searches)} and {len(self.controls)} runs"
        if math.isnan(self.low):
            return (
                f"cannot tell whether mixers matter from {runs}: hypervolume {self.mean:+.4f} "
                "against the control; repeat both searches with other seeds"
            )
        found = f"hypervolume {self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {runs}"
        if self.low > 0:
            return f"mixers matter: {found}"
        if self.high < 0:
            return f"the control is better: {found}"
        return f"no difference shown between mixers and the control: {found}"

    def text(self) -> str:
        """Return a row per run, and the verdict."""
        rows = [["run", "kind", "hypervolume"]]
        for kind, volumes in (("search", self.searches), ("control", self.controls)):
            rows += [[folder, kind, f"{volume:.4f}"] for folder, volume in volumes.items()]
        return "\n".join(
            [
                *table(rows),
                "hypervolume: decades of FLOPs x validation Dice that a front dominates",
                self.verdict,
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data; the ends of an interval that is unknown are null."""
        ends = [None if math.isnan(end) else end for end in (self.low, self.high)]
        return {
            "searches": self.searches,
            "controls": self.controls,
            "difference": self.mean,
            "low": ends[0],
            "high": ends[1],
            "verdict": self.verdict,
        }


def controls_among(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the searches and their controls: runs whose space has no mixer to leave out.

    Raises:
        SpecError: no run, runs of other spaces, or searches or controls are missing.
    """
    spaces = {folder: _space(folder) for folder in folders}
    controls = [folder for folder in folders if _control(spaces[folder]) == spaces[folder]]
    searches = [folder for folder in folders if folder not in controls]
    if not searches or not controls:
        missing = "search" if controls else "control (a run of archspec search --control)"
        raise SpecError(
            f"no {missing} among {', '.join(map(str, folders))}",
            field="control",
            suggestion="give one of each at least",
        )
    first = searches[0]
    for folder in searches:
        if spaces[folder] != spaces[first]:
            raise SpecError(f"its space is not that of {first}", where=folder)
    for folder in controls:
        if spaces[folder] != _control(spaces[first]):
            raise SpecError(
                f"its space is not the control of {first}'s",
                where=folder,
                suggestion=(
                    "give `archspec search --control` the space and overrides that it was "
                    "searched with"
                ),
            )
    return searches, controls


def _space(folder: Path) -> dict[str, Any]:
    """Return the raw tree of the run's space, without its name."""
    space = frozen(open_run(folder)[1].space)
    if not isinstance(space, dict):
        raise SpecError("its run.json tells no space", where=folder)
    return {key: value for key, value in space.items() if key != "name"}


def _control(space: dict[str, Any]) -> Any:
    return control_source(Source("run.json", space)).tree


def compare_with_control(searches: Sequence[Path], controls: Sequence[Path]) -> ControlVerdict:
    """Compare runs, one per seed, with runs of the control space at the same budget.

    The hypervolume is over log10 FLOPs and validation Dice, as seen from Dice 0 and ten times the
    FLOPs of the dearest finished trial of all runs.

    Raises:
        SpecError: no run, no finished trial, a run given twice, or runs that cannot be compared:
            other data, other training, or fewer trials, unless its space has no more networks.
            Test cases depend on the seed of a run; both sides must have held out the same.
    """
    folders = [*searches, *controls]
    if not searches or not controls:
        raise SpecError("give at least one search and one control", field="control")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise SpecError("a run is given twice", field="control", suggestion="a seed counts once")
    points: list[list[tuple[float, float]]] = []
    first: dict[str, Any] | None = None
    counts: dict[Path, tuple[int, bool]] = {}
    held_out: dict[Path, tuple[str, ...]] = {}
    for folder in folders:
        study, record = open_run(folder)
        if record.objectives.costs[0] != "flops":
            raise SpecError(
                f"its Dice is sought against {record.objectives.costs[0]}, and a control compares "
                "hypervolumes against flops",
                where=folder,
            )
        budget = _budget(record)
        first = first or budget
        counts[folder] = len(ended(study)), _is_used_up(study, record)
        held_out[folder] = record.test_cases or ()
        changed = [key for key in first if budget[key] != first[key]]
        if changed:
            raise SpecError(
                f"its {', '.join(changed)} differ from {folders[0]}'s",
                where=folder,
                suggestion="a control needs the same budget on the same data",
            )
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished:
            raise SpecError("no trial has finished yet", where=folder)
        points.append([(trial.values[1], trial.values[0]) for trial in finished])
    most = max(count for count, _ in counts.values())
    for folder, (count, used_up) in counts.items():
        if count < most and not used_up:
            raise SpecError(
                f"its number of trials differ from others', {count} against {most}",
                where=folder,
                suggestion="a control needs the same budget on the same data",
            )
    if {held_out[folder] for folder in searches} != {held_out[folder] for folder in controls}:
        raise SpecError(
            "searches and controls held other test cases out, so they trained on others",
            field="control",
            suggestion="give runs of the same seeds",
        )
    reference = (max(cost for own in points for cost, _ in own) + 1, 0.0)
    volumes = {
        folder: hypervolume(own, reference) for folder, own in zip(folders, points, strict=True)
    }
    return ControlVerdict.of(
        {str(folder): volumes[folder] for folder in searches},
        {str(folder): volumes[folder] for folder in controls},
    )


def _budget(record: RunRecord) -> dict[str, Any]:
    """Return what two runs must have in common, beside the number of trials."""
    known, settings = record.to_json(), record.all_settings
    return {
        **{key: known.get(key) for key in _SAME},
        **{key: settings.get(key) for key in _SAME_SETTINGS},
    }


def _is_used_up(study: Study, record: RunRecord) -> bool:
    """Say whether every network of the run's space was drawn: more trials would add nothing."""
    if record.space is None:
        return False
    size = size_of(frozen(record.space))
    drawn = Ledger(study.get_trials(deepcopy=False)).num_drawn
    return not size.ranges and drawn >= size.combinations


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the interval of mean(a) - mean(b); NaN where a spread is unknown."""
    if len(a) < 2 or len(b) < 2:
        return math.nan, math.nan
    parts = [statistics.variance(values) / len(values) for values in (a, b)]
    mean = statistics.fmean(a) - statistics.fmean(b)
    if sum(parts) == 0:
        return math.nan, math.nan  # equal to the last bit: one seed, run twice
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True)
    )
    from scipy.stats import t

    half = float(t.ppf((1 + _LEVEL) / 2, freedom)) * math.sqrt(sum(parts))
    return mean - half, mean + half
