"""Does stopping pay? A search of toy networks, whose learning curves cross, on a fixed budget."""

import math
import random
from dataclasses import dataclass

import optuna
import pytest
from optuna.trial import TrialState

from search.pareto import hypervolume, pareto_front
from search.study.stop import NeverStop, ParetoHalving, Stopper

BUDGET = 60.0
"""In full trainings of an average network; starting a trial costs 0.02 of one."""
AVERAGE = 22.0
"""GFLOPs of networks drawn at random."""
SHARES = (1 / 27, 1 / 9, 1 / 3, 1.0)
MIXERS = {"conv": (1.0, 0.0, 3e-3), "mamba": (0.8, 0.03, 1e-3), "attention": (1.6, 0.035, 5e-4)}
MIXERS["identity"] = (0.3, -0.08, 2e-3)
"""Relative FLOPs, Dice gained, best learning rate."""


@dataclass(frozen=True)
class Toy:
    """A network: its GFLOPs, its Dice after full training without noise, how slowly it learns."""

    gflops: float
    dice: float
    slowness: float

    @staticmethod
    def suggest(trial: optuna.Trial) -> "Toy":
        flops, gain, rate = MIXERS[trial.suggest_categorical("mixer", list(MIXERS))]
        depth = trial.suggest_int("depth", 1, 4)
        width = trial.suggest_int("width", 8, 64, log=True)
        full = trial.suggest_categorical("decoder", ["light", "full"]) == "full"
        off = math.log10(trial.suggest_float("lr", 1e-4, 1e-1, log=True) / rate)
        gflops = 0.01 * width**2 * (0.4 + 0.6 * flops * depth) * (1.3 if full else 1.0)
        size = math.log10(gflops / 0.3) / math.log10(250 / 0.3)
        dice = 0.55 + 0.3 * (1 - math.exp(-2.2 * size)) + gain * min(1, 0.4 + size) + 0.02 * full
        dice -= 0.06 * off**2 if abs(off) < 1.2 else 0.4  # far too high a rate diverges
        return Toy(gflops, max(dice, 0.05), 0.06 + 0.12 * size)

    def observed(self, share: float, rng: random.Random) -> float:
        """Return the validation Dice after a share of the training; early ones are noisier."""
        grown = (1 - math.exp(-share / self.slowness)) / (1 - math.exp(-1 / self.slowness))
        noise = rng.gauss(0, 0.012 * (1 - share)) + rng.gauss(0, 0.006)
        return self.dice * grown + noise


def search(stopper: Stopper, seed: int) -> tuple[list[tuple[float, float]], float, int]:
    """Return (log10 GFLOPs, true Dice) of the front chosen by what was seen; the cost; trials."""
    rng = random.Random(seed)
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed)
    )
    spent, seen = 0.0, []
    while spent < BUDGET:
        trial = study.ask()
        toy = Toy.suggest(trial)
        full = 0.3 + 0.7 * toy.gflops / AVERAGE
        spent += 0.02
        before, cost = 0.0, math.log10(toy.gflops)
        for rung, share in enumerate(SHARES):
            dice = toy.observed(share, rng)
            spent, before = spent + full * (share - before), share
            if not stopper.decide(rung, dice, (cost,), trial.number):
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            seen.append((cost, dice, toy.dice))
            study.tell(trial, [dice, cost])
    front = pareto_front([(cost, dice) for cost, dice, _ in seen])
    return [(seen[i][0], seen[i][2]) for i in front], spent, len(study.trials)


@pytest.mark.long
def test_stopping_beats_full_training_for_the_same_budget() -> None:
    """T18: on at least 7 of 10 seeds, the budget being what was spent and not how many trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    wins = 0
    for seed in range(10):
        stopped, spent, many = search(ParetoHalving(len(SHARES)), seed)
        full, spent_full, few = search(NeverStop(), seed)
        assert max(spent, spent_full) < BUDGET + 8, "one training over at most"
        assert many > few
        reference = (math.log10(300), 0.3)
        wins += hypervolume(stopped, reference) > hypervolume(full, reference)
    assert wins >= 7
