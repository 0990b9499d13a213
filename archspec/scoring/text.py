"""The parts of the page that `archspec evaluate` prints, at most 80 columns wide."""

import math
import textwrap
from dataclasses import dataclass

from archspec.scoring.pairs import BY_SIZE, COMPARED, FEWEST_PAIRS, OVERALL, Comparison, Paired
from archspec.scoring.scores import TERCILES
from archspec.scoring.summary import FolderScores, Means, SizeSummary
from archspec.text import table

_WIDTH = 80
_TITLES = {
    "dice": "Dice",
    "surface_dice": "Surface Dice",
    "hd95_mm": "HD95 (mm; lower is better)",
    "boundary_precision": "Boundary precision",
}
_LARGE = 10_000
_WORST = 5


def folder_lines(folder: FolderScores) -> list[str]:
    """Return a row per class, their mean, and the lowest Dice."""
    rows = [
        ["", "", "", "", "surface", "boundary", "", ""],
        ["class", "cases", "Dice", "HD95", "Dice", "precision", "missed", "invented"],
    ]
    for name, one in folder.per_class.items():
        counts = [str(one.missed or "-"), str(one.invented or "-")]
        rows.append([_name(name), str(one.cases), *_scores(one), *counts])
    rows.append(["mean over classes", "", *_scores(folder.mean), "", ""])
    return table(rows) + _worst(folder)


def _scores(one: Means) -> list[str]:
    return [
        _share(one.dice),
        _value(one.hd95_mm, ".2f"),
        _share(one.surface_dice),
        _share(one.boundary_precision),
    ]


def _worst(folder: FolderScores) -> list[str]:
    """Return the lowest Dice of the page with case and class, of those that are not 1."""
    found = [
        (one.dice, case, name)
        for case, scores in folder.per_case.items()
        for name, one in scores.items()
        if not math.isnan(one.dice)
    ]
    below = sorted(one for one in found if round(one[0], 3) < 1)
    if len(found) <= _WORST or not below:
        return []
    words = [f"{case} {name} {dice:.3f}" for dice, case, name in below[:_WORST]]
    return wrapped(f"lowest Dice: {', '.join(words)}")


def size_lines(folder: FolderScores, dimensions: int) -> list[str]:
    """Return scores by tercile of the structure's size."""
    shown = _Sizes.of(folder, dimensions)
    rows = [["class", "size", "cases", shown.unit, "precision", "Dice", "surface Dice"]]
    for name, parts in folder.terciles.items():
        for tercile, one in (parts or {}).items():
            first = _name(name) if tercile == TERCILES[0] else ""
            shares = [_share(one.summary.value(metric)) for metric in BY_SIZE]
            rows.append([first, tercile, str(one.summary.cases), shown.range(one), *shares])
    return ["", "Scores by size of the structure in the reference (thirds)", *shown.page(rows)]


def compared_sizes(folder: FolderScores, compared: Comparison, dimensions: int) -> list[str]:
    """Return both networks' scores, and their difference, by tercile of the structure's size."""
    shown = _Sizes.of(folder, dimensions)
    lines: list[str] = []
    for metric in BY_SIZE:
        rows = [["class", "size", "pairs", shown.unit, "A", "B", "A - B", "95 % interval"]]
        for name, parts in compared.terciles[metric].items():
            sizes = folder.terciles[name] or {}
            for tercile, one in (parts or {}).items():
                first = _name(name, 12) if tercile == TERCILES[0] else ""
                means = [_share(one.a), _share(one.b)]
                size = shown.range(sizes[tercile])
                rows.append([first, tercile, str(one.pairs), size, *means, *_interval(one, 3)])
        title = f"{_TITLES[metric]} by size of the structure in the reference (thirds)"
        lines += ["", title, *shown.page(rows)]
        if len(rows) == 1:
            return lines
    return lines + wrapped(
        f"Thirds of fewer than {FEWEST_PAIRS} pairs have no interval; the intervals are not "
        "corrected for their number, and over few pairs they tend to be short."
    )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How sizes of structures are shown: one unit for the page, and which classes have too few."""

    unit: str
    divisor: float
    few: tuple[str, ...]

    @classmethod
    def of(cls, folder: FolderScores, dimensions: int) -> "_Sizes":
        terciles = folder.terciles
        largest = max([parts["large"].largest for parts in terciles.values() if parts] or [0])
        few = tuple(name for name, parts in terciles.items() if parts is None)
        scale, unit = 1, "mm"
        for larger in ("cm", "dm"):
            if largest >= _LARGE * scale:
                scale, unit = scale * 10**dimensions, larger
        return cls(f"{unit}^{dimensions}", scale, few)

    def range(self, one: SizeSummary) -> str:
        return "-".join(self._size(size / self.divisor) for size in (one.smallest, one.largest))

    def page(self, rows: list[list[str]]) -> list[str]:
        lines = table(rows, left=2) if len(rows) > 1 else []
        if self.few:
            lines += wrapped(
                "No thirds: fewer than nine cases hold it, or all are of one size: "
                f"{', '.join(self.few)}"
            )
        return lines

    def _size(self, value: float) -> str:
        return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def comparison_lines(compared: Comparison) -> list[str]:
    """Return the paired differences, in words too."""
    lines = []
    for metric in COMPARED:
        found = compared.differences[metric]
        rows = [["class", "pairs", "A - B", "95 % interval", "p Holm", "+/=/-", "needed"]]
        for name, one in found.items():
            counts = f"{one.wins}/{one.ties}/{one.losses}"
            interval = _interval(one, 2 if metric == "hd95_mm" else 3)
            numbers = [str(one.pairs), *interval, _p(one.p_holm), counts]
            shown = "all classes" if name == OVERALL else _name(name, 14)
            rows.append([shown, *numbers, _needed(one.cases_needed, one.pairs)])
        lines += ["", _TITLES[metric], *table(rows)]
        sure = ["all classes" if k == OVERALL else k for k in found if found[k].exceeds_noise]
        if sure:
            lines += wrapped(f"Difference exceeds noise of cases: {', '.join(sure)}.")
        elif max(one.pairs for one in found.values()) < FEWEST_PAIRS:
            lines.append("Too few pairs to say.")
        else:
            lines.append("No difference exceeds noise.")
    if min(one.pairs for one in compared.differences["dice"].values()) < FEWEST_PAIRS:
        lines += wrapped(
            f"Too few cases: below {FEWEST_PAIRS} pairs there is no interval, and no signed-rank p "
            "can fall under .05."
        )
    return [*lines, "", *(line for note in _COMPARED for line in wrapped(note))]


_COMPARED = (
    "A - B: mean over pairs, bootstrap over cases. p: Wilcoxon signed-rank, Holm-corrected over "
    "classes and groups; that of all classes, their mean by case, stands alone. A difference "
    "exceeds noise if its interval excludes 0 and its p is below .05. +/=/-: cases that A wins, "
    "ties, loses.",
    "needed: cases for 80 % power at alpha .05, two-sided, were the difference as large as here: "
    "n = ((1.96 + 0.84) sd / mean)^2 + 1.92 (paired t-test).",
    "One training per network: the noise of training (seed, order of the data) is not in these "
    "intervals. Train each with several seeds before saying which network is better.",
)


def _interval(one: Paired, digits: int) -> list[str]:
    """Return a difference, and its interval."""
    ends = [_value(end, f"+.{digits}f") for end in (one.low, one.high)]
    shown = "-" if one.low is None else f"[{', '.join(ends)}]"
    return [_value(one.difference, f"+.{digits}f"), shown]


def _p(value: float | None) -> str:
    return "<.001" if value is not None and value < 0.001 else _value(value, ".3f")


def _needed(cases: int | None, pairs: int) -> str:
    """Return the cases that a difference needs; nothing where too few pairs say how large it is."""
    if cases is None or pairs < FEWEST_PAIRS:
        return "-"
    return ">99,999" if cases > 99_999 else f"{max(cases, FEWEST_PAIRS):,}"


def _share(value: float | None) -> str:
    return _value(value, ".3f")


def _value(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _name(name: str, width: int = 17) -> str:
    return name if len(name) <= width else f"{name[: width - 2]}.."


def shortened(line: str) -> list[str]:
    """Return a line with a path, its middle left out where it is too long."""
    return [line if len(line) <= _WIDTH else f"{line[:24]} ... {line[-(_WIDTH - 29) :]}"]


def wrapped(text: str) -> list[str]:
    """Return lines of at most 80 columns."""
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
