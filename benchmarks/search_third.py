"""How much less than TPE does a search need that knows costs? Ceilings, and hundreds of replays.

    python benchmarks/search_third.py

Every seed of a search sees the table as another recording would have had it: with the noise of
training seeds that search_repeats.csv measured. What it would have shown as its front is scored by
the table as recorded. No anchors; the budget is 15 % of what the table cost. A run that was cut off
goes on where it was; `--seeds 0` writes the figures of what is there.
"""

import argparse
import datetime
import hashlib
import itertools
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import scipy
import search_curves
import sklearn
from curves import read_curves
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from quick_replay import (
    Dice,
    Drawable,
    OracleStopper,
    oracle_sampler,
    price_in,
    quick_replay,
)
from scipy.stats import kendalltau
from search_comparison import Interval, bootstrap
from search_efficiency import opened
from search_replay import Replay, Table

import search.study.cost_aware
from search.pareto import pareto_front
from search.space.objectives import Objectives
from search.space.samplers import CostAwareSpec
from search.study.cost_aware import CostAwareSampler
from search.study.stop import NeverStop, ParetoHalving, Stopper

OUT = Path(__file__).parent / "results" / "search_third.json"
SHARE = 0.15
"""The budget, as a share of the cost of the whole table."""
AT = (1 / 6, 1 / 3, 1 / 2, 1.0)
BASE, OURS = "TPE", "cost_aware"
CAPS = (0.25, 0.5, 1.0)
"""Quantiles of the table's FLOPs under which the Dice regret is taken."""
STUDY = Path(search.study.cost_aware.__file__).parent
HARDWARE = f"{platform.machine()}, CPU, one process; nothing is trained"
FROZEN = ("candidates.py", "cost_aware.py", "curve_model.py")
"""What was tuned on this table alone, before any other was replayed."""


@dataclass(frozen=True)
class Method:
    """A sampler, made from a seed, and a stopper.

    One that takes seconds per run is `slow`: it comes after the others.
    """

    sampler: Callable[[Drawable, Table, int], BaseSampler]
    stopper: Callable[[Table], Stopper]
    slow: bool = False


def none(table: Table) -> Stopper:
    return NeverStop()


def pash(table: Table) -> Stopper:
    return ParetoHalving(len(table.steps))


def tpe(known: Drawable, table: Table, seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def ours(known: Drawable, table: Table, seed: int) -> BaseSampler:
    price = price_in(known, table)
    return CostAwareSampler(CostAwareSpec(), price, Objectives(), table.steps, seed)


METHODS = {
    BASE: Method(tpe, none),
    "random": Method(lambda known, table, seed: RandomSampler(seed=seed), none),
    "TPE + PA-SH": Method(tpe, pash),
    OURS: Method(ours, none),
    "GP": Method(lambda known, table, seed: GPSampler(seed=seed), none, slow=True),
    "TPE + oracle stopper": Method(tpe, OracleStopper, slow=True),
    "cost_aware + PA-SH": Method(ours, pash, slow=True),
}


def versions() -> dict[str, str]:
    """Return what ran."""
    return {
        "python": platform.python_version(),
        **{m.__name__: m.__version__ for m in (optuna, np, scipy, sklearn)},
    }


def digest() -> str:
    """Return what names the sampler as it stands."""
    texts = [(STUDY / name).read_bytes() for name in FROZEN]
    options = CostAwareSpec().model_dump_json().encode()
    return hashlib.sha256(b"".join([*texts, options])).hexdigest()[:12]


@dataclass(frozen=True)
class Noise:
    """How the rungs of one network move together when it trains with other seeds."""

    covariance: np.ndarray
    networks: int

    @classmethod
    def of(cls, table: Table, path: Path) -> "Noise":
        """Take it from networks trained several times, the table's training among them."""
        curves: dict[str, list[tuple[float, ...]]] = {}
        for training, points in read_curves(path).items():
            known = curves.setdefault(training.name, [table.dice[training.name]])
            known.append(tuple(point.dice for point in points))
        residuals = [np.array(rows) - np.mean(rows, axis=0) for rows in curves.values()]
        freedom = sum(len(rows) - 1 for rows in residuals)
        stacked = np.vstack(residuals)
        return cls(stacked.T @ stacked / freedom, len(residuals))

    @property
    def deviations(self) -> list[float]:
        """Return the standard deviation at every rung."""
        return [round(float(x), 4) for x in np.sqrt(np.diag(self.covariance))]

    def seen(self, table: Table, seed: int) -> Dice:
        """Return the table as another recording might have it."""
        rng = np.random.default_rng([seed, 22])
        count = len(table.steps)
        drawn = rng.multivariate_normal(np.zeros(count), self.covariance, size=len(table.dice))
        return {
            name: tuple(np.clip(np.array(dice) + moved, 0, 1))
            for (name, dice), moved in zip(table.dice.items(), drawn, strict=True)
        }


def scores(table: Table, run: Replay, seen: Dice, budget: float) -> dict[str, list[float]]:
    """Return the hypervolume of what the search shows as its front, by share of its budget.

    And the Dice regret at the end under three caps of FLOPs.
    """
    shares, ends = [], []
    for share in AT:
        done = [name for when, name in run.done if when <= share * budget + 1e-9]
        points = [(table.point(name)[0], seen[name][-1]) for name in done]
        shares.append(table.share([done[index] for index in pareto_front(points)]))
    done = [name for when, name in run.done if when <= budget + 1e-9]
    flops = np.array(list(table.flops.values()))
    for quantile in CAPS:
        cap = np.quantile(flops, quantile)
        best = max(table.dice[name][-1] for name in table.flops if table.flops[name] <= cap)
        fit = [name for name in done if table.flops[name] <= cap]
        taken = max(fit, key=lambda name: seen[name][-1], default=None)
        ends.append(best - (table.reference[1] if taken is None else table.dice[taken][-1]))
    return {"hypervolume": shares, "regret": ends}


def run(
    name: str, seed: int, budget: float, noise: Noise, recorded: tuple[Drawable, Table]
) -> dict[str, Any]:
    """Replay a method with a seed."""
    known, table = recorded
    method, seen = METHODS[name], noise.seen(table, seed)
    sampler, stopper = method.sampler(known, table, seed), method.stopper(table)
    found = quick_replay(known, table, sampler, stopper, budget=budget, seen=seen)
    counts = {"trained": len(found.done), "stopped": len(found.stopped)}
    return {"method": name, "seed": seed, **counts, **scores(table, found, seen, budget)}


def taus(table: Table) -> list[dict[str, float]]:
    """Return Kendall's tau of every rung with the last, over all and within thirds of FLOPs."""
    names = sorted(table.flops, key=table.flops.__getitem__)
    dice = np.array([table.dice[name] for name in names])
    found = []
    for rung, step in enumerate(table.steps[:-1]):
        thirds = [kendalltau(part[:, rung], part[:, -1])[0] for part in np.array_split(dice, 3)]
        whole = kendalltau(dice[:, rung], dice[:, -1])[0]
        found.append({"step": step, "tau": float(whole), "within": float(np.mean(thirds))})
    return found


def compared(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return figures of every method over its seeds, and its lead on TPE, seed by seed."""
    by = {name: {r["seed"]: r for r in rows if r["method"] == name} for name in METHODS}
    found = {}
    for name, own in by.items():
        seeds = sorted(set(own) & set(by[BASE]))
        if not seeds:
            continue
        shares = np.array([own[seed]["hypervolume"] for seed in seeds])
        base = np.array([by[BASE][seed]["hypervolume"][-1] for seed in seeds])
        regret = np.array([own[seed]["regret"] for seed in seeds])
        found[name] = {
            "seeds": len(seeds),
            "hypervolume": [vars(bootstrap(column, np.mean)) for column in shares.T],
            "end_minus_base_end": vars(bootstrap(shares[:, -1] - base, np.mean)),
            "third_minus_base_end": vars(bootstrap(shares[:, 1] - base, np.mean)),
            "regret": [vars(bootstrap(column, np.mean)) for column in regret.T],
            "trained": float(np.mean([own[seed]["trained"] for seed in seeds])),
            "stopped": float(np.mean([own[seed]["stopped"] for seed in seeds])),
        }
    return found


def page(content: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    heads = ["method (seeds)", "1/6", "1/3", "1/2", "end", "1/3 minus TPE's end"]
    heads += ["end minus TPE's end", *(f"regret {cap}" for cap in CAPS), "trained + stopped"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, found in content["methods"].items():
        shares = [Interval(**one).text() for one in found["hypervolume"]]
        leads = [
            Interval(**found[key]).text("+.3f")
            for key in ("third_minus_base_end", "end_minus_base_end")
        ]
        regrets = [Interval(**one).text() for one in found["regret"]]
        counts = f"{found['trained']:.0f} + {found['stopped']:.0f}"
        lines.append(_row([f"{name} ({found['seeds']})", *shares, *leads, *regrets, counts]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def ceilings(table: Table, budget: float) -> dict[str, Any]:
    """Return what no search can beat on the table, and how well early rungs rank."""
    best = oracle_sampler(table, budget)
    steps = []
    for index, (spent, name) in enumerate(best.done):
        share = table.share([n for _, n in best.done[: index + 1]])
        steps.append({"spent": round(spent / budget, 4), "hypervolume": share, "network": name})
        if share > 1 - 1e-9:
            break
    return {"oracle_sampler": steps, "tau": taus(table)}


def replays(
    rows_file: Path, seeds: int, budget: float, noise: Noise, recorded: tuple[Drawable, Table]
) -> list[dict[str, Any]]:
    """Return the replays of the sampler as it stands; those that the file lacks are done."""
    rows_file.parent.mkdir(parents=True, exist_ok=True)
    sampler = digest()
    lines = rows_file.read_text(encoding="utf-8").splitlines() if rows_file.is_file() else []
    rows = [row for row in map(json.loads, lines) if row["sampler"] == sampler]
    done = {(row["method"], row["seed"]) for row in rows}
    jobs = itertools.product(range(seeds), METHODS.items())
    with rows_file.open("a", encoding="utf-8") as file:
        # seed by seed: whenever it is cut off, methods have the same seeds
        for seed, (name, _) in sorted(jobs, key=lambda job: job[1][1].slow):
            if (name, seed) not in done:
                found = run(name, seed, budget, noise, recorded)
                rows.append({"sampler": sampler, **found})
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    return rows


def main() -> None:
    """Replay what is missing, then write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=OUT)
    rows_file = Path(tempfile.gettempdir()) / "archspec-experiments" / "search_third.jsonl"
    parser.add_argument("--rows", type=Path, default=rows_file, help="a line per replay")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recorded = opened()
    table = recorded[1]
    budget = SHARE * len(table.flops)
    noise = Noise.of(table, search_curves.REPEATS)
    rows = replays(given.rows, given.seeds, budget, noise, recorded)
    content = {
        "date": datetime.date.today().isoformat(),
        "hardware": HARDWARE,
        "versions": versions(),
        "sampler": digest(),
        "options": CostAwareSpec().model_dump(mode="json"),
        "table": search_curves.CURVES.name,
        "budget": budget,
        "noise": {"networks": noise.networks, "deviations": noise.deviations},
        "ceilings": ceilings(table, budget),
        "methods": compared(rows),
    }
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(page(content))


if __name__ == "__main__":
    main()
