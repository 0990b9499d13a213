"""How much of a front does a budget buy? Searches replayed over recorded trainings.

    python benchmarks/search_efficiency.py

Random, NSGA-II and TPE train every network to the end; ours is TPE with stopping at rungs. All run
in the loop of `archspec search`: no network is trained twice, a stopped one gives no point.
"""

import argparse
import datetime
import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import search_curves
from curves import read_curves
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from search_comparison import Interval, compare_searches
from search_replay import AnyStopper, Known, Replay, Table, replay

from archspec.costs.flops import CONVENTION
from search.space.space import load_space

OUT = Path(__file__).parent / "results" / "search_efficiency.json"
BASE = "TPE"


@dataclass(frozen=True)
class Method:
    """A sampler, made from a seed, and a stopper."""

    sampler: Callable[[int], BaseSampler]
    stopper: AnyStopper = "none"


METHODS = {
    "random": Method(lambda seed: RandomSampler(seed=seed)),
    # its default population of 50 would be one random generation here
    "NSGA-II": Method(lambda seed: NSGAIISampler(population_size=8, seed=seed)),
    BASE: Method(lambda seed: TPESampler(seed=seed)),
    "TPE + PA-SH": Method(lambda seed: TPESampler(seed=seed), "pash"),
    "TPE + MO-ASHA": Method(lambda seed: TPESampler(seed=seed), "moasha"),
}

NOTES = (
    "Hypervolume (log10 FLOPs, Dice) of the networks trained to the end, as a share of that of the "
    "table's front; reference: 1.1 x the highest FLOPs, the lowest Dice.",
    "Brackets: 95 % bootstrap over seeds; one recorded training per network, so the noise of "
    "training seeds is not in them. Dice is that of validation, as a search sees it.",
    "Cost: CPU seconds of start, steps and validations by a line in FLOPs each, in units of the "
    "table's average full training.",
)


@lru_cache(maxsize=1)
def opened() -> tuple[Known, Table]:
    """Return the recorded space and its table, read once per process."""
    space = load_space(search_curves.SPACE)
    seconds = search_curves.read_costs(search_curves.COSTS)
    return Known.of(space), Table.of(read_curves(search_curves.CURVES), seconds, space)


def run(name: str, seed: int, budget: float, anchors: bool) -> Replay:
    """Replay a method."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    method, (known, table) = METHODS[name], opened()
    sampler = method.sampler(seed)
    return replay(known, table, sampler, stopper=method.stopper, budget=budget, anchors=anchors)


_HEAD = (
    "method",
    *(f"hypervolume at {share} of the budget" for share in ("1/6", "1/3", "1/2")),
    "at the end",
    "minus TPE",
    "reaches TPE's end at (median seed)",
    "never",
    "mean curve reaches it at",
    "trained + stopped",
    "share of the table started (runs that used it up)",
    "runs that stopped a network of the front",
)


def page(content: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        f"{content['networks']} recorded networks on {content['task']}, "
        f"{content['front_size']} of them on the front; budget {content['budget']:g} average "
        f"trainings, {content['seeds']} seeds."
    ]
    for title, part in content["parts"].items():
        lines += ["", f"{title}:", "", _row(_HEAD), _row(["---"] * len(_HEAD))]
        lines += [_row(_cells(name, found)) for name, found in part.items()]
    return "\n".join([*lines, "", *content["notes"], ""])


def _cells(name: str, found: dict[str, Any]) -> list[str]:
    reached, seeds = found["reaches_base"], len(found["by_seed"])
    return [
        name,
        *(Interval(**one).text() for one in found["hypervolume"].values()),
        "" if name == BASE else Interval(**found["minus_base"]).text("+.3f"),
        Interval(**reached["median_share"]).text(".2f"),
        f"{reached['seeds_never']} of {seeds}",
        Interval(**reached["share_of_mean_curve"]).text(".2f"),
        f"{found['trained']:.0f} + {found['stopped']:.0f}",
        f"{found['share_of_table_started']:.2f} ({found['runs_dry']})",
        f"{found['runs_that_stopped_a_front_network']} of {seeds}",
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Replay every method with every seed, with and without anchors; write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=24.0, help="average full trainings")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    began = time.monotonic()
    _, table = opened()
    parts = {}
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for title, anchors in (("The space's anchors first", True), ("Without anchors", False)):
            jobs = [(n, s, given.budget, anchors) for n in METHODS for s in range(given.seeds)]
            done = iter(pool.starmap(run, jobs, chunksize=1))
            runs = {name: [next(done) for _ in range(given.seeds)] for name in METHODS}
            parts[title] = compare_searches(table, runs, given.budget, base=BASE)
    training = next(iter(read_curves(search_curves.CURVES)))
    seconds = search_curves.read_costs(search_curves.COSTS)
    content = {
        "date": datetime.date.today().isoformat(),
        "hardware": f"{platform.machine()}, CPU; nothing is trained",
        "versions": {
            "python": platform.python_version(),
            "optuna": optuna.__version__,
            "numpy": np.__version__,
        },
        "convention": CONVENTION,
        "curves": search_curves.CURVES.name,
        "task": f"{training.task} {training.level}",
        "networks": len(table.flops),
        "steps": table.steps,
        "front_size": len(table.front),
        "front": {n: {"flops": table.flops[n], "dice": table.dice[n]} for n in table.front},
        "reference": table.reference,
        "cost_seconds": {**vars(table.cost), "median_relative_error": table.misfit(seconds)},
        "seeds": given.seeds,
        "budget": given.budget,
        "base": BASE,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "parts": parts,
        "notes": NOTES,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    given.out.with_suffix(".txt").write_text(page(content), encoding="utf-8")
    print(page(content))


if __name__ == "__main__":
    main()
