"""What a verdict holds and says: an answer, the figures that it rests on, and where these stand."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from archspec.scoring.statistics import Interval
from archspec.text import table
from search.study.protocol import Protocol
from search.verdict.answers import POINTS
from search.verdict.rule import LEVEL, Answer, Needed

_LEGEND = (
    "searched: validation Dice by which it was chosen; test: mean over new seeds",
    "memory: estimate for a training step",
)


@dataclass(frozen=True)
class Rows:
    """Where a figure stands in the run: lines of a file, or a trial of the study."""

    file: str
    lines: tuple[int, ...] = ()
    trial: int | None = None

    def text(self) -> str:
        """Return it in words."""
        if self.trial is not None:
            return f"{self.file}, trial {self.trial}"
        lines = ", ".join(map(str, self.lines))
        return f"{self.file}, line{'s' * (len(self.lines) > 1)} {lines}" if lines else self.file


@dataclass(frozen=True)
class Compared:
    """A network in the comparison; `share` is its weight on its side of the difference.

    `name` is what it is where the space did not draw it.
    `searched` is the validation Dice by which it was chosen, `dice` that on the test cases.
    `latency` is in calibrations, None where it was not measured; `memory` is the estimate in bytes
    for a training step.
    """

    trial: int
    name: str
    is_candidate: bool
    share: float
    gflops: float
    latency: float | None
    params: int
    memory: int
    searched: float
    dice: float
    by_seed: tuple[float, ...]
    rows: tuple[Rows, ...]


@dataclass(frozen=True)
class Verdict:
    """One answer about a run.

    `difference` is the candidate's Dice less that of what it is compared with, `memory` its memory
    over theirs; None where there is no candidate. `units` are persons, or cases where no file says
    whose they are. `needed` says what would decide, where nothing is decided.
    """

    run: str
    answer: Answer
    sentence: str
    reasons: tuple[str, ...]
    protocol: Protocol
    unit: str
    units: int
    difference: Interval | None
    memory: float | None
    needed: Needed | None
    compared: tuple[Compared, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the answer, what was compared, and why, for a terminal of 80 columns."""
        named = [f"trial {one.trial}: {one.name}" for one in self.compared if one.name]
        compared = [*table(self._rows()), *named, *_LEGEND, ""] if self.compared else []
        told = [self.sentence, "", *compared, *self.reasons, *self.notes, self._made()]
        return "\n".join(_wrapped(line) for line in told)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; ends of an interval that are not known are null."""
        found = self.difference
        known = None if found is None else {k: _known(v) for k, v in found._asdict().items()}
        protocol = {**asdict(self.protocol), "test_cases": list(self.protocol.test_cases)}
        return {
            "run": self.run,
            "answer": self.answer,
            "sentence": self.sentence,
            "reasons": list(self.reasons),
            "protocol": protocol,
            "unit": self.unit,
            "units": self.units,
            "level": LEVEL,
            "difference": known,
            "memory": self.memory,
            "needed": None if self.needed is None else self.needed.to_json(),
            "compared": [_plain(one) for one in self.compared],
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """Return the page; its links are relative to the run's folder."""
        protocol = self.protocol
        head, *rows = self._rows()
        columns = [*head, "network", "rows"]
        lines = [
            f"# Verdict: {_cell(protocol.dataset)}",
            "",
            f"**{_cell(self.sentence)}**",
            "",
            *(f"- {_cell(reason)}" for reason in (*self.reasons, *self.notes)),
            "",
        ]
        if self.compared:
            lines += ["## What was compared", "", _row(columns), _row(["---"] * len(columns))]
        for row, one in zip(rows, self.compared, strict=True):
            links = "; ".join(_link(rows) for rows in one.rows)
            name = one.name or ("the spec" if one.is_candidate else "the rival")
            lines.append(_row([*map(_cell, [*row, name]), links]))
        if self.compared:
            lines += ["", *(f"{line}  " for line in _LEGEND), ""]
        lines += [
            "## What it rests on",
            "",
            f"- {self._made()}",
            f"- Margin {POINTS * protocol.margin:g} Dice points, {protocol.seeds} seeds, "
            f"{len(protocol.test_cases)} test cases: [protocol.lock](protocol.lock), "
            f"`{protocol.digest}`, written before the first training",
            "- How the rule decides: docs/verdict.md of archspec",
            "",
        ]
        return "\n".join(lines)

    def _rows(self) -> list[list[str]]:
        """Return the table's head and a row for each network, of Dice in points."""
        latency = any(one.latency is not None for one in self.compared)
        head = ["trial", "GFLOPs", *(["latency"] if latency else [])]
        rows = [[*head, "params", "memory MB", "searched", "test", "by seed"]]
        for one in self.compared:
            row = [str(one.trial), f"{one.gflops:.3f}"]
            if latency:
                row.append("-" if one.latency is None else f"{one.latency:.3g}")
            row += [f"{one.params:,}", f"{one.memory / 1e6:,.1f}"]
            row += [f"{POINTS * one.searched:.1f}", f"{POINTS * one.dice:.1f}"]
            rows.append([*row, " ".join(f"{POINTS * dice:.1f}" for dice in one.by_seed)])
        return rows

    def _made(self) -> str:
        protocol = self.protocol
        return (
            f"{protocol.dataset}, {protocol.configuration or 'own cases'}, fold {protocol.fold}, "
            f"after {protocol.steps:,} steps: {protocol.metric} x 100 on {self.units} test "
            f"{self.unit}{'s' * (self.units != 1)}"
        )


def _wrapped(line: str) -> str:
    """Return a line of a paragraph in lines of at most 80 characters; a table's stays."""
    if line.startswith(" ") or "  " in line:
        return line
    return textwrap.fill(line, 80, break_long_words=False, break_on_hyphens=False)


def _plain(one: Compared) -> dict[str, Any]:
    rows = [{**asdict(row), "lines": list(row.lines)} for row in one.rows]
    return {**asdict(one), "by_seed": list(one.by_seed), "rows": rows}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _link(rows: Rows) -> str:
    target = rows.file.replace(" ", "%20")
    anchor = f"#L{rows.lines[0]}" if rows.lines else ""
    return f"[{rows.text()}]({target}{anchor})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Return the text with what Markdown would read as its own made harmless."""
    found = "".join(f"\\{letter}" if letter in "\\|[]*_<>`#" else letter for letter in text)
    return found.replace("\n", " ")
