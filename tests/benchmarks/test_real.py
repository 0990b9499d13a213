"""The protocol on real data: persons, hash, rates, margin, and a recorder that goes on."""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import protocol
import pytest
import tables
import torch
import training
from protocol import deal, next_rate, parts_of, person_of, read_protocol
from record import Job, Recorder, Records, jobs, make_job, set_margin, set_selection
from selection import Measured, select
from torch import nn
from training import StoppedError

from archspec.costing import cost_plan
from blocks.base import SpecError

REAL = Path(protocol.__file__).parent


@pytest.fixture(scope="module")
def locked() -> protocol.Protocol:
    return read_protocol()


def _both_sides(split: dict[str, Any]) -> list[str]:
    persons = [*split["test"], *(person for fold in split["folds"] for person in fold)]
    return [f"hippocampus_{2 * person - side:03}" for person in persons for side in (0, 1)]


def test_ids_2k_minus_1_and_2k_are_one_person() -> None:
    assert [person_of(f"hippocampus_{k:03}") for k in (1, 2, 3, 4, 199, 200)] == [
        1,
        1,
        2,
        2,
        100,
        100,
    ]


def test_the_lock_deals_persons_as_it_says(locked: protocol.Protocol) -> None:
    split = locked.tree["split"]
    persons = [*split["test"], *(person for fold in split["folds"] for person in fold)]
    assert len(persons) == len(set(persons)) == 133
    dealt = deal(
        persons, seed=split["seed"], num_test=len(split["test"]), num_folds=len(split["folds"])
    )
    assert dealt == (split["test"], split["folds"])


@pytest.mark.parametrize("fold", range(3))
def test_no_person_is_in_two_parts(locked: protocol.Protocol, fold: int) -> None:
    cases = _both_sides(locked.tree["split"])
    parts = parts_of(locked.tree["split"], cases, fold)
    persons = [
        {person_of(case) for case in part} for part in (parts.train, parts.validation, parts.test)
    ]
    assert sum(map(len, persons)) == len(set().union(*persons)) == 133
    assert sorted(parts.train + parts.validation + parts.test) == sorted(cases)
    assert persons[2] == set(locked.tree["split"]["test"])


def test_a_person_that_the_lock_does_not_know_is_refused(locked: protocol.Protocol) -> None:
    with pytest.raises(SpecError, match="hippocampus_999: its person, 500, is not in"):
        parts_of(locked.tree["split"], ["hippocampus_999"], 0)


def _copied(folder: Path) -> Path:
    for name in (protocol.LOCK, protocol.SPACE, protocol.UNET):
        shutil.copy(REAL / name, folder / name)
    return folder


@pytest.mark.parametrize("name", [protocol.LOCK, protocol.SPACE, protocol.UNET])
def test_the_hash_follows_the_bytes_of_every_file(
    locked: protocol.Protocol, name: str, tmp_path: Path
) -> None:
    folder = _copied(tmp_path)
    assert read_protocol(folder).digest == locked.digest
    (folder / name).write_bytes((folder / name).read_bytes() + b"#\n")
    assert read_protocol(folder).digest != locked.digest


def test_committed_rows_are_of_this_protocol(locked: protocol.Protocol) -> None:
    Records(REAL / "results", locked)


def test_rows_of_two_protocols_are_refused(tmp_path: Path) -> None:
    columns = ("lock", "network")
    tables.Table(tmp_path / "a.csv", columns, "one").add([{"lock": "one", "network": "n"}])
    with pytest.raises(SpecError, match="rows of the protocol one, but this is two"):
        tables.Table(tmp_path / "a.csv", columns, "two")


def test_a_row_that_a_kill_cut_off_is_removed(tmp_path: Path) -> None:
    columns, path = ("lock", "network"), tmp_path / "a.csv"
    tables.Table(path, columns, "one").add([{"lock": "one", "network": "n"}])
    whole = path.read_bytes()
    path.write_bytes(whole + b"one,half")
    table = tables.Table(path, columns, "one")
    assert (path.read_bytes(), len(table.rows)) == (whole, 1)


def test_the_width_curve_costs_what_was_planned(locked: protocol.Protocol) -> None:
    gflops = [cost_plan(locked.plan(f"unet-{w}", 1e-3)).flops / 1e9 for w in (4, 8, 16, 32)]
    assert [round(value, 2) for value in gflops] == [0.62, 2.42, 9.61, 38.28]


def test_all_networks_are_in_the_space(locked: protocol.Protocol) -> None:
    plans = {name: locked.plan(name, 2e-3) for name in locked.networks}
    assert len({plan.spec.model_copy(update={"name": "n"}) for plan in plans.values()}) == 40
    for name, plan in plans.items():
        assert (plan.spec.name, plan.spec.training.lr) == (name, 2e-3)
        assert all(8 % stride == 0 for stride in plan.total_stride)


def test_a_network_of_two_mixers_takes_rates_from_both(locked: protocol.Protocol) -> None:
    assert locked.rate_sources("mamba-attention-sum") == ["attention-sum", "mamba-sum"]
    assert locked.rate_sources("tom-mlp") == ["tom-sum"]
    assert locked.rate_sources("unet-32") == ["unet-16"]


FIRST = [4.0, 2.0, 8.0]


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ({}, 4.0),
        ({4.0: 0.5}, 2.0),
        ({4.0: 0.5, 2.0: 0.4, 8.0: 0.4}, None),
        ({4.0: 0.5, 2.0: 0.4, 8.0: 0.6}, 16.0),
        ({4.0: 0.5, 2.0: 0.6, 8.0: 0.4}, 1.0),
        ({4.0: 0.5, 2.0: 0.4, 8.0: math.nan}, None),
        ({4.0: 0.1, 2.0: 0.0, 8.0: 0.2, 16.0: 0.3}, None),
    ],
)
def test_rates_double_until_the_best_is_interior(
    tried: dict[float, float], expected: float | None
) -> None:
    assert next_rate(tried, FIRST, most=4) == expected


def test_power_is_that_of_the_published_table() -> None:
    """40 persons x 3 seeds and 80 x 5, SD of differences 1.5 points, of seeds 0.3, margin 0.5."""
    sds = {"person_sd": 1.5, "seed_sd": 0.3, "alpha": 0.05}
    assert protocol.power(0.5, persons=40, seeds=3, **sds) == pytest.approx(0.31, abs=0.005)
    assert protocol.power(0.5, persons=80, seeds=5, **sds) == pytest.approx(0.51, abs=0.005)


def test_the_pilot_gives_two_deviations() -> None:
    """Persons 1 and 2 differ by 0.2 and 0.05; means by seed are 0.5, 0.6 and 0.4, 0.4."""
    first = [{"h_001": 0.4, "h_002": 0.6, "h_003": 0.5}, {"h_001": 0.7, "h_002": 0.5, "h_003": 0.6}]
    second = [
        {"h_001": 0.3, "h_002": 0.4, "h_003": 0.5},
        {"h_001": 0.4, "h_002": 0.3, "h_003": 0.5},
    ]
    person_sd, seed_sd = protocol.pilot_sds([first, second])
    assert person_sd == pytest.approx((0.2 - 0.05) / math.sqrt(2))
    assert seed_sd == pytest.approx(math.sqrt((0.1**2 / 2 + 0.0) / 2))


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
    job = Job("tiny-conv-mlp", 0, 4e-3, 3, (1, 3), tested=False)
    asked = iter([False, False, True, True])
    found = []
    for name, stopping in (("whole", lambda: False), ("stopped", lambda: next(asked, False))):
        records = Records(tmp_path / name, locked)
        recorder = Recorder(records, _Noise(), tmp_path / f"{name} work", stopping)  # type: ignore[arg-type]
        while not records.is_done(job):
            with contextlib.suppress(StoppedError):
                recorder.record(job)
        kept = ("rung", "ema", "raw", "loss")
        found.append([[row[column] for column in kept] for row in records.rungs.rows])
    assert found[0] == found[1]
    assert [row[0] for row in found[0]] == ["1", "3"]
    assert next(asked, None) is None, "nobody stopped it"
