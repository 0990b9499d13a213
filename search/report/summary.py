"""What a report says of a run as a whole: hypervolume, budget, counts, and diffs to one network."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from archspec.costs.diff import changes, diff_plans
from archspec.costs.flops import cost_plan
from archspec.drawing.draw import draw_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, plan
from archspec.spec.load import validate
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import parse
from blocks.base import SpecError
from search.pareto import hypervolume, pareto_front
from search.report.trials import STATES, ReportTrial

Change = tuple[str, str, str]


@dataclass(frozen=True)
class HypervolumePoint:
    """The front's hypervolume once `trials` trials had ended and `seconds` were trained."""

    trials: int
    seconds: float
    hypervolume: float


@dataclass(frozen=True)
class HypervolumeHistory:
    """Decades of FLOPs x Dice that the front dominates, seen from (`reference_gflops`, Dice 0)."""

    reference_gflops: float
    reference_text: str
    points: tuple[HypervolumePoint, ...]


def hypervolume_history(
    trials: Sequence[ReportTrial], max_gflops: float | None
) -> HypervolumeHistory:
    """Return the hypervolume after each trial that ended, in the order in which they ended.

    The reference costs what the limit allows, else 1.1 times the dearest network trained to the
    end, so that this one adds something too.
    """
    costs = [trial.gflops for trial in trials if trial.done and trial.gflops]
    if max_gflops is not None:
        reference, text = max_gflops, "the limit on GFLOPs"
    else:
        reference = 1.1 * max(costs, default=1.0)
        text = "1.1 times the dearest network trained to the end"
    corner = (math.log10(reference), 0.0)
    ended = [trial for trial in trials if trial.trained or trial.state == "lost"]
    ended.sort(key=lambda t: (t.ended is None, (t.ended and t.ended.isoformat()) or "", t.number))
    points: list[HypervolumePoint] = []
    front: list[tuple[float, float]] = []
    count, seconds = 0, 0.0
    for trial in ended:
        seconds += trial.seconds
        if not trial.trained:
            continue
        count += 1
        if trial.done and trial.gflops and trial.dice is not None:
            front.append((math.log10(trial.gflops), trial.dice))
            front = [front[index] for index in pareto_front(front)]
        points.append(HypervolumePoint(count, seconds, hypervolume(front, corner)))
    return HypervolumeHistory(reference, text, tuple(points))


@dataclass(frozen=True)
class Spent:
    """How many trials came to one end, or to one machine, and the seconds of training them."""

    state: str
    count: int
    seconds: float


def budget(trials: Sequence[ReportTrial]) -> list[Spent]:
    """Return what went where, by state, for the states that occur."""
    by_state = {state: [t for t in trials if t.state == state] for state in STATES}
    return [
        Spent(state, len(found), sum(t.seconds for t in found))
        for state, found in by_state.items()
        if found
    ]


def machines(trials: Sequence[ReportTrial]) -> list[Spent]:
    """Return what each machine of a cluster trained, by its name with GPU and precision."""
    names = sorted({trial.machine for trial in trials if trial.machine})
    by_name = {name: [trial for trial in trials if trial.machine == name] for name in names}
    return [
        Spent(name, len(found), sum(trial.seconds for trial in found))
        for name, found in by_name.items()
    ]


def reasons(trials: Sequence[ReportTrial]) -> list[tuple[str, str, int]]:
    """Return (state, reason, how many) of the trials without a result, the commonest first."""
    counts = Counter(
        (trial.state, trial.cause) for trial in trials if not trial.done and trial.reason
    )
    ordered = sorted(
        counts.items(), key=lambda item: (STATES.index(item[0][0]), -item[1], item[0][1])
    )
    return [(state, reason, count) for (state, reason), count in ordered]


class Differences:
    """What each network changes against one: the first anchor, else the first that was trained.

    `sizes` are those of the run's networks, where it noted them.
    """

    def __init__(self, trials: Sequence[ReportTrial], sizes: InputSizes | None) -> None:
        built = [trial for trial in trials if trial.spec is not None]
        anchors = [trial for trial in built if trial.anchor]
        self.base = next(iter(anchors or built), None)
        self._sizes = sizes
        self._specs = {trial.number: spec_of(trial) for trial in built}

    def changes(self, trial: ReportTrial) -> list[Change]:
        """Return (where, before, after); nothing where a spec is missing or cannot be read."""
        a, b = self._pair(trial)
        return [] if a is None or b is None else changes(a, b)

    def page(self, trial: ReportTrial) -> str | None:
        """Return the differences with their costs, which takes a trace of each; None as above."""
        a, b = (self._planned(spec) for spec in self._pair(trial))
        return None if a is None or b is None else diff_plans(a, b).text()

    def drawing(self, trial: ReportTrial) -> str | None:
        """Return the network as an SVG for the page, None where its sizes are not known."""
        planned = self._planned(self._specs.get(trial.number))
        return None if planned is None else draw_plan(planned).inline()

    def flops_by_kind(self, trial: ReportTrial) -> dict[str, int]:
        """Return the FLOPs by kind of operation; multiply-adds and scan where no size is known."""
        planned = self._planned(self._specs.get(trial.number))
        if planned is not None:
            kinds = cost_plan(planned).by_kind
            counts = {k: n if k == "scan" else 2 * n for k, n in kinds.items() if n}
            if sum(counts.values()) == trial.costs.flops:  # else a release counted otherwise
                return counts
        return {"multiply-adds": 2 * (trial.costs.macs or 0), "scan": trial.costs.scan_flops or 0}

    def _pair(self, trial: ReportTrial) -> tuple[ArchSpec | None, ArchSpec | None]:
        base = None if self.base is None else self._specs.get(self.base.number)
        return base, self._specs.get(trial.number)

    def _planned(self, spec: ArchSpec | None) -> Plan | None:
        if spec is None or self._sizes is None:
            return None
        try:
            return plan(spec, self._sizes)
        except SpecError:
            return None


def spec_of(trial: ReportTrial) -> ArchSpec | None:
    """Return the trial's spec; None where this release does not read it."""
    try:
        return validate(parse(trial.spec or "", f"trial {trial.number}"))
    except SpecError:
        return None
