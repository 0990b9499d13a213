"""The axes of the pictures: what stretches them, and which cost they have."""

import json
import math
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest

from search.report.figures import OFF, axes_of, latency_figure, pareto_figure
from search.report.png import draw
from search.report.trials import ReportTrial, State, TrialCosts
from search.space.objectives import Objectives

BOTH = Objectives(costs=("flops", "latency"))


def trial(number: int, gflops: float, dice: float, state: State = "front") -> ReportTrial:
    """Return a trial whose latency falls as its FLOPs grow."""
    costs = TrialCosts(flops=int(gflops * 1e9), params=1000, calibrated=10 / gflops)
    return ReportTrial(
        number, state, {}, anchor=False, dice=dice, costs=costs, step=9, seconds=9 + gflops
    )


FRONT = [trial(0, 1, 0.74), trial(1, 2, 0.77), trial(2, 4, 0.80), trial(3, 4.5, 0.75, "dominated")]
STOPPED = [trial(4, 3, 0.14, "stopped"), trial(5, 3, 0.76, "stopped"), trial(6, 3, 0.9, "stopped")]


def named(figure: Any) -> dict[str, Any]:
    """Return the traces on the first axis of Dice."""
    return {trace["name"]: trace for trace in figure["data"] if "yaxis" not in trace}


@pytest.mark.parametrize("make", [pareto_figure, latency_figure])
def test_stopped_trials_do_not_stretch_the_axis_of_dice(make: Any) -> None:
    axis = make(FRONT)["layout"]["yaxis"]["range"]
    figure = make([*FRONT, *STOPPED])
    assert figure["layout"]["yaxis"]["range"] == axis and axis == pytest.approx([0.73, 0.81])
    traces = named(figure)
    assert traces["stopped at a rung (its Dice there)"]["customdata"][0] == 5
    off = traces[OFF]
    assert (off["customdata"], off["y"]) == ([4, 6], pytest.approx([0.7312, 0.8088]))
    assert "Dice 0.1400" in off["text"][0]


def test_trials_that_were_all_stopped_have_an_axis() -> None:
    low, high = pareto_figure(STOPPED)["layout"]["yaxis"]["range"]
    assert low < 0.14 and high > 0.9


def test_the_picture_does_not_stretch_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *_, **__: seen.append(self)
    )
    for trials in (FRONT, [*FRONT, *STOPPED]):
        (tmp_path / "x.png.partial").touch()
        draw(trials, tmp_path / "x.png")
    without, among = (figure.axes[0] for figure in seen)
    assert among.get_ylim() == without.get_ylim()
    (off,) = (one for one in among.collections if one.get_label() == OFF)
    assert [y for _, y in off.get_offsets()] == pytest.approx([0.7312, 0.8088])


def test_a_cost_that_the_whole_front_has_is_another_axis() -> None:
    assert axes_of(FRONT, BOTH) == ["flops", "latency"]
    assert axes_of(FRONT, Objectives(costs=("latency", "params"))) == ["latency", "params", "flops"]
    untimed = ReportTrial(7, "front", {}, anchor=False, dice=0.9, costs=TrialCosts(flops=1))
    assert axes_of([*FRONT, untimed], Objectives()) == ["flops"]


def test_the_front_against_its_second_cost() -> None:
    figure = pareto_figure(FRONT, objectives=BOTH, against="latency")
    axis = figure["layout"]["xaxis"]
    assert axis["title"]["text"] == "latency of a patch, in calibration convolutions"
    front = named(figure)["Pareto front (trial numbers)"]
    assert front["mode"] == "markers+text", "no steps: it is a front against both"
    at = dict(zip(front["customdata"], front["x"], strict=True))
    assert at == pytest.approx({0: 10, 1: 5, 2: 2.5})
    low, high = axis["range"]
    assert all(low < math.log10(x) < high for x in front["x"])
    assert "latency of 5 calibrations" in json.dumps(front["hovertext"])
