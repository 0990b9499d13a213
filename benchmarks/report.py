"""Conduct experiments and write their result: JSON with the machine, and the same as text."""

import argparse
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import phantom_data
import torch
from experiment import Bench, Budget, Runner, Tables
from verdicts import MetricDifference, Row, differences, rows, text

from archspec.costs.flops import CONVENTION
from blocks.scan.dispatch import chosen

RESULTS = Path(__file__).parent / "results"


def options(description: str, name: str) -> argparse.ArgumentParser:
    """Return the arguments that experiments share."""
    parser = argparse.ArgumentParser(description=description)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="for two CPU cores (the default)")
    size.add_argument("--full", action="store_true", help="five seeds, all levels; for a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes of one thread")
    parser.add_argument("--minutes", type=float, help="stop after this; quick has 28")
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, help="instead of the setting's")
    parser.add_argument("--steps", type=int, help="instead of the setting's")
    parser.add_argument("--match", choices=["macs", "latency"], default="macs")
    work = Path(tempfile.gettempdir()) / "archspec-experiments"
    parser.add_argument("--work", type=Path, default=work, help="data and checkpoints")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--curves", type=Path, default=RESULTS / "curves.csv")
    return parser


def conduct(
    given: argparse.Namespace,
    experiments: Mapping[str, tuple[Callable[[], list[Bench]], Sequence[tuple[str, str]]]],
    budget: Budget,
    notes: Sequence[str],
) -> None:
    """Make the data, run what is missing, and write the tables with the pairs' differences."""
    began = time.monotonic()
    phantom_data.enter(given.work)
    runner = _runner(given)
    budget = replace(budget, seeds=given.seeds or budget.seeds, steps=given.steps or budget.steps)
    parts = {}
    for name, (make, pairs) in experiments.items():
        benches = _chosen_arms(make(), given.arms)
        runner.run(benches, budget)
        table = [row for bench in benches for row in rows(bench, budget, runner)]
        parts[name] = (budget, table, differences(table, pairs, seed=0))
    _write(given, parts, runner, minutes=(time.monotonic() - began) / 60, notes=notes)


def _chosen_arms(benches: Sequence[Bench], names: Sequence[str] | None) -> list[Bench]:
    """Return the benches with the named arms only, or with all."""
    return [
        replace(bench, arms=tuple(arm for arm in bench.arms if names is None or arm.name in names))
        for bench in benches
    ]


def _runner(given: argparse.Namespace) -> Runner:
    """Return a runner over the tables that the arguments name."""
    cases = given.out.with_name(f"{given.out.stem}_cases.csv")
    checkpoints = given.work / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    return Runner(
        Tables(given.curves, cases),
        checkpoints,
        jobs=given.jobs,
        device=given.device,
        minutes=28 if given.minutes is None and not given.full else given.minutes,
    )


def _write(
    given: argparse.Namespace,
    parts: dict[str, tuple[Budget, Sequence[Row], Sequence[MetricDifference]]],
    runner: Runner,
    *,
    minutes: float,
    notes: Sequence[str],
) -> None:
    """Write the result beside its text, and print the text."""
    previous = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
    content: dict[str, Any] = {
        "setting": "full" if given.full else "quick",
        "convention": CONVENTION,
        "date": datetime.date.today().isoformat(),
        "hardware": _hardware(given.device),
        "jobs": given.jobs,
        "minutes_of_last_call": round(minutes, 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "scan_backend": chosen(torch.device(given.device)),
        "curves": given.curves.name,
        "test_scores": runner.tables.cases_file.name,
        "matched": given.match,
        "notes": list(notes),
        "not_done": runner.skipped,
        "failed": runner.failed,
        "experiments": {
            **previous.get("experiments", {}),
            **{k: _part(*v) for k, v in parts.items()},
        },
    }
    page = "\n".join(_page(name, *part) for name, part in parts.items())
    page += "\n".join(notes) + "\n"
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    given.out.with_suffix(".txt").write_text(page, encoding="utf-8")
    print(f"\n{page}")
    for line in (*runner.failed, *(f"not done: {title}" for title in runner.skipped)):
        print(line)


def _part(
    budget: Budget, table: Sequence[Row], found: Sequence[MetricDifference]
) -> dict[str, Any]:
    return {
        "seeds": budget.seeds,
        "steps": budget.steps,
        "rungs": budget.rung_steps,
        "rates": budget.rates,
        "rate_chosen_at_step": budget.rung_steps[budget.choose_at - 1],
        "batch_size": budget.batch_size,
        "rows": [row.tree() for row in table],
        "differences": [vars(difference) for difference in found],
    }


def _page(
    name: str, budget: Budget, table: Sequence[Row], found: Sequence[MetricDifference]
) -> str:
    head = f"{name}: {budget.steps} steps of {budget.batch_size} patches, {budget.seeds} seeds\n"
    return f"{head}\n{text(table, found)}"


def _hardware(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
