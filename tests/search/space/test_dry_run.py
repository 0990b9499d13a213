"""`archspec search --dry-run`, and the options of a search: no study, no training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archspec import plan
from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.space.dry_run import dry_run
from search.space.space import load_space

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def space(tmp_path: Path, space_tree: dict[str, Any]) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(dump(space_tree), encoding="utf-8")
    return path


def test_dry_run_shows_samples_and_hours_and_touches_nothing(cli: Cli, space: Path) -> None:
    before = sorted(space.parent.iterdir())
    code, out, _ = cli("search", space, "--dry-run", "--trials", 20, "--device", "cpu")
    assert code == 0
    assert "tiny: 6 combinations, 2 holes" in out
    assert "1  encoder.stages.0.width" in out
    assert "2, identity" in out and "4, conv" in out
    assert "measured once on cpu" in " ".join(out.split())
    assert "for 20 trainings of 27 steps" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert sorted(space.parent.iterdir()) == before


def test_samples_have_the_costs_of_their_networks(space: Path) -> None:
    found = dry_run(load_space(space), InputSizes(patch_size=(32, 16, 16)), seconds_per_step=0.5)
    assert len(found.samples) == 6, "all there are"
    for one in found.samples:
        assert one.planned.patch_size == (32, 16, 16)
        assert one.flops == cost_plan(plan(one.planned.spec, patch_size=(32, 16, 16))).flops
        assert one.memory > 4 * one.params
    mean = sum(one.flops for one in found.samples) / 6
    hours = 8 * 27 * 0.5 * mean / found.median.flops / 3600
    assert found.hours(trials=8, jobs=1) == pytest.approx(hours)
    assert found.hours(trials=8, jobs=2) == pytest.approx(hours / 2)
    assert "0.500 s per step" in found.text(8, 1) and "given" in found.text(8, 1)
    told = json.loads(json.dumps(found.to_json(8, 2)))
    assert (told["hours"], told["combinations"]) == (found.hours(8, 2), 6)
    assert told["input"] == [2, 1, 32, 16, 16]
    assert [one["flops"] for one in told["samples"]] == [one.flops for one in found.samples]
    assert told["anchors"][0]["over"] == [] and told["anchors"][0]["spec"] is None


def test_samples_over_a_limit_are_said_to_be(cli: Cli, space: Path) -> None:
    line = ("search", space, "--dry-run", "--seconds-per-step", 1, "--max-params", 1000)
    code, out, _ = cli(*line)
    assert code == 0
    assert "parameters, over the limit of 1,000" in out
    assert "0 of the 6 samples exceed" not in " ".join(out.split())


def test_a_space_without_a_valid_network_is_refused(space: Path) -> None:
    match = "search.match={macs: 3e6, multiple: 1}"
    with pytest.raises(SpecError, match="200 draws gave no valid network; match: no widths"):
        dry_run(load_space(space, overrides=(match,)), InputSizes(patch_size=(512, 512, 512)))


def test_matched_samples_cost_the_same(space: Path) -> None:
    match = "search.match={macs: 3e6, multiple: 1}"
    found = dry_run(load_space(space, overrides=(match,)), seconds_per_step=1)
    assert len(found.samples) > 1
    for one in found.samples:
        assert abs(one.flops / 2 / 3e6 - 1) <= 0.03


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--trials", 3), "needs --data, --trials (or --hours) and --out"),
        (("--stopper", "asha", "--dry-run"), "--stopper asha: "),
        (("--max-memory", "12", "--dry-run"), "--max-memory 12: must be"),
        (("--seconds-per-step", 1), "--dry-run only"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    cli: Cli, space: Path, options: tuple[object, ...], part: str
) -> None:
    code, _, err = cli("search", space, *options)
    assert code == 2
    assert part in err and err.count("\n") == 1
