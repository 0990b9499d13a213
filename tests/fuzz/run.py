"""Ask cases, in this process: what each ends in, and what it takes."""

import importlib
import random
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.places import reached, watch

MODULES = {"spec": "specs", "space": "spaces", "dataset": "datasets", "folder": "folders"}


@dataclass
class Finding:
    """What a case must not do."""

    case: str
    what: str


@dataclass
class Outcome:
    """What came of a chunk of cases."""

    kind: str
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: tuple[float, str] = (0.0, "")
    bytes: int = 0
    reached: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Take in what came of another chunk."""
        self.ends += other.ends
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        self.bytes = max(self.bytes, other.bytes)
        self.reached |= other.reached
        self.findings += other.findings


_imported = 0
"""Bytes that the imports of this process took."""


def prepare(kinds: Sequence[str]) -> None:
    """Import everything that cases of these kinds need, and measure from there."""
    global _imported
    watch()
    warnings.simplefilter("ignore")
    for kind in kinds:
        importlib.import_module(f"tests.fuzz.{MODULES[kind]}")
    if "folder" in kinds:  # what verbs import, they import when they are first asked
        with tempfile.TemporaryDirectory() as folder:
            importlib.import_module("tests.fuzz.folders").warm(Path(folder))
    from tests.fuzz.gauge import bound_memory, peak

    bound_memory()
    _imported = peak()


def chunk(kind: str, seed: int, numbers: range, *, timed: bool = True) -> Outcome:
    """Ask these cases in this process."""
    outcome = Outcome(kind)
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            ask(outcome, seed, number, Path(folder), timed=timed)
    outcome.reached |= reached
    return outcome


def ask(outcome: Outcome, seed: int, number: int, folder: Path, *, timed: bool = True) -> None:
    """Draw one case and ask it; what it ends in, and takes, goes into the outcome."""
    from blocks.errors import SpecError
    from tests.fuzz.cases import check_refusal
    from tests.fuzz.gauge import MAX_BYTES, MAX_SECONDS, EndlessError, measured, peak

    kind, name = outcome.kind, f"{outcome.kind}:{number}"
    random.seed(0)  # the product's own draws, if there are any
    generator = importlib.import_module(f"tests.fuzz.{MODULES[kind]}")
    try:
        case = generator.make(random.Random(f"{seed} {kind} {number}"), folder)
    except Exception as error:
        outcome.ends["wrong"] += 1
        outcome.findings.append(Finding(name, f"the generator: {_told(error)}"))
        return
    try:
        with measured() as taken:
            try:
                result = case.ask()
                end = result if isinstance(result, str) else "taken"
            except SpecError as error:
                check_refusal(error)
                end = "refused"
        if end == "taken":
            case.then(result)
    except (Exception, EndlessError) as error:
        end = "wrong"
        outcome.findings.append(Finding(name, _told(error)))
    outcome.ends[end] += 1
    outcome.seconds += taken.seconds
    outcome.slowest = max(outcome.slowest, (taken.seconds, name))
    used = peak() - _imported
    if timed and taken.seconds > MAX_SECONDS:
        outcome.findings.append(Finding(name, f"took {taken.seconds:.1f} s of CPU"))
    if used > MAX_BYTES > outcome.bytes:
        outcome.findings.append(Finding(name, f"took {used / 2**20:.0f} MiB"))
    outcome.bytes = max(outcome.bytes, used)


def _told(error: BaseException) -> str:
    """Return what was raised, and the last places on its way."""
    told = traceback.format_exception(error)
    return f"{told[-1].strip()[:600]}\n{''.join(told[-5:-1])}"
