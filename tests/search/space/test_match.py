"""Matched widths: candidates of one cost, whatever their mixers."""

import itertools
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FixedTrial

from archspec.costs.flops import cost, cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, plan
from archspec.spec.hashing import arch_hash, trial_hash
from archspec.spec.load import load
from archspec.spec.yaml_file import Source, dump
from blocks.base import SpecError
from search.space import match as matching
from search.space.match import match_spec
from search.space.settings import MatchSpec, SearchSettings
from search.space.space import load_space

TARGET = 40e6
BUDGET = "search.match.macs_per_voxel"
MATCHED = Path(__file__).parents[2] / "golden" / "spaces" / "matched.json"
"""Hashes of the anchors at every budget, from when the budgets were numbers for one patch."""


def host(first: dict[str, Any], second: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": "host",
        "patch_size": (16, 32, 96),
        "encoder": {
            "defaults": {"depth": 1},
            "stages": (
                {"width": 32, "downsample": {"kernel_size": 7, "stride": 4}, "mixer": first},
                {"width": 64, "downsample": {"kernel_size": 2}, "mixer": second},
            ),
        },
        "decoder": {"kind": "mlp", "width": 16},
        **fields,
    }


def mixers() -> dict[str, dict[str, Any]]:
    return {
        "conv": {"kind": "conv"},
        "tom": {"kind": "tom", "d_state": 8},
        "mamba": {"kind": "mamba", "d_state": 8},
        "attention": {"kind": "attention", "num_heads": 2},
        "identity": {"kind": "identity"},
    }


@pytest.mark.parametrize("first", mixers())
def test_every_mixer_is_matched_within_the_tolerance(first: str) -> None:
    tree = host(mixers()[first], {"kind": "attention", "num_heads": 2})
    found = match_spec(tree, MatchSpec(macs=TARGET))
    assert abs(cost(found).macs / TARGET - 1) <= 0.03
    widths = [stage.width for stage in found.encoder.stages]
    assert all(width % 4 == 0 for width in widths)
    assert 1.4 < widths[1] / widths[0] < 2.9  # the host's ratio is 2
    before = load(tree)
    assert found.decoder == before.decoder
    assert [s.mixer for s in found.encoder.stages] == [s.mixer for s in before.encoder.stages]


def test_many_widths_are_matched_without_listing_all_combinations() -> None:
    names = ("encoder.stages.*.width",)
    stage = {"width": 32, "downsample": {"stride": 1}, "mixer": {"kind": "conv"}}
    tree = host({"kind": "conv"}, {"kind": "conv"})
    tree["encoder"]["stages"] += (stage,) * 6
    found = match_spec(tree, MatchSpec(macs=200e6, widths=names))
    assert abs(cost(found).macs / 200e6 - 1) <= 0.03


def test_no_more_widths_are_made_than_are_tried() -> None:
    """They are the nearest of all combinations, in the same order as if all had been sorted."""
    base, scale = [8, 8, 16, 16, 32, 32, 64, 64], 1.3
    found = list(matching._around(base, scale, 4))
    assert len(found) == len(set(found)) == matching._MAX_TRIED
    near = [[4 * (round(width * scale / 4) + n) for n in (-1, 0, 1)] for width in base]

    def distortion(widths: tuple[int, ...]) -> float:
        return sum(math.log(w / (b * scale)) ** 2 for w, b in zip(widths, base, strict=True))

    assert found == sorted(itertools.product(*near), key=distortion)[: len(found)]
    assert next(matching._around([32] * 40, 1.0, 4)) == (32,) * 40


def test_sizes_given_are_those_matched() -> None:
    tree = host({"kind": "conv"}, {"kind": "conv"})
    sizes = {"in_channels": 3, "num_classes": 7, "patch_size": (16, 32, 48)}
    found = match_spec(tree, MatchSpec(macs=TARGET), InputSizes(**sizes))  # type: ignore[arg-type]
    assert abs(cost(found, **sizes).macs / TARGET - 1) <= 0.03  # type: ignore[arg-type]
    assert cost(found).macs > 1.5 * TARGET


def test_a_source_and_further_widths_are_taken() -> None:
    source = Source("space.yaml", host({"kind": "conv"}, {"kind": "conv"}))
    names = ("encoder.stages.*.width", "decoder.width", "decoder.bottleneck_width")
    found = match_spec(source, MatchSpec(macs=3e6, widths=names, multiple=2, tolerance=0.05))
    assert found.decoder.kind == "mlp" and found.decoder.width < 16
    assert abs(cost(found).macs / 3e6 - 1) <= 0.05


def test_latency_is_matched_by_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(planned: Plan, *, batch_size: int, repeats: int, device: str) -> float:
        assert (batch_size, repeats, device) == (1, 3, "cpu")
        return 1e-3 * sum(stage.out.channels for stage in planned.stages)

    monkeypatch.setattr(matching, "step_seconds", seconds)
    target = MatchSpec(latency=0.192, batch_size=1, repeats=3)
    found = match_spec(host({"kind": "conv"}, {"kind": "conv"}), target)
    assert [stage.width for stage in found.encoder.stages] == [64, 128]


def test_a_step_takes_time() -> None:
    from archspec.network.resolve import resolve

    planned = resolve(host({"kind": "conv"}, {"kind": "identity"}))
    assert 0 < matching.step_seconds(planned, batch_size=1, repeats=3) < 10


def test_convolutions_are_timed_where_steps_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width that is matched is that of trials, in which cuDNN times its algorithms."""
    from archspec.network import build
    from archspec.network.resolve import resolve

    inside, seen = [], []

    @contextmanager
    def timed(device: torch.device) -> Iterator[None]:
        inside.append(device)
        yield
        inside.clear()

    class Net(torch.nn.Conv3d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(list(inside))
            return super().forward(x)

    monkeypatch.setattr("archspec.training.devices.timed_convolutions", timed)
    monkeypatch.setattr(build, "build_plan", lambda planned: Net(planned.in_channels, 1, 1))
    planned = resolve(host({"kind": "conv"}, {"kind": "identity"}))
    matching.step_seconds(planned, batch_size=1, repeats=1)
    assert seen == [[torch.device("cpu")]] * 3
    assert inside == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"macs": 1e3}, r"match: no widths of host in multiples of 4 cost 1,000 MACs.*nearest: "),
        ({"macs": 1e15}, "nearest: encoder.stages.0.width="),
        ({"macs": TARGET, "multiple": 64, "tolerance": 0.001}, "within 0.1 %"),
        ({"macs": TARGET, "widths": ("encoder.stages.*.widht",)}, "names no width of host"),
        ({"macs": TARGET, "widths": ("encoder.stages.*.mixer.kind",)}, "names no width of host"),
        ({"macs": TARGET, "widths": ("encoder.stages.*.block.project",)}, "names no width of host"),
    ],
)
def test_what_cannot_be_matched_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        match_spec(host({"kind": "conv"}, {"kind": "conv"}), MatchSpec(**fields))
    assert "\n" not in str(error.value)


def test_nothing_is_tried_around_widths_that_are_far_too_cheap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[Plan] = []

    def count(planned: Plan) -> Any:
        counted.append(planned)
        return cost_plan(planned)

    monkeypatch.setattr(matching, "cost_plan", count)
    with pytest.raises(SpecError, match="nearest: "):
        match_spec(host({"kind": "conv"}, {"kind": "conv"}), MatchSpec(macs=1e15))
    assert 0 < len(counted) < 20


@pytest.mark.parametrize("patch", [(16, 32, 96), (20, 30, 50), (64, 96)])
def test_a_budget_per_voxel_is_one_of_macs_at_every_patch(patch: tuple[int, ...]) -> None:
    """Voxels are the patch's, also where a network pads it: all that are compared have as many."""
    tree = host({"kind": "conv"}, {"kind": "conv"})
    sizes = InputSizes(patch_size=patch)
    found = match_spec(tree, MatchSpec(macs_per_voxel=900.0), sizes)
    macs = 900.0 * math.prod(patch)
    assert abs(cost_plan(plan(found, sizes)).macs / macs - 1) <= 0.03
    assert found == match_spec(tree, MatchSpec(macs=macs), sizes)


def test_matched_networks_have_the_numbers_they_were_planned_with() -> None:
    mixer = {"kind": "attention", "reduction": "auto", "reduce_above": 100}
    found = match_spec(host(mixer, {"kind": "conv"}), MatchSpec(macs=TARGET))
    assert found == match_spec(
        host({"kind": "attention", "reduction": 4}, {"kind": "conv"}), MatchSpec(macs=TARGET)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"macs": 1e6, "latency": 0.1},
        {"macs": 1e6, "macs_per_voxel": 10.0},
        {"macs": -1.0},
    ],
)
def test_a_target_is_one_positive_number(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="macs"):
        MatchSpec(**fields)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["mixers", "decoders"])
def test_the_anchors_of_the_shipped_hosts_are_matched_at_every_budget(
    name: str, every: bool
) -> None:
    """Each anchor at every budget under `long`, else at one, and each budget with some anchor."""
    space = load_space(name)
    before = json.loads(MATCHED.read_text(encoding="utf-8"))[name]
    assert len(before) == len(space.anchors()) > 0
    (budgets,) = (hole.options for hole in space.holes() if hole.name == BUDGET)
    assert len(budgets) == 3
    for index, params in enumerate(space.anchors()):
        assert params[BUDGET] == budgets[0]
        for order, budget in enumerate(budgets):
            if not every and order != index % 3:
                continue
            planned = space.draw(FixedTrial({**params, BUDGET: budget}))
            assert arch_hash(planned.spec) == before[index][order], (params, budget)
            macs = budget * math.prod(planned.patch_size)  # type: ignore[operator]
            assert abs(cost_plan(planned).macs / macs - 1) <= 0.03, (params, budget)


def budgeted(**fields: Any) -> dict[str, Any]:
    tree = host({"choice": ({"kind": "conv"}, {"kind": "identity"})}, {"kind": "conv"})
    return {**tree, "search": {"match": {"multiple": 1, **fields}}}


@pytest.mark.parametrize("field", ["macs", "macs_per_voxel"])
def test_a_budget_is_drawn_like_any_hole(tmp_path: Path, field: str) -> None:
    name, voxels = f"search.match.{field}", 16 * 32 * 96 if field == "macs_per_voxel" else 1
    low, high = 20e6 / voxels, 40e6 / voxels
    tree = budgeted(**{field: {"choice": [low, high]}})
    tree["search"]["anchors"] = [{name: high}, {}]
    path = tmp_path / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    space = load_space(path)
    assert space.size().combinations == 4
    assert [anchor[name] for anchor in space.anchors()] == [high, low]
    study, seen = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), {}
    for _ in range(20):
        trial = study.ask()
        planned = space.draw(trial)
        macs = voxels * trial.params[name]
        assert abs(cost_plan(planned).macs / macs - 1) <= 0.03
        seen[tuple(sorted(trial.params.items()))] = trial_hash(planned.spec)
    assert len(seen) == len(set(seen.values())) == 4, "a budget makes another network"
    # the widths as written need no budget, and a settings dump is read again
    assert (
        space.suggest(FixedTrial({"encoder.stages.0.mixer": "conv"})).encoder.stages[0].width == 32
    )
    settings = SearchSettings.model_validate_json(space.settings.model_dump_json())
    assert settings == space.settings


def test_budgets_per_voxel_that_cannot_be_are_refused_when_loaded(tmp_path: Path) -> None:
    for value, message in (
        (
            {"choice": [800.0, 0.02]},
            r"search\.match: no widths of host .*; at the space's own",
        ),
        ({"choice": []}, r"search\.match\.macs_per_voxel: .*such as \{choice: \[500, 1000\]\}"),
    ):
        path = tmp_path / "space.yaml"
        path.write_text(dump(budgeted(macs_per_voxel=value)), encoding="utf-8")
        with pytest.raises(SpecError, match=message) as error:
            load_space(path)
        assert re.match(rf"{re.escape(str(path))}:\d+:\d+  search", str(error.value))


@pytest.mark.parametrize(
    ("depth", "number", "asked"), [(1, 3, 3), (20, 3, 2), (40, 3, 1), (200, 1, 0)]
)
def test_budgets_of_deep_networks_are_left_to_the_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int, number: int, asked: int
) -> None:
    """The host has two stages; a network of many blocks takes long to cost."""
    budgets = [40e6, 80e6, 60e6][:number]
    tree = budgeted(macs={"choice": budgets} if number > 1 else 40e6)
    tree["encoder"]["defaults"]["depth"] = depth
    seen: list[float] = []
    monkeypatch.setattr("search.space.space.match_spec", lambda spec, match: seen.append(match))
    path = tmp_path / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    load_space(path)
    assert len(seen) == asked
    if 0 < asked < number:
        assert [match.macs for match in seen] == [40e6, 80e6][:asked]


@pytest.mark.parametrize(
    ("macs", "message"),
    [
        (
            {"choice": [40e6, 1e3]},
            r"search\.match: no widths of host .* cost 1,000 MACs .*; at the ",
        ),
        (1.0, r"search\.match: no widths of host .*; at the space's own patch_size \[16, 32, 96\]"),
        ({"choice": []}, r"search\.match\.macs: .* positive number .* or a choice"),
        ({"choice": [40e6, 40e6]}, "different ones"),
        ({"choice": [40e6, -1]}, "different ones"),
        ({"int": [1, 5]}, "or a choice of different ones"),
        ("many", "or a choice of different ones"),
    ],
)
def test_budgets_that_cannot_be_are_refused_when_loaded(
    tmp_path: Path, macs: Any, message: str
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(dump(budgeted(macs=macs)), encoding="utf-8")
    with pytest.raises(SpecError, match=message) as error:
        load_space(path)
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+  search", str(error.value))
    assert "\n" not in str(error.value)


def test_the_mixers_host_is_the_one_that_was_designed() -> None:
    space = load_space("mixers")
    first, *_ = space.anchors()
    planned = plan(space.suggest(FixedTrial(first)))
    assert planned.patch_size == (16, 32, 192)
    assert [math.prod(stage.out.grid) for stage in planned.stages] == [1536, 192]
    assert [stage.out.channels for stage in planned.stages] == [32, 64]
    assert [stage.spec.depth for stage in planned.stages] == [2, 2]
    names = [hole.name for hole in space.holes()]
    late = ("encoder.stages.1.mixer", "encoder.stages.1.mixer[attention].rope")
    mixers = ["encoder.stages.0.mixer", *late]
    assert names == [*mixers, "training.lr", BUDGET]
    rates = next(hole.options for hole in space.holes() if hole.name == "training.lr")
    assert len(rates) >= 3


def test_widths_that_no_network_has_are_passed_over() -> None:
    """Rotary heads need 6 channels on three axes; fewer do not count as cheap."""
    tree = host({"kind": "attention", "rope": "axial"}, {"kind": "identity"})
    found = match_spec(tree, MatchSpec(macs=12e6, multiple=1, tolerance=0.05))
    assert 6 <= found.encoder.stages[0].width < 16
    assert abs(cost(found).macs / 12e6 - 1) <= 0.05
    with pytest.raises(SpecError, match=r"nearest: .*width=6"):
        match_spec(tree, MatchSpec(macs=1e6, multiple=1))
    tree["encoder"]["stages"][0]["width"] = 4
    with pytest.raises(SpecError, match="head dims of at least 6"):
        match_spec(tree, MatchSpec(macs=12e6, multiple=1))
