"""The table of learning curves: what is written is read back, row by row."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from curves import CurvePoint, append_points, describe_training, read_curves, read_points

from archspec.network.resolve import resolve
from archspec.spec.hashing import arch_hash, trial_hash
from blocks.base import SpecError

TREE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": (16, 16, 16),
    "encoder": {"stages": ({"width": 4, "mixer": {"kind": "conv"}},)},
    "decoder": {"kind": "sum"},
}


def training(seed: int = 0, lr: float = 1e-3, **changes: Any) -> Any:
    planned = resolve({**TREE, "training": {"lr": lr}})
    settings = {"name": "a, b", "task": "reach", "level": "96", "cases": 64, "batch_size": 2}
    return describe_training(planned, seed=seed, steps=27, **{**settings, **changes})


def point(step: int, **changes: Any) -> CurvePoint:
    given = {"training": training(), "seconds": 1.5, "dice": 0.25, "loss": 1.125}
    scores = {"organ": 0.5, "twin, same": 0.0}
    return CurvePoint(step=step, **{**given, "scores": scores, **changes})


def test_a_training_states_hashes_and_cost() -> None:
    planned, found = resolve({**TREE, "training": {"lr": 1e-3}}), training()
    assert found.arch_hash == arch_hash(planned.spec)
    assert found.trial_hash == trial_hash(planned.spec)
    assert found.flops == 2 * found.macs > 0 and found.params > 0
    assert found.lr == 1e-3


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"lr": 2e-3}, {"task": "axis"}, {"level": "48"}, {"cases": 4}, {"batch_size": 4}],
)
def test_what_decides_the_outcome_is_in_the_key(changed: dict[str, Any]) -> None:
    assert training(**changed).key != training().key
    assert training(name="another label").key == training().key


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "results" / "curves.csv"
    points = [point(1), point(9, dice=0.5), point(1, training=training(seed=1))]
    append_points(path, points[:1])
    append_points(path, points[1:])
    assert read_points(path) == points
    assert path.read_text(encoding="utf-8").count("arch_hash") == 1


def test_curves_are_ordered_and_the_last_of_equal_steps_stays(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    append_points(path, [point(9), point(3), point(9, dice=0.75)])
    append_points(path, [point(3, training=training(seed=1))])
    curves = read_curves(path)
    first, second = curves.values()
    assert [(p.step, p.dice) for p in first] == [(3, 0.25), (9, 0.75)]
    assert [p.step for p in second] == [3]
    assert list(curves) == [training(), training(seed=1)]


def test_a_missing_class_stays_missing(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    append_points(path, [point(1, scores={"organ": math.nan})])
    assert math.isnan(read_points(path)[0].scores["organ"])


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_points(tmp_path / "curves.csv") == []
    assert read_curves(tmp_path / "curves.csv") == {}


def test_another_table_and_a_row_cut_off_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("case,dice\n1,0.5\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"curves.csv: not a table of curves; its columns"):
        read_points(path)
    path.unlink()
    append_points(path, [point(1), replace(point(3))])
    path.write_text(path.read_text(encoding="utf-8")[:-30], encoding="utf-8")
    with pytest.raises(SpecError, match=r"curves.csv:3: not a row"):
        read_points(path)
