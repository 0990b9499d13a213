"""Whose cases are whose: statistics count persons, where a file says who they are."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from archspec.files import read_json
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.splits import split_cases
from blocks.errors import SpecError, reason

_COLUMNS = ("case", "person")
_FORM = "must be a CSV file with columns case,person (and dataset), or JSON: {case: person}"


@dataclass(frozen=True)
class Persons:
    """The person of every case, by dataset; without a file every case counts as a person."""

    named: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Return what statistics count."""
        return "person" if self.named else "case"

    def of(self, dataset: str, case: str) -> str:
        """Return the person of a case."""
        return self.named[dataset][case] if self.named else case

    def means(self, dataset: str, scores: Iterable[tuple[str, float]]) -> dict[str, float]:
        """Return the mean of the scores of each person's cases."""
        found: dict[str, list[float]] = {}
        for case, score in scores:
            found.setdefault(self.of(dataset, case), []).append(score)
        return {person: statistics.fmean(values) for person, values in found.items()}


EVERY_CASE = Persons()


def read_persons(file: Path, wanted: Mapping[str, Iterable[str]]) -> Persons:
    """Return the persons of the wanted cases, by dataset.

    The file is CSV with a line of names on top, or JSON: {case: person}, or that by dataset. Blanks
    around a name do not count.

    Raises:
        SpecError: it cannot be read, lacks a case, or does not name one person for a case.
    """
    rows = _of_json(file) if file.suffix.lower() == ".json" else _of_csv(file)
    named: dict[str, dict[str, str]] = {}
    for dataset, cases in wanted.items():
        own: dict[str, str] = {}
        for where, case, person in rows:
            if where not in (None, dataset):
                continue
            if not person:
                raise SpecError(f"names no person for {case}", where=file)
            if own.setdefault(case, person) != person:
                both = f"{own[case]} and {person}"
                raise SpecError(f"names two persons for {case}: {both}", where=file)
        lacking = sorted(set(cases) - set(own))
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise SpecError(f"has no person for {lacking[0]}{more} of {dataset}", where=file)
        named[dataset] = {case: own[case] for case in cases}
    return Persons(named)


def all_cases(dataset: PreprocessedDataset, folds: Iterable[int]) -> list[str]:
    """Return the cases that the folds train or validate on."""
    splits = [split_cases(dataset, fold=fold) for fold in folds]
    return sorted({case for split in splits for case in (*split.train, *split.validation)})


def shared_persons(persons: Persons, dataset: PreprocessedDataset, fold: int) -> int:
    """Return how many persons the fold both trains and validates on."""
    if not persons.named:
        return 0
    split = split_cases(dataset, fold=fold)
    train, validation = (
        {persons.of(dataset.name, case) for case in part}
        for part in (split.train, split.validation)
    )
    return len(train & validation)


def _of_csv(file: Path) -> list[tuple[str | None, str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (OSError, ValueError, csv.Error) as error:
        raise SpecError(f"cannot be read: {reason(error)}", where=file) from None
    if not rows or not set(_COLUMNS) <= set(rows[0]):
        raise SpecError(_FORM, where=file)
    return [
        (_name(row.get("dataset")) or None, _name(row["case"]), _name(row["person"]))
        for row in rows
    ]


def _of_json(file: Path) -> list[tuple[str | None, str, str]]:
    found = read_json(file)
    if not isinstance(found, dict) or not found:
        raise SpecError(_FORM, where=file)
    rows: list[tuple[str | None, str, str]] = []
    for key, value in found.items():
        if isinstance(value, dict):
            rows += [(_name(key), _name(case), _name(person)) for case, person in value.items()]
        else:
            rows.append((None, _name(key), _name(value)))
    return rows


def _name(value: object) -> str:
    """Return what names a case or a person; nothing for a cell that is not there."""
    return "" if value is None else str(value).strip()
