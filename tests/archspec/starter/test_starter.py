"""Specs and spaces to begin with: they fit the sizes, keep the budget and say what they cost."""

import math
import re
from pathlib import Path

import pytest

from archspec.costs.describe import describe_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.network.stages import fitted
from archspec.spec.load import load, validate
from archspec.spec.yaml_file import compose, dump_inline, parse
from archspec.starter.budget import Budget, flops_of, widest
from archspec.starter.layout import Layout, mixer_kinds
from archspec.starter.text import starter
from blocks.errors import SpecError
from search.space.space import load_space

SIZES = {
    "isotropic": InputSizes(in_channels=2, num_classes=3, patch_size=(32, 32, 32)),
    "thick": InputSizes(
        in_channels=1, num_classes=3, patch_size=(8, 64, 48), spacing=(5.0, 0.5, 0.5)
    ),
    "2-D": InputSizes(in_channels=1, num_classes=2, patch_size=(64, 48)),
}


def layout(sizes: InputSizes, *mixers: str, is_space: bool = False) -> Layout:
    return Layout(name="start", title="A start", sizes=sizes, mixers=mixers, is_space=is_space)


CASES = [("mamba", "isotropic"), ("conv", "thick"), ("attention", "2-D")]


@pytest.mark.parametrize(("kind", "of"), CASES)
def test_a_spec_is_fitted_and_says_what_it_costs(kind: str, of: str) -> None:
    sizes = SIZES[of]
    budget = Budget(flops=1e9, memory=10**9, batch=3)
    found = starter(layout(sizes, kind), budget, told="Told.")
    spec = validate(compose(found.text, "start.yaml"))
    assert (spec.in_channels, spec.num_classes) == (sizes.in_channels, sizes.num_classes)
    assert fitted(spec, sizes).spec == spec
    planned = plan(spec, sizes)
    assert planned.padded_size == sizes.patch_size
    assert spec.encoder.stages[-1].mixer.kind == kind
    assert {stage.mixer.kind for stage in spec.encoder.stages[:2]} == {"conv"}
    cost = describe_plan(planned, batch=3)
    assert 0.2e9 < cost.flops <= 1e9 and cost.training.amp.total <= 10**9
    text = " ".join(found.text.replace("\n# ", " ").split())
    assert f"costs {cost.flops / 1e9:.4g} of 1 GFLOPs" in text
    assert f"about {cost.training.amp.total / 2**30:.2f} of 0.93 GiB" in text
    shares = [int(share) for share in re.findall(r"(\d+)% of the FLOPs", found.text)]
    assert len(shares) == len(spec.encoder.stages) + 1 and abs(sum(shares) - 100) <= len(shares)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_any_mixer_can_stand_at_coarse_grids(sizes: InputSizes) -> None:
    for kind in mixer_kinds():
        planned = plan(load(layout(sizes, kind).spec(8, kind)), sizes)
        assert planned.padded_size == sizes.patch_size, kind
        assert planned.spec.encoder.stages[-1].mixer.kind == kind


def test_thick_slices_are_not_strided_before_they_are_comparable() -> None:
    found = starter(layout(SIZES["thick"], "conv"), Budget(flops=1e9), told="")
    stages = validate(compose(found.text, "start.yaml")).encoder.stages
    assert [one.downsample.stride for one in stages][:3] == [1, (1, 2, 2), (1, 2, 2)]
    assert stages[0].mixer.model_dump()["kernel_size"] == (1, 3, 3)


@pytest.mark.parametrize("of", ["flops", "memory"])
def test_the_next_width_would_not_fit(of: str) -> None:
    start = layout(SIZES["isotropic"], "mamba")
    budget = Budget(flops=2e9) if of == "flops" else Budget(memory=80 * 10**6)
    width = widest(start, budget)
    assert width > 4
    assert budget.keeps(plan(load(start.spec(width, "mamba")), start.sizes))
    assert not budget.keeps(plan(load(start.spec(width + 4, "mamba")), start.sizes))
    assert widest(start, Budget()) == 32


def test_what_is_too_little_says_what_would_do() -> None:
    start = layout(SIZES["2-D"], "conv", "attention")
    with pytest.raises(SpecError, match="the cheapest such network costs") as caught:
        widest(start, Budget(flops=1e3))
    (said,) = re.findall(r"costs (\S+) GFLOPs", str(caught.value))
    assert "`budget`" in str(caught.value)
    assert widest(start, Budget(flops=float(said) * 1.01e9)) == 4
    with pytest.raises(SpecError, match="`gpu_memory` allows"):
        widest(start, Budget(flops=1e15, memory=1000))


def test_a_space_holds_networks_of_all_mixers(tmp_path: Path) -> None:
    sizes, budget = SIZES["thick"], Budget(flops=2e9, memory=10**9, batch=4)
    mixers = ("conv", "mamba", "attention")
    plans = "nnUNetPlans"
    found = starter(layout(sizes, *mixers, is_space=True), budget, told="", plans=plans)
    file = tmp_path / "start.yaml"
    file.write_text(found.text, encoding="utf-8")
    space = load_space(file)
    settings = space.settings
    assert (settings.limits.gflops, settings.limits.memory) == (2.0, "1GB")
    assert settings.batch_size == 4
    (anchor,) = space.anchors()
    assert anchor["training.lr"] == 1e-3
    assert anchor["encoder.stages.0.width"] == found.widest.stages[0].width // 2
    options = {hole.name: hole.shown for hole in space.holes()}
    last = len(space.source.tree["encoder"]["stages"]) - 1
    assert all(kind in options[f"encoder.stages.{last}.mixer"] for kind in mixers)
    first = found.widest
    assert (
        max(one.width for one in first.stages)
        == space.source.tree["encoder"]["stages"][last]["width"]["choice"][1]
    )


def test_a_space_of_convolutions_has_widths_and_depths(tmp_path: Path) -> None:
    file = tmp_path / "start.yaml"
    found = starter(layout(SIZES["2-D"], "conv", is_space=True), Budget(flops=1e9), told="")
    file.write_text(found.text, encoding="utf-8")
    names = [hole.name.rpartition(".")[2] for hole in load_space(file).holes()]
    assert set(names) == {"width", "depth", "lr"}


@pytest.mark.parametrize(
    ("text", "flops"), [("20GFLOPs", 20e9), ("1.5 tflop", 1.5e12), ("800M", 8e8), ("2g", 2e9)]
)
def test_flops(text: str, flops: float) -> None:
    assert flops_of(text) == flops


@pytest.mark.parametrize(
    "text", ["", "20", "GFLOPs", "0G", "-1G", "1e9", "20GMACs", "9" * 30 + "T"]
)
def test_no_flops(text: str) -> None:
    with pytest.raises(SpecError, match="such as 20GFLOPs"):
        flops_of(text)


def test_one_line_of_yaml() -> None:
    for value in ({"a": [1, {"b": "no", "c": 1e-5}]}, "x: y", 3, [], math.pi, "1e3", None):
        text = dump_inline(value)
        assert "\n" not in text
        assert parse(f"k: {text}", "line").tree == {"k": value} or isinstance(value, dict | list)
