"""Components that scripts register: named, validated, built, and refused where unknown."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

import archspec
from archspec.overfit.train import overfit
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.plugins import check_packages, packages, refuse_scripted
from archspec.spec.schema import ArchSpec
from archspec.testing import ComponentError, check_component
from blocks import registry
from blocks.base import ComponentSpec, Grid, LayerSpec, SpecError, StageShape
from blocks.downsample.entry import EntrySpec
from blocks.registry import Broken, Origin, slots
from search.retrain.retrain import Retraining, retrain


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Forget what a test registers."""
    before = {
        name: (dict(s._kinds), dict(s._origins), list(s.broken)) for name, s in slots().items()
    }
    yield
    for name, slot in slots().items():
        slot._kinds, slot._origins, slot.broken = before[name]
    registry._rebuild()


class Twice(LayerSpec):
    """Double features."""

    kind: Literal["twice"] = "twice"
    factor: float = 2.0

    def build(self, at: StageShape) -> nn.Module:
        return Times(self.factor)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Pool(EntrySpec):
    """Enter a stage by a mean over 2 x 2 (x 2) positions and a 1x1 convolution."""

    kind: Literal["pool"] = "pool"

    def strides(self, ndim: int) -> Grid:
        return (2,) * ndim

    def build(self, inp: StageShape, out: StageShape) -> nn.Module:
        pool, conv = (nn.AvgPool2d, nn.Conv2d) if inp.ndim == 2 else (nn.AvgPool3d, nn.Conv3d)
        return nn.Sequential(pool(2), conv(inp.channels, out.channels, 1))


def tree(**stage: Any) -> dict[str, Any]:
    return {
        "name": "net",
        "patch_size": [16, 16],
        "encoder": {"stages": [{"width": 4, "mixer": {"kind": "twice"}, **stage}]},
        "decoder": {"kind": "sum"},
    }


def test_a_kind_is_unknown_until_it_is_registered() -> None:
    with pytest.raises(SpecError, match=r"'twice' is not a mixer; allowed: conv, .*identity"):
        load(tree())
    assert archspec.register_mixer(Twice) is Twice
    spec = load(tree(mixer={"kind": "twice", "factor": 3.0}))
    assert archspec.build(spec)(torch.zeros(1, 1, 16, 16)).shape == (1, 2, 16, 16)
    assert "twice" in archspec.list_components("mixer")
    assert "twice" in str(ArchSpec.model_json_schema())
    with pytest.raises(SpecError, match=r"mixer\.factr: unknown key.* did you mean 'factor'"):
        load(tree(mixer={"kind": "twice", "factr": 3.0}))
    with pytest.raises(SpecError, match="did you mean 'twice'"):
        load(tree(mixer={"kind": "twise"}))


def test_a_registered_component_keeps_every_rule() -> None:
    archspec.register_mixer(Twice)
    check_component(Twice)
    archspec.register_downsample(Pool)
    check_component(Pool)


def test_a_slot_without_kinds_still_takes_a_mapping_without_one() -> None:
    former = load(tree(mixer={"kind": "conv"}, downsample={"stride": 2}))
    archspec.register_mixer(Twice)
    archspec.register_downsample(Pool)
    spec = load(tree(downsample={"kind": "pool"}))
    assert isinstance(spec.encoder.stages[0].downsample, Pool)
    assert load(spec.tree()) == spec
    again = load(tree(mixer={"kind": "conv"}, downsample={"stride": 2}))
    assert arch_hash(again) == arch_hash(former)
    with pytest.raises(SpecError, match=r"downsample\.kernel: unknown key"):
        load(tree(downsample={"kernel": 2}))
    with pytest.raises(SpecError, match="downsample"):
        load(tree(downsample={"kind": "poool"}))


def test_a_class_that_is_defined_again_replaces_itself() -> None:
    archspec.register_mixer(Twice)
    again = type("Twice", (LayerSpec,), {**_body(Twice), "__module__": Twice.__module__})
    archspec.register_mixer(again)
    assert slots()["mixer"].kinds()["twice"] is again
    assert isinstance(load(tree()).encoder.stages[0].mixer, again)


def _body(cls: type) -> dict[str, Any]:
    annotations = {"kind": Literal["twice"], "factor": float}
    return {
        "__annotations__": annotations,
        "__qualname__": cls.__qualname__,
        "kind": "twice",
        "factor": 2.0,
        "build": cls.__dict__["build"],
    }


class Other(LayerSpec):
    kind: Literal["conv"] = "conv"

    def build(self, at: StageShape) -> nn.Module:
        return nn.Identity()


class Nameless(LayerSpec):
    def build(self, at: StageShape) -> nn.Module:
        return nn.Identity()


class Needy(LayerSpec):
    kind: Literal["needy"] = "needy"
    size: int

    def build(self, at: StageShape) -> nn.Module:
        return nn.Identity()


class Unbuilt(LayerSpec):
    kind: Literal["unbuilt"] = "unbuilt"


class Alone(ComponentSpec):
    kind: Literal["alone"] = "alone"


@pytest.mark.parametrize(
    ("cls", "line"),
    [
        (Other, "the mixer 'conv' is registered already, by blocks.mixers.conv.ConvMixerSpec"),
        (Nameless, "must name its kind, once, with the default"),
        (Needy, "the field size needs a default"),
        (Unbuilt, r"has no build\(\)"),
        (Alone, "a mixer must be a subclass of blocks.base.LayerSpec"),
        (nn.Identity(), "a mixer must be a subclass of blocks.base.LayerSpec"),
    ],
)
def test_what_cannot_be_a_component_is_refused(cls: Any, line: str) -> None:
    before = slots()["mixer"].kinds()
    with pytest.raises(SpecError, match=line):
        archspec.register_mixer(cls)
    assert slots()["mixer"].kinds() == before


def _export(found: ArchSpec) -> object:
    return archspec.export_nnunet(found, 999)


def _overfit(found: ArchSpec) -> object:
    return overfit(archspec.plan(found), None)  # type: ignore[arg-type]


def _retrain(found: ArchSpec) -> object:
    job = Retraining("net", found.tree(), seed=0)
    return retrain([job], table=Path("no"), settings=None, rung_steps=(1,), devices=["cpu"])  # type: ignore[arg-type]


@pytest.mark.parametrize("use", [_export, _overfit, _retrain])
def test_what_other_processes_must_know_is_refused(use: Callable[[ArchSpec], object]) -> None:
    archspec.register_mixer(Twice)
    spec = load(tree())
    with pytest.raises(SpecError, match="the mixer 'twice' is registered by this script alone"):
        use(spec)


def test_a_space_that_draws_it_is_refused() -> None:
    archspec.register_mixer(Twice)
    space = tree(mixer={"choice": [{"kind": "conv"}, {"kind": {"choice": ["twice", "mamba"]}}]})
    with pytest.raises(SpecError, match="'twice' is registered by this script alone, and they"):
        refuse_scripted("they", space)
    refuse_scripted("they", tree(mixer={"kind": "conv"}))


def test_an_installed_kind_has_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    archspec.register_mixer(Twice)
    spec = load(tree())
    assert packages(spec) == {}
    slots()["mixer"]._add(Twice, Origin("my-mixers", "1.2"))
    assert packages(spec) == {"my-mixers": "1.2"}
    refuse_scripted("the processes that train", spec)
    with pytest.raises(
        SpecError, match=r"needs .*my-mixers 1\.2, which is not installed; pip install"
    ):
        check_packages({"my-mixers": "1.2"})
    with pytest.warns(UserWarning, match="made with torch 0.1, but"):
        check_packages({"torch": "0.1"})


def test_a_broken_package_is_said_where_its_kind_is_used() -> None:
    broken = Broken("archspec.mixers", "twice", Origin("my-mixers", "1.2"), "no module named foo")
    slots()["mixer"].broken.append(broken)
    with pytest.raises(SpecError, match=r"cannot be used: .*'twice' of my-mixers 1.2: no module"):
        load(tree())


class Silent(Twice):
    kind: Literal["silent"] = "silent"  # type: ignore[assignment]

    def build(self, at: StageShape) -> nn.Module:
        module = Times(1.0)
        module.unused = nn.Parameter(torch.zeros(1))
        return module


class Random(Twice):
    kind: Literal["random"] = "random"  # type: ignore[assignment]

    def build(self, at: StageShape) -> nn.Module:
        return Noise()


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


@pytest.mark.parametrize(
    ("cls", "line"),
    [
        (Silent, "Silent in 2-D, gradients: .*unused gets no gradient"),
        (Random, "Random in 2-D, state_dict: equal weights do not give equal logits"),
    ],
)
def test_a_component_that_breaks_a_rule_is_told(cls: type[LayerSpec], line: str) -> None:
    archspec.register_mixer(cls)
    with pytest.raises(ComponentError, match=line):
        check_component(cls)


def test_a_component_that_is_not_registered_is_told() -> None:
    with pytest.raises(ComponentError, match=r"Twice is not registered, see archspec\.register_"):
        check_component(Twice())
