"""A fidelity page as text of at most 80 columns."""

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from archspec.costs.flops import CONVENTION
from archspec.papers.compare import RESULTS, SCALES, Compare, Page, Reading, independent
from archspec.papers.data import Compared, Paper, Point
from archspec.spec.claims import ClaimSpec
from archspec.text import table

WIDTH = 80
LEGEND = (
    "published: read there. code: counted from the published code. second hand: "
    "others say so. unverified: attributed to the paper, not read in it. "
    f"derived: computed from other claims. Costs by {CONVENTION}, one forward pass at batch 1; "
    "training memory is an estimate, MB and GB read as MiB and GiB."
)


def page_text(page: Page) -> str:
    """Return the page of one spec."""
    lines = _wrapped(f"{page.spec.name}: {page.spec.title}")
    if page.paper is None:
        lines += _wrapped("no paper is known for this network", 2)
    else:
        lines += _wrapped(page.paper.title, 2) + _wrapped(f"read: {page.paper.read}", 2)
    if not page.compares:
        return "\n".join([*lines, "  nothing is claimed about it"])
    lines += _costs(page.costs) + _results(page)
    lines += _points("Left open by the paper: what is used here", page.points("open"))
    lines += _points("Paper, figures and released code", page.points("released"))
    return "\n".join([*lines, "", *_wrapped(LEGEND)])


def unexplained_text(pages: Sequence[Page]) -> str:
    """Return a line for every claim that no reading and no note explains."""
    return "\n".join(
        f"{page.spec.name}: {found.claim.what} {_value(found.claim)} is not what is built, and "
        "no note says why"
        for page in pages
        for found in page.unexplained
    )


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
        if found["column"] is None:
            without.append(found["benchmark"])
            continue
        lines += _wrapped(_benchmark(paper, found), 2, hang=4)
    if without:
        lines += _wrapped(f"independent: this dataset is not in {' nor in '.join(without)}", 2)
    if dataset.differs:
        head = "protocols differ" if dataset.columns else "note"
        lines += _wrapped(f"{head}: {dataset.differs}", 2, hang=4)
    return lines


def _benchmark(paper: Paper, found: dict[str, Any]) -> str:
    rows = ", ".join(f"{m} {v:.2f}" for m, v in found["dice_percent"].items())
    here = "" if found["has_this_method"] else f"; {paper.method} is not in that benchmark"
    return (
        f"independent, {found['benchmark']} on {found['column']}, Dice %: {rows} "
        f"({found['protocol']}{here})"
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
