"""What is known of one network's paper: data, a page of at most 80 columns, JSON."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from archspec.costs.counters import Counts
from archspec.costs.flops import CONVENTION
from archspec.papers.compare import RESULTS, SCALES, Compare, Reading, used
from archspec.papers.data import Compared, Dataset, Independent, Paper, Point, independent
from archspec.spec.claims import ClaimSpec
from archspec.spec.schema import ArchSpec
from archspec.text import table

WIDTH = 80
LEGEND = (
    "published: read there. code: counted from the published code. second hand: "
    "others say so. unverified: attributed to the paper, not read in it. "
    f"derived: computed from other claims. Costs by {CONVENTION}, one forward pass at batch 1; "
    "training memory is an estimate, MB and GB read as MiB and GiB."
)


@dataclass(frozen=True, slots=True)
class Page:
    """All that is known of one spec; `paper` is None for a network of no paper.

    `counters` are there if other people's counters were run.
    """

    spec: ArchSpec
    paper: Paper | None
    compares: tuple[Compare, ...]
    counters: Counts | None = None

    @property
    def costs(self) -> list[Compare]:
        return [found for found in self.compares if found.claim.what not in RESULTS]

    @property
    def results(self) -> dict[str, list[Compare]]:
        """Return the claimed results by dataset."""
        by_dataset: dict[str, list[Compare]] = {}
        for found in self.compares:
            if found.claim.what in RESULTS:
                by_dataset.setdefault(found.claim.dataset, []).append(found)
        return by_dataset

    def points(self, kind: str) -> list[tuple[Point, str]]:
        """Return what the paper leaves `open`, or its `released` code contradicts, with our use."""
        if self.paper is None:
            return []
        listed = self.paper.open if kind == "open" else self.paper.released
        about = [point for point in listed if self.spec.name in (point.specs or self.paper.specs)]
        return [(point, used(self.spec, point)) for point in about]

    @property
    def unexplained(self) -> list[Compare]:
        return [found for found in self.compares if found.unexplained]

    def text(self) -> str:
        """Return the page, and a table of counters behind it."""
        lines = _wrapped(f"{self.spec.name}: {self.spec.title}")
        if self.paper is None:
            lines += _wrapped("no paper is known for this network", 2)
        else:
            lines += _wrapped(self.paper.title, 2) + _wrapped(f"read: {self.paper.read}", 2)
        if self.compares:
            lines += _costs(self.costs) + _results(self)
            lines += _points("Left open by the paper: what is used here", self.points("open"))
            lines += _points("Paper, figures and released code", self.points("released"))
            lines += ["", *_wrapped(LEGEND)]
        else:
            lines.append("  nothing is claimed about it")
        if self.counters is not None:
            lines += ["", self.counters.text()]
        return "\n".join(lines)

    def unexplained_text(self) -> str:
        """Return a line for every claim that no reading and no note explains."""
        return "\n".join(
            f"{self.spec.name}: {found.claim.what} {_value(found.claim)} is not what is built, and "
            "no note says why"
            for found in self.unexplained
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data; keys are always all there, in this order."""
        paper = self.paper
        datasets = [] if paper is None else [_dataset_json(paper, d) for d in paper.datasets]
        return {
            "spec": self.spec.name,
            "title": self.spec.title,
            "paper": None if paper is None else paper.title,
            "read": None if paper is None else paper.read,
            "convention": CONVENTION,
            "claims": [found.to_json() for found in self.compares],
            "datasets": datasets,
            "compared": []
            if paper is None
            else [c.model_dump(mode="json") for c in paper.compared],
            **{
                kind: [{**p.model_dump(mode="json"), "here": here} for p, here in self.points(kind)]
                for kind in ("open", "released")
            },
            "counters": None if self.counters is None else self.counters.to_json(),
        }


def _dataset_json(paper: Paper, dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "differs": dataset.differs,
        "independent": [asdict(found) for found in independent(paper, dataset)],
    }


def shape(sizes: Sequence[int]) -> str:
    """Return an input as 1x4x128^3, or 1x1x96x160x160 where axes differ."""
    batch, channels, *axes = sizes
    grid = f"{axes[0]}^{len(axes)}" if len(set(axes)) == 1 else "x".join(map(str, axes))
    return f"{batch}x{channels}x{grid}"


def _costs(costs: Sequence[Compare]) -> list[str]:
    """Return one row per claim, or one per reading below it, each claim with its details."""
    rows = [("Costs", "claimed", "built here", "ratio")]
    ends: list[tuple[str, list[str]]] = [("claim is", [])]
    for found in costs:
        claim, readings = found.claim, found.readings
        value = "in words" if isinstance(claim.value, str) else _value(claim)
        what = claim.what.replace("_", " ")
        if len(readings) == 1:
            rows.append((what, value, _built(claim, readings[0]), f"{readings[0].ratio:.3f}"))
        else:
            rows.append((what, value, "" if readings else "not computed", ""))
        ends.append((claim.confidence.replace("_", " "), []))
        for reading in readings if len(readings) > 1 else ():
            rows.append((f"  {reading.label}", "", _built(claim, reading), f"{reading.ratio:.3f}"))
            ends.append(("", []))
        ends[-1][1].extend(_details(found))
    lines = table(rows)
    width = max(map(len, lines)) + 2
    printed = [""] if costs else []
    for line, (end, below) in zip(lines if costs else (), ends, strict=False):
        printed += [f"{line.ljust(width)}{end}".rstrip(), *below]
    return printed


def _details(found: Compare) -> list[str]:
    claim = found.claim
    at = f"{shape(found.input)}, {found.num_classes} classes" if found.readings else ""
    words = f'"{claim.value}"' if isinstance(claim.value, str) else ""
    said = "; ".join(filter(None, [words, claim.setting, f"built at {at}" if at else ""]))
    lines = _wrapped(said, 4) + _wrapped(claim.source, 4)
    return lines + (_wrapped(f"why: {claim.note}", 4) if claim.note else [])


def _results(page: Page) -> list[str]:
    lines = []
    compared = page.paper.compared if page.paper else ()
    if page.results:
        lines = ["", "Results: claimed, none reproduced here (nothing was trained)"]
    for name, found in page.results.items():
        lines.append(name or "no dataset stated")
        for source, group in groupby(found, key=lambda compare: compare.claim.source):
            for compare in group:
                lines += _result(compare.claim)
            lines += _wrapped(source, 6)
        for rows in compared:
            if rows.dataset == name and rows.what in RESULTS:
                lines += _compared(rows, "beside it, ")
        if page.paper is not None:
            lines += _independent(page.paper, name)
    others = [rows for rows in compared if rows.what not in RESULTS]
    if others:
        lines += ["", "Costs beside it, as the paper or others state them"]
    for rows in others:
        lines += _compared(rows)
    return lines


def _result(claim: ClaimSpec) -> list[str]:
    what, sure = (word.replace("_", " ") for word in (claim.what, claim.confidence))
    text = claim.setting if len(claim.setting) < 30 else ""
    lines = _wrapped(claim.setting, 4) if not text else []
    lines.append(f"  {what:19}{text:32}{_value(claim):>10}  {sure}")
    return lines + (_wrapped(f"why: {claim.note}", 6) if claim.note else [])


def _compared(found: Compared, head: str = "") -> list[str]:
    rows = ", ".join(f"{method} {value}" for method, value in found.rows.items())
    what, sure = (word.replace("_", " ") for word in (found.what, found.confidence))
    unit = f" in {found.unit}" if found.unit else ""
    text = f"{head}{what}{unit}, {found.setting}: {rows} ({sure}; {found.source})"
    return _wrapped(text, 2, hang=4)


def _independent(paper: Paper, name: str) -> list[str]:
    dataset = next((d for d in paper.datasets if d.name == name), None)
    if dataset is None:  # the claims are the benchmark's own rows
        return []
    lines: list[str] = []
    without: list[str] = []
    for found in independent(paper, dataset):
        if found.column is None:
            without.append(found.benchmark)
            continue
        lines += _wrapped(_benchmark(paper, found), 2, hang=4)
    if without:
        lines += _wrapped(f"independent: this dataset is not in {' nor in '.join(without)}", 2)
    if dataset.differs:
        head = "protocols differ" if dataset.columns else "note"
        lines += _wrapped(f"{head}: {dataset.differs}", 2, hang=4)
    return lines


def _benchmark(paper: Paper, found: Independent) -> str:
    rows = ", ".join(f"{method} {value:.2f}" for method, value in found.dice_percent.items())
    here = "" if found.has_this_method else f"; {paper.method} is not in that benchmark"
    return (
        f"independent, {found.benchmark} on {found.column}, Dice %: {rows} ({found.protocol}{here})"
    )


def _points(head: str, points: Sequence[tuple[Point, str]]) -> list[str]:
    if not points:
        return []
    lines = ["", head]
    for point, here in points:
        lines.append(f"- {point.what}")
        for who, what in point.says.items():
            lines += _wrapped(f"{who}: {what}", 4, hang=6)
        lines += _wrapped(f"here: {here}", 4, hang=6)
        lines += _wrapped(f"source: {point.source}", 4, hang=6)
    return lines


def _value(claim: ClaimSpec) -> str:
    if isinstance(claim.value, str):
        return f'"{claim.value}"'
    number = f"{claim.value:,}" if isinstance(claim.value, int) else str(claim.value)
    return f"{number} {claim.unit}" if claim.unit else number


def _built(claim: ClaimSpec, reading: Reading) -> str:
    if claim.against is not None:
        return f"{reading.built:.1f} x"
    value = reading.built / SCALES[claim.unit]
    if claim.unit is None:
        return f"{round(value):,}"
    return f"{value:,.0f} MB" if claim.unit == "MB" else f"{value:,.2f} {claim.unit}"


def _wrapped(text: str, indent: int = 0, *, hang: int | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent if hang is None else hang),
        break_long_words=False,
        break_on_hyphens=False,
    )
