"""Ask for what no one would, and see that nothing but an answer or a refusal comes back.

Every case is drawn by its kind and number alone, so that one can be asked again:

    python -m tests.fuzz --only spec:1234 --keep build/case

Exit code 1 where a case ended in anything else, took more than 2 s of CPU or 1 GiB beyond the
imports, or where less than 90 % of the places that refuse in loader and plan were reached. A sample
is too small for the last, and judges no clock, so that it says the same on every machine.
"""

import argparse
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tests.fuzz.places import LOADER_AND_PLAN, SPACES, places
from tests.fuzz.run import Finding, Outcome, ask, chunk, prepare

KINDS = {"spec": 20_000, "space": 5_000, "dataset": 2_000, "folder": 300}
"""How many cases of each kind a whole run has."""
_SHARE = 0.9
_CHUNKS = {"spec": 100, "space": 25, "dataset": 100, "folder": 10}


def run(
    counts: dict[str, int], seed: int, jobs: int, first: int = 0, *, timed: bool = True
) -> dict[str, Outcome]:
    """Ask all cases, the slowest kind first."""
    chunks = [
        (kind, range(start, min(start + _CHUNKS[kind], first + count)))
        for kind, count in reversed(counts.items())
        for start in range(first, first + count, _CHUNKS[kind])
    ]
    outcomes = {kind: Outcome(kind) for kind in counts}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, prepare, (list(counts),)) as pool:
        waiting = {
            pool.submit(chunk, kind, seed, numbers, timed=timed): (kind, numbers)
            for kind, numbers in chunks
        }
        for count, done in enumerate(as_completed(waiting), start=1):
            kind, numbers = waiting[done]
            print(f"{count}/{len(waiting)} {kind}", file=sys.stderr, flush=True)
            try:
                outcomes[kind].add(done.result())
            except BrokenProcessPool:
                what = "a process died in one of these or the next ones"
                outcomes[kind].findings.append(Finding(f"{kind}:{numbers.start}", what))
    return outcomes


def summary(outcomes: dict[str, Outcome], seed: int, wall: float) -> dict[str, Any]:
    """Return the figures of a run."""
    found = set().union(*(one.reached for one in outcomes.values()))
    asked = {"loader and plan": places(LOADER_AND_PLAN), "spaces": places(SPACES)}
    names = ("numpy", "optuna", "pydantic", "pyyaml", "torch")
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in names},
        },
        "seed": seed,
        "wall_minutes": round(wall / 60, 1),
        "cases": {
            kind: {
                "asked": sum(one.ends.values()),
                **{end: one.ends[end] for end in ("taken", "refused", "wrong")},
                "cpu_seconds": round(one.seconds, 1),
                "slowest": {"cpu_seconds": round(one.slowest[0], 2), "case": one.slowest[1]},
                "mib_beyond_imports": round(one.bytes / 2**20),
            }
            for kind, one in outcomes.items()
        },
        "places_that_refuse": {
            part: {
                "all": len(every),
                "reached": len(every & found),
                "not_reached": sorted(every - found),
            }
            for part, every in asked.items()
        },
        "findings": [vars(one) for outcome in outcomes.values() for one in outcome.findings],
    }


def _cpu() -> str:
    """Return the processor's name as Linux knows it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def one_case(name: str, seed: int, keep: Path) -> int:
    """Ask one case here, and leave what it was asked with."""
    kind, _, number = name.partition(":")
    prepare([kind])
    keep.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(kind)
    ask(outcome, seed, int(number), keep)
    print(dict(outcome.ends), f"{outcome.seconds:.2f} s of CPU", keep)
    for one in outcome.findings:
        print(one.what)
    return int(bool(outcome.findings))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of a whole run")
    parser.add_argument("--sample", action="store_true", help="a hundredth of them, untimed")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--only", help="ask one case, e.g. spec:1234")
    parser.add_argument("--keep", type=Path, help="an empty folder for what --only asks with")
    given = parser.parse_args()
    if given.only:
        keep = given.keep or Path(tempfile.mkdtemp(prefix="case-"))
        if keep.exists() and any(keep.iterdir()):
            parser.error(f"--keep {keep}: not empty")
        return one_case(given.only, given.seed, keep)
    start = time.monotonic()
    share, jobs = (0.01, 1) if given.sample else (given.share, given.jobs)
    counts = {kind: max(1, round(KINDS[kind] * share)) for kind in given.kinds}
    outcomes = run(counts, given.seed, jobs, given.first, timed=not given.sample)
    told = summary(outcomes, given.seed, time.monotonic() - start)
    text = json.dumps(told, indent=2)
    print(text)
    if given.out:
        given.out.write_text(f"{text}\n", encoding="utf-8")
    part = told["places_that_refuse"]["loader and plan"]
    enough = part["reached"] >= _SHARE * part["all"] or given.sample or "spec" not in given.kinds
    return int(bool(told["findings"]) or not enough)


if __name__ == "__main__":
    sys.exit(main())
