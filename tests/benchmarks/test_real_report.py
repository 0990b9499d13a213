"""The tables over the recorded program: closed, answered, and what is left."""

import importlib.util
import math
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import protocol
import pytest
from answers import Compared, confirmatory, curve_at, tau_of_long
from left import left
from program import Job, Records, jobs, set_margin, set_selection
from protocol import person_of, read_protocol
from standings import Standing, standing

from archspec.scoring.statistics import Interval

_COST = {"flops": 10**9, "params": 10**5, "memory_bytes": 2**26, "step_cpu": 0.1, "batch_cpu": 0.1}
_TIME = {"case_cpu": 2.0, "calibration_cpu": 1.0}
_CASES = [f"h_{2 * person - side:03}" for person in range(1, 9) for side in (0, 1)]


@pytest.fixture(scope="module")
def report() -> ModuleType:
    """Return the script; `report` is the name of another one beside it."""
    place = protocol.HERE / "report.py"
    spec = importlib.util.spec_from_file_location("real_report", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _record(records: Records, job: Job, score: float) -> None:
    """Put a training on record whose cases lie around a score."""
    row = {"lock": records.protocol.digest, **job.key}
    noise = random.Random(f"{job}")
    cases = [
        {**row, "case": case, "person": person_of(case), "ema": score + noise.gauss(0, 0.004)}
        for case in _CASES
    ]
    if records.score(job) is None:
        records.validation.add(cases)
        last = {**row, "rung": job.steps, "ema": score, "raw": score - 0.001}
        records.rungs.add([{**last, **_COST, **_TIME}])
    if job.tested:
        records.test.add(cases)


def _finish(records: Records, score_of: Callable[[Job], float], until: str = "") -> None:
    """Put the program on record, up to a decision."""
    for job in jobs(records):
        if isinstance(job, Job):
            _record(records, job, score_of(job) - abs(math.log(job.lr / 4e-3)) / 100)
        elif job == until:
            return
        elif job == "margin":
            set_margin(records, num_persons=53)
        else:
            set_selection(records)


def _score(job: Job) -> float:
    """Return 0.8; ToM lies 0.05 above convolution, and long trainings 0.02 above all."""
    by_mixer = {"tom": 0.03, "conv": -0.02}
    mixers = [value for name, value in by_mixer.items() if name in job.network]
    return 0.8 + sum(mixers) + 0.02 * (job.steps > 1200)


@pytest.fixture
def finished(tmp_path: Path) -> Records:
    records = Records(tmp_path, read_protocol())
    _finish(records, _score)
    return records


def test_no_test_case_is_read_before_the_selection(tmp_path: Path, report: ModuleType) -> None:
    records = Records(tmp_path, read_protocol())
    _finish(records, _score, until="selection")
    assert records.test.rows
    curve = standing(records, "unet-4")
    assert curve is not None
    assert not curve.test.size
    found = confirmatory(records)
    assert isinstance(found, str)
    text = "\n".join(report.report(records))
    assert "not answered: the selection is not on record yet" in text
    assert "closed until the selection" in text


def test_a_finished_program_answers_all_questions(finished: Records, report: ModuleType) -> None:
    found = confirmatory(finished)
    assert not isinstance(found, str)
    assert len(found) == 5
    by_question = {one.question: one for one in found}
    tom = by_question["ii, ToM - convolution"]
    assert tom.interval.low < 0.05 < tom.interval.high
    assert tom.p_holm >= tom.p > 0
    assert tom.verdict(0.01) == "higher"
    assert not [one for one in left(finished) if one.done < one.total]
    text = "\n".join(report.report(finished))
    assert f"Protocol {finished.protocol.digest}" in text
    assert "closed" not in text
    assert (
        sum(line.startswith(("* ", "  ")) and " GFLOPs" in line for line in text.split("\n")) == 2
    )


def test_what_is_left_shrinks_with_every_training(tmp_path: Path) -> None:
    records = Records(tmp_path, read_protocol())
    _finish(records, _score, until="margin")
    before = {one.step: one for one in left(records)}
    assert before["pilot"].done == before["pilot"].total == 6
    assert before["curve"].done == 0
    _finish(records, _score, until="selection")
    after = {one.step: one for one in left(records)}
    assert (after["curve"].done, after["curve"].hours) == (12, 0)
    assert after["space"].hours == 0
    assert after["selected"].hours > 0


def test_the_order_after_long_training_is_compared(finished: Records) -> None:
    found = tau_of_long(finished)
    assert found is not None
    (tau, low, high), networks = found
    assert low <= tau <= high
    assert networks == len(finished.decided("selection")["long"])  # type: ignore[index]


def _standing(latency: float, score: float, seeds: int = 3) -> Standing:
    test = np.full((seeds, 4), score)
    return Standing("n", 1e-3, 1.0, 1, 1, latency, 1.0, 1.0, {0: score}, {0: score}, test)


@pytest.mark.parametrize(
    ("latency", "expected"), [(1.0, 0.6), (2.0, 0.65), (4.0, 0.7), (0.9, None), (4.1, None)]
)
def test_the_curve_is_linear_in_the_logarithm(latency: float, expected: float | None) -> None:
    found = curve_at([_standing(4.0, 0.7), _standing(1.0, 0.6)], latency)
    assert found == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("interval", "p_holm", "expected"),
    [
        ((0.000, -0.009, 0.009), 0.9, "no difference that matters"),
        ((0.004, 0.001, 0.009), 0.01, "no difference that matters"),
        ((0.006, 0.001, 0.012), 0.01, "higher"),
        ((-0.02, -0.03, -0.01), 0.01, "lower"),
        ((0.006, 0.001, 0.012), 0.06, "not decided"),
        ((0.000, -0.010, 0.009), 0.9, "not decided"),
    ],
)
def test_verdicts_are_the_protocols(
    interval: tuple[float, float, float], p_holm: float, expected: str
) -> None:
    network = _standing(1.0, 0.6)
    one = Compared("q", network, network, Interval(*interval), p=0.01, p_holm=p_holm)
    assert one.verdict(0.01) == expected


def test_committed_records_are_reported(report: ModuleType) -> None:
    records = Records(protocol.HERE / "results", read_protocol())
    assert any("unet-8" in line for line in report.report(records))


def test_the_front_is_drawn(finished: Records, report: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "front.png"
    report.draw_front(*report.both(finished), report._kinds(finished), "title", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
