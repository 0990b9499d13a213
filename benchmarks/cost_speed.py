"""How long costs take: a warm cost of search-sized and of bundled networks, and cold commands.

    python benchmarks/cost_speed.py --out benchmarks/results/cost_speed.json

Warm costs are medians of the process's CPU time over several runs; candidates are sampled from the
demo's search space. Commands run in fresh processes, beside `import torch` alone.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import torch

import archspec
from archspec.costs.flops import cost_plan
from archspec.network.plan import Plan, plan
from archspec.network.resolve import resolve
from search.space.space import load_space


def warm(planned: Plan, runs: int) -> float:
    """Return the median milliseconds of CPU time of one cost."""
    found = []
    for _ in range(runs + 1):
        start = time.process_time()
        cost_plan(planned)
        found.append((time.process_time() - start) * 1e3)
    return round(statistics.median(found[1:]), 1)


def cold(runs: int, *command: str) -> float:
    """Return the median wall seconds of a command in a fresh process."""
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - start)
    return round(statistics.median(found), 2)


def candidates(count: int) -> list[Plan]:
    """Return plans drawn at random from the demo's space."""
    space = load_space("demo")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [plan(space.suggest(study.ask())) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    program = (sys.executable, "-m", "archspec")
    found: dict[str, Any] = {
        "warm_ms": {
            "demo candidates, median": statistics.median(
                warm(planned, options.runs) for planned in candidates(10)
            ),
            **{name: warm(resolve(name), options.runs) for name in archspec.list_specs()},
        },
        "cold_seconds": {
            "import torch": cold(options.runs, sys.executable, "-c", "import torch"),
            "archspec --help": cold(options.runs, *program, "--help"),
            "archspec describe segmamba": cold(options.runs, *program, "describe", "segmamba"),
        },
        "runs": options.runs,
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(found, indent=1))
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
