"""The recorder on real data: its program, its decisions, and how it goes on."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import protocol
import pytest
import torch
import training
from program import Job, Records, jobs, make_job, set_margin, set_selection
from protocol import read_protocol
from record import Recorder
from selection import Measured, select
from torch import nn
from training import StoppedError

from blocks.base import SpecError


@pytest.fixture(scope="module")
def locked() -> protocol.Protocol:
    return read_protocol()


def _finish(records: Records, job: Job, score: float) -> None:
    """Put a training on record, with two cases of one person and one of another."""
    row = {"lock": records.protocol.digest, **job.key}
    cases = {"h_001": score, "h_002": score + 0.02, "h_003": score - 0.01 * (job.seed + 1)}
    table = [{**row, "case": case, "ema": value} for case, value in cases.items()]
    cost = {"flops": 10**9, "case_cpu": 2.0, "calibration_cpu": 1.0}
    if records.score(job) is None:
        records.validation.add(table)
        records.rungs.add([{**row, "rung": job.steps, "ema": score, **cost}])
    if job.tested:
        records.test.add(table)


@pytest.fixture
def piloted(locked: protocol.Protocol, tmp_path: Path) -> Records:
    """Return records whose pilot is complete."""
    records = Records(tmp_path, locked)
    for job in jobs(records):
        if not isinstance(job, Job):
            break
        _finish(records, job, 0.60 + 0.01 * job.seed + (0.02 if job.network == "unet-8" else 0.0))
    return records


def test_the_pilot_comes_first_and_its_margin_next(piloted: Records) -> None:
    done = [(row["network"], row["seed"], row["lr"]) for row in piloted.rungs.rows]
    assert done == [(n, s, "0.004") for n in ("unet-8", "mamba-sum") for s in "012"]
    assert next(iter(jobs(piloted))) == "margin"
    set_margin(piloted, num_persons=53)
    margin = piloted.decided("margin")
    assert margin is not None
    assert margin["lock"] == piloted.protocol.digest
    assert margin["margin"] in piloted.protocol.tree["margin"]["candidates"]


def test_what_is_recorded_is_skipped_after_a_restart(piloted: Records, tmp_path: Path) -> None:
    set_margin(piloted, num_persons=53)
    again = Records(tmp_path, piloted.protocol)
    job = next(iter(jobs(again)))
    assert isinstance(job, Job)
    assert (job.network, job.seed, job.lr, job.tested) == ("unet-8", 0, 2e-3, False)
    _finish(again, job, 0.7)
    following = next(iter(jobs(Records(tmp_path, piloted.protocol))))
    assert isinstance(following, Job)
    assert (following.network, following.lr) == ("unet-8", 8e-3)


def test_no_margin_is_set_once_a_test_case_is_scored(piloted: Records) -> None:
    job = make_job(piloted.protocol, "unet-8", 9, 4e-3, tested=True)
    _finish(piloted, job, 0.8)
    with pytest.raises(SpecError, match="the margin comes before any test case"):
        set_margin(piloted, num_persons=53)


def test_no_test_case_is_scored_before_the_margin(
    locked: protocol.Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_calibration", lambda: lambda: None)
    records = Records(tmp_path, locked)
    recorder = Recorder(records, _Noise(), tmp_path / "work", lambda: False)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="no test case is scored before the margin is set"):
        recorder.record(Job("tiny-conv-mlp", 0, 4e-3, 1, (1,), tested=True))
    assert not records.test.rows


def test_the_program_trains_every_network_and_what_was_selected(piloted: Records) -> None:
    set_margin(piloted, num_persons=53)
    for job in jobs(piloted):
        if isinstance(job, Job):
            _finish(piloted, job, 0.8 - abs(math.log(job.lr / 8e-3)) / 100)
        else:
            assert job == "selection"
            before = _tested(piloted)
            set_selection(piloted)
    curve = {(f"unet-{w}", seed, "1200") for w in (4, 8, 16, 32) for seed in "012"}
    assert before == curve | {(name, "0", "1200") for name in piloted.protocol.networks}
    selection = piloted.decided("selection")
    assert selection is not None
    selected = {(name, seed, "1200") for name in selection["networks"] for seed in "12"}
    long = {(name, "0", "4800") for name in selection["long"]}
    more = {(f"unet-{w}", seed, "1200") for w in (4, 8, 16, 32) for seed in "34"}
    assert _tested(piloted) == before | selected | long | more
    assert {row["lr"] for row in piloted.test.rows} == {"0.008"}


def _tested(records: Records) -> set[tuple[str, str, str]]:
    return {(row["network"], row["seed"], row["steps"]) for row in records.test.rows}


def test_the_selection_follows_the_rule(locked: protocol.Protocol) -> None:
    """Latencies rise with the networks' numbers, and scores stand out where something is chosen."""
    found = {
        name: Measured(0.5, 10**8 * number, float(number))
        for number, name in enumerate(locked.networks, start=1)
    }
    latency = {name: measured.latency for name, measured in found.items()}
    for unet, cap in (("unet-4", "tom-sum"), ("unet-8", "tom-mlp"), ("unet-16", "large-conv-sum")):
        found[unet] = Measured(0.9, 0, latency[cap] / 1.05)

    def raise_to(score: float, name: str) -> None:
        found[name] = replace(found[name], score=score)

    raise_to(0.6, "tom-sum")
    raise_to(0.7, "tom-mlp")
    raise_to(0.65, "conv-concat")
    raise_to(0.8, "large-conv-sum")  # over the latency of tom-mlp
    chosen = select(found, locked)
    assert chosen["caps"] == {"unet-4": "tom-sum", "unet-8": "tom-mlp", "unet-16": "large-conv-sum"}
    assert (chosen["tom"], chosen["conv"]) == ("tom-mlp", "conv-concat")
    assert chosen["pair"] == ["conv-sum", "conv-concat"]
    assert chosen["networks"] == [
        "tom-sum",
        "tom-mlp",
        "large-conv-sum",
        "conv-concat",
        "conv-sum",
    ]
    assert chosen["long"][:2] == ["unet-4", "unet-8"]
    assert set(chosen["long"][2:]) <= {
        "conv-sum",
        "tom-sum",
        "conv-concat",
        "tom-mlp",
        "large-conv-sum",
    }
    assert len(set(chosen["long"])) == 6


def test_a_diverged_network_is_not_selected(locked: protocol.Protocol) -> None:
    found = {
        name: Measured(0.5, 1, 1.0) for name in (*locked.networks, "unet-4", "unet-8", "unet-16")
    }
    found["conv-sum"] = Measured(math.nan, 1, 1.0)
    assert "conv-sum" not in select(found, locked)["networks"]


class _Noise:
    """Random patches in place of a dataset; a case's Dice follows from the weights."""

    validation_cases = test_cases = ("h_001", "h_002")

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[Any]:
        while True:
            yield torch.randn(1, 1, 40, 56, 40), torch.randint(3, (1, 40, 56, 40))

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> nn.Module:
        return nn.CrossEntropyLoss()

    def score_cases(self, net: nn.Module, device: Any, cases: Any) -> Any:
        value = float(torch.cat([p.detach().flatten() for p in net.parameters()]).double().std())
        return {case: {"mean": value, "Anterior": value, "Posterior": value} for case in cases}

    def one_case(self, net: nn.Module) -> Callable[[], None]:
        return lambda: None


def test_a_training_that_was_stopped_ends_like_one_that_was_not(
    locked: protocol.Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_calibration", lambda: lambda: None)  # slow, and not told of
    job = Job("tiny-conv-mlp", 0, 4e-3, 3, (1, 3), tested=True)
    asked = iter([False, False, True, True])
    found = []
    for name, stopping in (("whole", lambda: False), ("stopped", lambda: next(asked, False))):
        records = Records(tmp_path / name, locked)
        records.decide("margin", {})
        recorder = Recorder(records, _Noise(), tmp_path / f"{name} work", stopping)  # type: ignore[arg-type]
        while not records.is_done(job):
            with contextlib.suppress(StoppedError):
                recorder.record(job)
        kept = ("rung", "ema", "raw", "loss")
        found.append([[row[column] for column in kept] for row in records.rungs.rows])
        assert len(records.validation.rows) == len(records.test.rows) == 2
    assert found[0] == found[1]
    assert [row[0] for row in found[0]] == ["1", "3"]
    assert next(asked, None) is None, "nobody stopped it"


def test_a_training_made_again_for_its_test_cases_is_held_to_the_first(
    locked: protocol.Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_calibration", lambda: lambda: None)
    job = Job("tiny-conv-mlp", 0, 4e-3, 1, (1,), tested=True)
    records = Records(tmp_path, locked)
    records.decide("margin", {})

    def record(work: str) -> dict[str, str]:
        Recorder(records, _Noise(), tmp_path / work, lambda: False).record(job)  # type: ignore[arg-type]
        return records.again.rows[-1] if records.again.rows else {}

    assert not record("first")
    rows = [len(records.rungs.rows), len(records.validation.rows)]
    same = record("second")
    assert [len(records.rungs.rows), len(records.validation.rows)] == rows
    assert {same[f"{w}_{what}"] for w in ("ema", "raw") for what in ("mean", "largest")} == {"0.0"}
    first = records.validation.rows[0]
    first["raw"] = str(float(first["raw"]) - 0.25)
    other = record("third")
    assert float(other["raw_largest"]) == pytest.approx(0.25)
    assert float(other["raw_mean"]) == pytest.approx(0.125)
    assert other["ema_largest"] == "0.0"


def test_other_networks_can_be_left_out(piloted: Records) -> None:
    set_margin(piloted, num_persons=53)
    done = []
    for job in jobs(piloted, only=("unet-4",)):
        if job == "selection":
            break
        assert isinstance(job, Job)
        done.append((job.network, job.seed, job.tested))
        _finish(piloted, job, 0.8 - abs(math.log(job.lr / 4e-3)) / 100)
    assert done[3:] == [("unet-4", seed, True) for seed in (0, 1, 2)]
    assert {network for network, *_ in done} == {"unet-4"}
