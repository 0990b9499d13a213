"""Which networks of a run a verdict compares: chosen by what the search saw, before any test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from archspec.spec.load import load
from archspec.text import command_line
from blocks.errors import SpecError
from blocks.registry import kind_of
from search.space.objectives import CostName
from search.space.references import reference_of
from search.study.end import End
from search.study.protocol import LOCK, Protocol
from search.study.trial_record import TrialRecord, end_of

SLACK = 1.05
"""A cost up to 5 % above another counts as equal to it."""
_CONV, _NOTHING = "conv", "identity"


@dataclass(frozen=True)
class Contest:
    """The network in question and its rivals, cheapest first; no candidate where none qualifies.

    Rivals are what nnU-Net planned, by width; for a mixer, the one network of convolutions.
    `considered` are the trials that the candidate was the best of, or would have been.
    """

    candidate: FrozenTrial | None
    rivals: tuple[FrozenTrial, ...]
    considered: int

    @property
    def trials(self) -> list[FrozenTrial]:
        """Return all that are compared."""
        return [*self.rivals, *([] if self.candidate is None else [self.candidate])]


def needed(folder: Path, protocol: Protocol | None) -> Protocol:
    """Return the protocol, which a verdict cannot do without.

    Raises:
        SpecError: there is none.
    """
    if protocol is None:
        raise SpecError(
            f"has no {LOCK}, which a search writes before its first training where test cases are "
            "held out",
            where=folder,
            suggestion="a new run has one: archspec verdict --data ... --hours ... --out ...",
        )
    return protocol


def contest(folder: Path, study: optuna.Study, protocol: Protocol) -> Contest:
    """Choose by the search's validation Dice alone, which no test case is part of.

    The candidate is the best network that nnU-Net did not plan and that costs at most as much as
    the dearest that it did. For a mixer it is the best drawn network with that mixer alone (beside
    convolution and identity), and its rival the best with convolutions alone that costs at most as
    much as it.

    Raises:
        SpecError: there is nothing to compare with, or nothing to compare.
    """
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if end_of(trial) in (End.COMPLETED, End.STOPPED) and cost_of(trial, protocol.cost)
    ]
    if protocol.mixer is not None:
        return _of_mixer(folder, trials, protocol, protocol.mixer)
    rivals = _curve(trials, protocol.cost)
    if not rivals:
        raise SpecError(
            "none of its trials is a network that nnU-Net planned, so there is no width curve",
            where=folder,
            suggestion="give the space anchors: {plans: nnUNetPlans}, {plans: nnUNetPlans, "
            "width: 8}",
        )
    searched = [one for one in _completed(trials) if not _is_planned(one)]
    if not searched:
        raise SpecError("no network of the space was trained to the end", where=folder)
    dearest = cost_of(rivals[-1], protocol.cost)
    return Contest(_best(searched, protocol.cost, dearest), rivals, len(searched))


def cost_of(trial: FrozenTrial, cost: CostName) -> float:
    """Return what the trial's network costs, 0 where that is not known."""
    return TrialRecord.of(trial).cost(cost) or 0.0


def dice_of(trial: FrozenTrial) -> float:
    """Return the validation Dice that the search saw last."""
    last = TrialRecord.of(trial).last
    return trial.values[0] if trial.values else last.dice if last is not None else 0.0


def _curve(trials: Sequence[FrozenTrial], cost: CostName) -> tuple[FrozenTrial, ...]:
    """Return the planned networks of the first plans that were tried, of equal cost the best.

    Those that were stopped are among them: one training is no proof that a rival is weak.
    """
    planned = [one for one in trials if _is_planned(one)]
    names = [reference.name for one in planned if (reference := reference_of(one)) is not None]
    found: dict[float, FrozenTrial] = {}
    for trial, name in zip(planned, names, strict=True):
        price = cost_of(trial, cost)
        if name == names[0] and (price not in found or dice_of(trial) > dice_of(found[price])):
            found[price] = trial
    return tuple(found[price] for price in sorted(found))


def _of_mixer(
    folder: Path, trials: Sequence[FrozenTrial], protocol: Protocol, mixer: str
) -> Contest:
    drawn = [one for one in _completed(trials) if reference_of(one) is None]
    kinds = {one.number: _mixers(folder, one) for one in drawn}
    own = [one for one in drawn if kinds[one.number] - {_CONV, _NOTHING} == {mixer}]
    candidate = _best(own, protocol.cost)
    if candidate is None:
        raise SpecError(
            f"no network whose mixers are {mixer} (beside {_CONV} and {_NOTHING}) was trained to "
            "the end",
            where=folder,
        )
    others = [one for one in drawn if kinds[one.number] in ({_CONV}, {_CONV, _NOTHING})]
    rival = _best(others, protocol.cost, cost_of(candidate, protocol.cost))
    if rival is None:
        raise SpecError(
            f"no network of convolutions that costs at most as much as trial {candidate.number} "
            f"was trained to the end, to compare {mixer} with",
            where=folder,
            suggestion=command_line("archspec", "search", "...", "--resume", "--out", folder)
            + " tries more",
        )
    return Contest(candidate, (rival,), len(own))


def _mixers(folder: Path, trial: FrozenTrial) -> set[str]:
    """Return the kinds of mixer of a trial's network; none of a library's network."""
    spec = load(folder / "trials" / f"{trial.number:04d}" / "spec.yaml")
    if spec.network is not None:
        return set()
    return {kind_of(type(mixer)) for stage in spec.encoder.stages for mixer in stage.mixers()}


def _completed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [one for one in trials if end_of(one) is End.COMPLETED]


def _is_planned(trial: FrozenTrial) -> bool:
    reference = reference_of(trial)
    return reference is not None and reference.kind == "plans"


def _best(
    trials: Sequence[FrozenTrial], cost: CostName, most: float = float("inf")
) -> FrozenTrial | None:
    """Return the one with the highest Dice within the cost; of equal ones the cheaper."""
    within = [one for one in trials if cost_of(one, cost) <= most * SLACK]
    return max(within, key=lambda one: (dice_of(one), -cost_of(one, cost)), default=None)
