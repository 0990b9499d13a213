"""Every field of every component does something: each value changes the network or is refused.

One that is marked `NotWeights` changes how it starts, and nothing else.
"""

from typing import Any

import torch

from archspec.network.build import build_plan
from archspec.network.plan import plan
from archspec.network.segnet import SegNet
from archspec.spec.load import load
from blocks.base import ComponentSpec, NotWeights, SpecError

Settings = tuple[str, ComponentSpec, str, list[ComponentSpec]]

PARTNERS: dict[tuple[str, str], dict[str, Any]] = {
    ("downsample", "in_block"): {"block": {"kind": "basic"}},
    ("downsample", "sparse"): {"downsample": {"kernel_size": 1}},
    ("mixer", "reduce_above"): {"mixer": {"reduction": "auto"}},
    ("mixer", "theta"): {"mixer": {"rope": "axial"}},
    ("decoder", "ratio"): {"decoder": {"block": "mednext"}},
    ("decoder", "grn"): {"decoder": {"block": "mednext"}},
    ("decoder", "bias"): {"decoder": {"num_convs": 1}},
    ("decoder", "dropout"): {"decoder": {"num_convs": 1}},
}
"""What stands beside a field that works with certain other components or fields only."""

VALUES: dict[tuple[str, str], Any] = {
    ("mixer", "reduce_above"): 200,
    ("mixer", "orders"): ("reverse",),
}
"""Values where others say nothing new: below the grid's positions, or what is the default."""


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


def starts_alike(first: SegNet, second: SegNet) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_every_value_matters(settings: Settings, ndim: int) -> None:
    part, component, field, changed = settings
    if (part, field) in VALUES:
        changed = [component.model_copy(update={field: VALUES[part, field]})]
    beside = PARTNERS.get((part, field), {})
    marks = type(component).model_fields[field].metadata
    start_only = any(isinstance(mark, NotWeights) for mark in marks)
    effects = []
    for other in changed:
        try:
            net = build(part, other, beside, ndim)
        except SpecError:
            continue
        try:
            reference = build(part, component, beside, ndim)
        except SpecError:  # nothing but the changed one can be built
            effects.append(True)
            continue
        if start_only:
            assert not starts_alike(net, reference), f"{part}: {other!r} starts as {component!r}"
        effects.append(same(net, reference, ndim) is start_only)
        assert effects[-1], f"{part}: {other!r} is {component!r}"
    assert effects, f"{part}.{field}: no other value can be used"
