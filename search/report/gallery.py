"""What the networks of a confirmed front draw: pictures of three cases of each."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.report.confirmed import Confirmed
from search.report.summary import spec_of
from search.report.trials import ReportTrial
from search.retrain.confirm import confirmed_files
from search.trials.pictures import PICTURES, Picture, read_pictures

LARGEST_PAGE = 8_000_000
"""Bytes of a page; pictures beyond them are left out."""
_MARKUP = 600
"""Bytes around a picture on the page, at most but for the name of its case."""


@dataclass(frozen=True)
class Row:
    """The pictures of a network, of its training with this seed."""

    trial: int
    seed: int
    pictures: tuple[Picture, ...]

    @property
    def size(self) -> int:
        """Return the bytes that it takes on the page, at most."""
        sizes = (4 * len(one.drawn.png) // 3 + 4 + 12 * len(one.case) for one in self.pictures)
        return sum(sizes) + _MARKUP * (1 + len(self.pictures))


@dataclass(frozen=True)
class Gallery:
    """The networks that have pictures, cheapest first, and what to say of those that have none."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def within(self, size: int) -> "Gallery":
        """Return it without the networks that exceed so many bytes."""
        kept: list[Row] = []
        for row in self.rows:
            size -= row.size
            if size >= 0:
                kept.append(row)
        if len(kept) == len(self.rows):
            return self
        told = _numbers([row.trial for row in self.rows if row not in kept])
        limit = f"{LARGEST_PAGE / 1e6:.0f} MB"
        note = f"The pictures of {told} are left out: the page stays below {limit}."
        return replace(self, rows=tuple(kept), notes=(*self.notes, note))


def data_url(picture: Picture) -> str:
    """Return the picture as a page holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture.drawn.png).decode()}"


def read_gallery(
    folder: Path,
    confirmed: Confirmed,
    trials: Sequence[ReportTrial],
    *,
    own_cases: bool,
    images: bool = True,
) -> Gallery:
    """Return the pictures that the confirmation of this front kept; `images` says whether any.

    Raises:
        SpecError: some are damaged.
    """
    if not images:
        return Gallery((), ("Pictures are left out (--no-images).",))
    by_number = {trial.number: trial for trial in trials}
    numbers = [point.trial for point in confirmed.found.points]
    rows = [row for number in numbers if (row := _row(folder, confirmed, by_number[number]))]
    if not rows:
        told = (
            "No pictures: cases of your own are scored by your own code, which hands none over."
            if own_cases
            else "No pictures: this front was trained again by a release that kept none."
        )
        return Gallery((), (told,))
    missing = sorted({*numbers} - {row.trial for row in rows})
    notes = (f"No pictures were kept of {_numbers(missing)}.",) if missing else ()
    return Gallery(tuple(rows), notes)


def _row(folder: Path, confirmed: Confirmed, trial: ReportTrial) -> Row | None:
    """Return the pictures of the network's training with the lowest seed that has any."""
    spec = spec_of(trial)
    if spec is None:
        return None
    for file in confirmed_files(folder, spec, PICTURES):
        part, pictures = read_pictures(file)
        if part == confirmed.part and pictures:
            return Row(trial.number, int(file.parent.name.rsplit("-", 2)[1]), tuple(pictures))
    return None


def _numbers(trials: Sequence[int]) -> str:
    return f"trial{'s' * (len(trials) > 1)} {', '.join(map(str, trials))}"
