"""A finished nnU-Net training to set beside a front: what its `summary.json` says."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.errors import SpecError, reason
from search.study.record import RunRecord

_SUMMARY = "summary.json"
_PLACES = ((), (_SUMMARY,), ("validation", _SUMMARY))
"""Where the file lies, from what is given: itself, the validation folder, or the fold's."""
_LONGEST = 56
_DATASET = re.compile(r"Dataset\d{3,}_.+")


@dataclass(frozen=True)
class Baseline:
    """Mean foreground Dice of a training's validation cases, as nnU-Net computes it.

    `shared` is how many of the run's validation cases are among them, of `num_run_cases`; None
    where the run did not note which they are.
    """

    label: str
    file: Path
    dice: float
    cases: tuple[str, ...]
    shared: int | None
    num_run_cases: int | None

    @property
    def same_cases(self) -> bool | None:
        """Say whether it is scored on the run's validation cases and no others."""
        if self.shared is None:
            return None
        return self.shared == self.num_run_cases == len(self.cases)

    @property
    def short_label(self) -> str:
        """Return what fits beside its line in a figure, and whether its cases are others."""
        text = self.label if len(self.label) <= _LONGEST else f"...{self.label[3 - _LONGEST :]}"
        return f"{text} (other cases)" if self.same_cases is False else text

    def cases_text(self) -> str:
        """Return on which cases it is scored, in words."""
        told = f"{len(self.cases)} case{'s' * (len(self.cases) != 1)}"
        if self.same_cases is None:
            return (
                f"{told}; the run did not note its own, so whether they are the same is not known"
            )
        if self.same_cases:
            return f"{told}, the validation cases of this run"
        return (
            f"{told}, not the validation cases of this run ({self.shared} of its "
            f"{self.num_run_cases} are among them): the figures do not compare"
        )

    def text(self) -> str:
        """Return one line."""
        return f"{self.label}: Dice {self.dice:.3f} on {self.cases_text()}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "label": self.label,
            "file": str(self.file),
            "dice": self.dice,
            "cases": len(self.cases),
            "same_cases": self.same_cases,
            "shared_cases": self.shared,
        }


def read_baselines(
    paths: Sequence[Path], record: RunRecord, sessions: Sequence[dict[str, Any]]
) -> list[Baseline]:
    """Return the trainings whose fold folder, validation folder or `summary.json` is given.

    Raises:
        SpecError: no such file, not a summary of nnU-Net, without foreground, or of another
            dataset.
    """
    split = sessions[-1].get("split", {}) if sessions else {}
    return [_read(path, record, split.get("validation")) for path in paths]


def _read(path: Path, record: RunRecord, own: Collection[str] | None) -> Baseline:
    given = path.resolve()
    file = next((f for place in _PLACES if (f := given.joinpath(*place)).is_file()), None)
    if file is None:
        raise SpecError(
            f"no {_SUMMARY} there, nor in its folder validation",
            where=path,
            suggestion="give the fold of a finished training, e.g. nnUNet_results/Dataset004_X/"
            "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0",
        )
    summary = _json(file)
    fold = file.parent.parent if file.parent.name == "validation" else file.parent
    _check_dataset(path, fold, record)
    dice = _number(summary, "foreground_mean", "Dice")
    cases = _cases(summary)
    if dice is None or cases is None:
        raise SpecError(
            "not nnU-Net's summary of a validation: it needs foreground_mean.Dice and the cases in "
            "metric_per_case",
            where=file,
        )
    if not 0 <= dice <= 1:  # NaN neither
        raise SpecError(
            f"foreground_mean.Dice must be between 0 and 1, but is {dice}",
            where=file,
            suggestion="a validation without foreground cannot be compared",
        )
    shared = None if own is None else len(set(own) & set(cases))
    trained = "__" in fold.parent.name
    label = f"{fold.parent.name}, {fold.name}" if trained else str(path)
    return Baseline(label, file, dice, cases, shared, None if own is None else len(set(own)))


def _check_dataset(path: Path, fold: Path, record: RunRecord) -> None:
    """Refuse a training on another dataset, as far as its plans or its folders tell."""
    names = [name for folder in fold.parents if _DATASET.fullmatch(name := folder.name)]
    plans = fold.parent / "plans.json"
    if plans.is_file():
        told = _json(plans).get("dataset_name")
        names = [told, *names] if isinstance(told, str) else names
    if names and record.dataset and names[0] != record.dataset:
        raise SpecError(
            f"a training on {names[0]}, but the run is on {record.dataset}",
            where=path,
            suggestion="give one on the same dataset",
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"cannot be read as JSON: {reason(error)}", where=file) from None
    if not isinstance(tree, dict):
        raise SpecError("must hold a JSON object", where=file)
    return tree


def _number(tree: dict[str, Any], *keys: str) -> float | None:
    found: Any = tree
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    known = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if known else None


def _cases(summary: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the cases, without the endings of their files."""
    listed = summary.get("metric_per_case")
    if not isinstance(listed, list) or not listed:
        return None
    names = []
    for one in listed:
        file = one.get("prediction_file") if isinstance(one, dict) else None
        if not isinstance(file, str):
            return None
        names.append(re.sub(r"(\.nii)?\.[^.]+$", "", re.split(r"[/\\]", file)[-1]))
    return tuple(names)
