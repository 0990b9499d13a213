"""Does a stopper that judges nothing at the first rung, within the warm-up, do better?

    python benchmarks/first_rung.py

TPE with PA-SH and with PA-SH from the second rung on, replayed seed by seed on the phantom's table
as search_third.py replays it.
"""

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import search_curves
import search_third
from search_comparison import bootstrap
from search_efficiency import opened
from search_third import AT, HARDWARE, SHARE, Method, Noise, pash, tpe, versions

from search.study.stop import Costs, ParetoHalving

OUT = Path(__file__).parent / "results" / "first_rung.json"


class FromTheSecond(ParetoHalving):
    """Stop nothing at the first rung."""

    def decide(self, rung: int, dice: float, costs: Costs, trial: int) -> bool:
        if rung:
            return super().decide(rung, dice, costs, trial)
        self.remember(rung, dice, costs, trial)
        return True


METHODS = {
    "from the first rung": Method(tpe, pash),
    "from the second": Method(tpe, lambda table: FromTheSecond(len(table.steps))),
}


def main() -> None:
    """Replay both and write the differences in hypervolume, second less first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search_third.METHODS.update(METHODS)
    recorded = opened()
    budget = SHARE * len(recorded[1].flops)
    noise = Noise.of(recorded[1], search_curves.REPEATS)
    rows: dict[str, list[dict[str, Any]]] = {
        name: [search_third.run(name, seed, budget, noise, recorded) for seed in range(given.seeds)]
        for name in METHODS
    }
    first, second = (np.array([row["hypervolume"] for row in own]) for own in rows.values())
    leads = {
        f"{share:.3f}": vars(bootstrap(column, np.mean))
        for share, column in zip(AT, (second - first).T, strict=True)
    }
    content = {
        "date": datetime.date.today().isoformat(),
        "hardware": HARDWARE,
        "versions": versions(),
        "seeds": given.seeds,
        "budget": budget,
        "second_less_first": leads,
    }
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for share, found in leads.items():
        print(f"at {share} of the budget: {found}")


if __name__ == "__main__":
    main()
