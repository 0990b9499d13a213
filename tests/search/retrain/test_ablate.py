"""An ablation with trainings that cost nothing, and one with real ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from archspec.network.resolve import resolve
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.retrain.ablate import RESULT, TABLE, Trainings, ablate
from search.retrain.retrain import read_trained
from search.retrain.variants import Variants, variants_of
from search.trials.train import TrialTask

TREE: dict[str, Any] = {
    "name": "net",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": 4, "mixer": {"kind": "conv"}, "downsample": {"kernel_size": 5, "stride": 4}},
            {"width": 8, "mixer": {"kind": "mamba", "d_state": 4}, "local": {"kind": "gsc"}},
        ]
    },
    "decoder": {"kind": "sum"},
}


def scored(task: TrialTask, part: str, index: int) -> float:
    """Return a Dice that Mamba raises by 0.2 over whatever else stands there."""
    mixer = task.tree["encoder"]["stages"][1]["mixer"]["kind"]
    noise = 0.002 * (index % 3) + 0.001 * (task.seed % 5)
    return 0.5 + 0.2 * (mixer == "mamba") + 0.1 * (part == "test") + noise


@pytest.fixture(scope="module")
def variants() -> Variants:
    return variants_of(resolve(TREE), only="stage 1*")


@pytest.fixture
def pool(scoring_pool: type, in_place_of_workers: Callable[[Any], None]) -> Any:
    made = partial(scoring_pool, scored)(jobs=2)
    in_place_of_workers(made)
    return made


def test_a_part_is_worth_what_it_adds(
    variants: Variants, dataset: PreprocessedDataset, pool: Any, tmp_path: Path
) -> None:
    result = ablate(
        variants, dataset, folder=tmp_path / "out", trainings=Trainings(steps=8, seeds=3)
    )
    found = result.to_json()
    assert len(pool.tasks) == 3 * (1 + len(variants.others))
    assert {task.rung_steps for task in pool.tasks} == {(4, 8)}
    assert {task.seed for task in pool.tasks} == {0, 1, 2}
    parts = {(part["part"], part["instead"]): part for part in found["parts"]}
    identity = parts["stage 1 mixer mamba", "identity"]
    assert identity["worth"]["mean"] == pytest.approx(0.2)
    assert identity["worth"]["low"] > 0.19
    assert identity["worth"]["exceeds_noise"]
    local = parts["stage 1 local gsc", "none"]
    assert local["worth"]["mean"] == pytest.approx(0)
    assert not local["worth"]["exceeds_noise"]
    cost = variants.original.cost
    (other,) = (one.cost for one in variants.others if one.instead == "identity")
    assert identity["costs"]["params"] == cost.params - other.params > 0
    assert identity["costs"]["scan_gflop"] == (cost.scan_flops - other.scan_flops) / 1e9
    assert json.loads((tmp_path / "out" / RESULT).read_text(encoding="utf-8")) == found
    text = result.text()
    assert "stage 1 mixer mamba: worth +20.0 [+19." in text
    assert "over identity\n" in text
    assert "stage 1 local gsc: worth +0.0" in text
    assert max(map(len, text.splitlines())) <= 80


def test_it_goes_on_and_refuses_other_settings(
    variants: Variants, dataset: PreprocessedDataset, pool: Any, tmp_path: Path
) -> None:
    run = partial(ablate, variants, dataset, folder=tmp_path / "out")
    once = Trainings(steps=8, seeds=1)
    found = run(trainings=once)
    number = len(pool.tasks)
    assert run(trainings=once) == found
    assert len(pool.tasks) == number
    with pytest.raises(SpecError, match="holds an ablation with another patch_size"):
        run(trainings=Trainings(steps=8, seeds=1, patch_size=(16, 16, 32)))
    with pytest.raises(SpecError, match="holds an ablation with another steps"):
        run(trainings=Trainings(steps=9, seeds=1))
    for damaged in (b"", b"{", b"[]", bytes(range(128, 160))):
        (tmp_path / "out" / "settings.json").write_bytes(damaged)
        with pytest.raises(SpecError, match=r"settings\.json: damaged; put back a copy"):
            run(trainings=once)
        assert (tmp_path / "out" / "settings.json").read_bytes() == damaged
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(SpecError, match="exists and is not an ablation"):
        ablate(variants, dataset, folder=tmp_path / "full", trainings=once)
    assert "One seed" in found.text()


def test_test_cases_are_compared_where_asked_for(
    variants: Variants, dataset: PreprocessedDataset, pool: Any, tmp_path: Path
) -> None:
    trainings = Trainings(steps=8, seeds=2, test_share=0.4)
    found = ablate(variants, dataset, folder=tmp_path / "out", trainings=trainings)
    assert found.compared_on == "test"
    assert found.num_cases == len(found.settings.test_cases) == 2
    assert found.original.dice == pytest.approx(0.8, abs=0.01)


@pytest.mark.long
def test_ablate_trains_and_compares(dataset_environment: dict[str, str], tmp_path: Path) -> None:
    spec, out = tmp_path / "net.yaml", tmp_path / "out"
    spec.write_text(dump({**TREE, "patch_size": [24, 32, 32]}), encoding="utf-8")
    line = [sys.executable, "-W", "ignore", "-m", "archspec", "ablate", str(spec), "--data", "902"]
    line += ["--steps", "4", "--seeds", "2", "--only", "stage 1 mixer*", "--device", "cpu"]
    line += ["--out", str(out)]

    def archspec(*options: str) -> str:
        done = subprocess.run(
            [*line, *options], env=dataset_environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    found = json.loads(archspec("--json"))
    assert found["num_cases"] == 2
    assert len(read_trained(out / TABLE)) == 6
    original = found["original"]["dice"]
    for part in found["parts"]:
        assert part["worth"]["mean"] == pytest.approx(original - part["dice"])
        assert part["worth"]["low"] <= part["worth"]["mean"] <= part["worth"]["high"]
    before = (out / TABLE).read_bytes()
    assert "stage 1 mixer mamba: worth" in archspec()
    assert (out / TABLE).read_bytes() == before, "nothing is trained twice"
    assert "9 trainings of 4 steps" in archspec("--dry-run", "--seeds", "3")
