"""Every field of every component does something: each value changes the network or is refused."""

from typing import Any

import torch

from archspec.network.build import build_plan
from archspec.network.plan import plan
from archspec.network.segnet import SegNet
from archspec.spec.load import load
from blocks.base import ComponentSpec, SpecError

Settings = tuple[str, ComponentSpec, str, list[ComponentSpec]]

PARTNERS: dict[tuple[str, str], dict[str, Any]] = {
    ("downsample", "in_block"): {"block": {"kind": "basic"}},
    ("downsample", "sparse"): {"downsample": {"kernel_size": 1}},
    ("decoder", "bias"): {"decoder": {"num_convs": 1}},
    ("decoder", "dropout"): {"decoder": {"num_convs": 1}},
}
"""What stands beside a field that works with certain other components or fields only."""


def build(part: str, component: ComponentSpec, beside: dict[str, Any], ndim: int) -> SegNet:
    """Build a network with the component in its first stage, which has a second one behind it."""
    others = {name: fields for name, fields in beside.items() if name != part}
    tree = {**component.model_dump(mode="json"), **beside.get(part, {})}
    stage = {"width": 12, "mixer": {"kind": "conv"}, "downsample": {"stride": [2, 1, 2][:ndim]}}
    first = {**stage, "depth": 2, **others, **({} if part == "decoder" else {part: tree})}
    spec = load(
        {
            "name": "fields",
            "in_channels": 2,
            "patch_size": (12, 6, 8)[:ndim],
            "encoder": {"stages": [first, stage]},
            "decoder": tree if part == "decoder" else {"kind": "sum"},
        }
    )
    torch.manual_seed(1)
    return build_plan(plan(spec))


def same(first: SegNet, second: SegNet, ndim: int) -> bool:
    """Say whether two networks are one function of input and weights, in training as well."""
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (first, second)]
    if shapes[0] != shapes[1] or repr(first) != repr(second):
        return False
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 2, 12, *(6, 8)[: ndim - 1])
    with torch.no_grad():
        return torch.equal(first(x), second(x))


def test_every_value_matters(settings: Settings, ndim: int) -> None:
    part, component, field, changed = settings
    beside = PARTNERS.get((part, field), {})
    effects = []
    for other in changed:
        try:
            net = build(part, other, beside, ndim)
        except SpecError:
            continue
        try:
            effects.append(not same(net, build(part, component, beside, ndim), ndim))
        except SpecError:  # nothing but the changed one can be built
            effects.append(True)
        assert effects[-1], f"{part}: {other!r} is {component!r}"
    assert effects, f"{part}.{field}: no other value can be used"
