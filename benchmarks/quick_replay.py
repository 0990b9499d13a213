"""Replay recorded trainings by ask and tell alone: what `search_replay` does, many times as fast.

Draws, stopping and spending are those of the loop of `archspec search`, which a test holds it to;
what it leaves out are files, hashes and messages. So hundreds of seeds are at hand.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import BaseTrial, TrialState
from search_curves import name_of
from search_replay import Replay, Table

from search.space.holes import Hole
from search.study.candidates import Price
from search.study.end import End
from search.study.stop import Costs, NeverStop, Stopper
from search.study.trial_record import JudgedRung, TrialRecord, write

_MAX_REPEATS = 100

Dice = Mapping[str, tuple[float, ...]]
"""What a search sees, by network and rung."""


class Drawable(Protocol):
    """A space of plain choices, as far as a replay needs it."""

    @property
    def open_holes(self) -> list[Hole]: ...


@dataclass
class OracleStopper(NeverStop):
    """A ceiling: stop at the first rung what would add nothing to what was trained so far."""

    table: Table
    names: dict[int, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def decide(self, rung: int, dice: float, costs: Costs, trial: int) -> bool:
        name = self.names[trial]
        if rung > 0:
            return True
        worth = self.table.share([*self.done, name]) > self.table.share(self.done) + 1e-9
        self.done += [name] * worth
        return worth


def drawn_name(known: Drawable, trial: BaseTrial) -> str:
    """Return the name of the network that the trial draws."""
    return name_of({hole.name: hole.suggest(trial) for hole in known.open_holes})


def price_in(known: Drawable, table: Table) -> Price:
    """Return what prices a network of the table for our sampler."""

    def price(trial: BaseTrial) -> Mapping[str, float]:
        return {"flops": float(table.flops[drawn_name(known, trial)])}

    return price


def quick_replay(
    known: Drawable,
    table: Table,
    sampler: BaseSampler,
    stopper: Stopper,
    *,
    budget: float,
    seen: Dice | None = None,
) -> Replay:
    """Search without anchors for a budget of average trainings; `seen` stands in for the table."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    dice, found, tried, repeats = seen or table.dice, Replay(), set[str](), 0
    while found.spent < budget and repeats < _MAX_REPEATS and len(tried) < len(table.flops):
        trial = study.ask()
        name = drawn_name(known, trial)
        if name in tried:
            repeats += 1
            write(trial, TrialRecord(end=End.REPEATED))
            study.tell(trial, state=TrialState.PRUNED)
            continue
        repeats = 0
        tried.add(name)
        if isinstance(stopper, OracleStopper):
            stopper.names[trial.number] = name
        costs, before = (math.log10(table.flops[name]),), found.spent
        rungs: list[JudgedRung] = []
        for index, step in enumerate(table.steps):
            at = dice[name][index]
            found.spent = before + table.cost_until(name, index)
            goes_on = stopper.decide(index, at, costs, trial.number)
            seconds = found.spent - before
            rungs.append(JudgedRung(step, {"mean": at}, loss=0.0, seconds=seconds))
            if not goes_on:
                break
        whole = len(rungs) == len(table.steps)
        record = TrialRecord(flops=table.flops[name], rungs=tuple(rungs))
        if whole:
            write(trial, record)
            study.tell(trial, [dice[name][-1], *costs])
            found.done.append((found.spent, name))
        else:
            write(trial, TrialRecord(flops=record.flops, rungs=record.rungs, end=End.STOPPED))
            study.tell(trial, state=TrialState.PRUNED)
            found.stopped.append((found.spent, name))
    return found


def oracle_sampler(table: Table, budget: float) -> Replay:
    """Return the ceiling of all samplers: always the network that adds most per cost."""
    found, left = Replay(), set(table.flops)
    while left and found.spent < budget:
        names = [name for _, name in found.done]
        before = table.share(names)
        name = max(
            sorted(left),
            key=lambda n: (
                (table.share([*names, n]) - before) / table.cost_until(n, len(table.steps) - 1)
            ),
        )
        found.spent += table.cost_until(name, len(table.steps) - 1)
        found.done.append((found.spent, name))
        left.remove(name)
    return found
