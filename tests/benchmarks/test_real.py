"""The protocol on real data: persons, hash, networks, rates, margin."""

import math
import shutil
from pathlib import Path
from typing import Any

import protocol
import pytest
import tables
from program import Records
from protocol import deal, next_rate, parts_of, person_of, read_protocol

from archspec.costs.flops import cost_plan
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
