"""Bounds: what no network may exceed; the plan's largest tensor is that of the real network."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import search.space.settings  # noqa: F401  its components are among those below
from archspec.costs.memory import FusedAttention
from archspec.costs.meta_kernels import MetaKernels, meta_result
from archspec.costs.trace import on_meta
from archspec.network import bounds
from archspec.network.plan import plan
from archspec.spec.find import list_specs
from archspec.spec.load import load
from blocks.base import ComponentSpec
from blocks.errors import SpecError

TOO_LARGE: list[Any] = [10**9 + 1, 2**63, 10**400, 10**5000, float("inf"), float("nan")]


def components(of: type[ComponentSpec] = ComponentSpec) -> Iterator[type[ComponentSpec]]:
    for one in of.__subclasses__():
        yield one
        yield from components(one)


FIELDS = [
    pytest.param(one, name, id=f"{one.__name__}.{name}")
    for one in dict.fromkeys(components())
    if one.__module__.startswith(("archspec.", "blocks.", "search."))
    for name in one.model_fields
]


@pytest.mark.parametrize(("owner", "name"), FIELDS)
def test_no_field_takes_any_number(owner: type[ComponentSpec], name: str) -> None:
    """Integers end at 10^9 or below; what is a float may be larger, but no infinity."""
    real = {float, int | float | str} & set(_parts(owner.model_fields[name].annotation))
    for value in TOO_LARGE[1:] if real else TOO_LARGE:
        number = 1e101 if real and value == 2**63 else value
        for given in (number, (number,), (number,) * 2, (number,) * 3, ((number, 1, 1),)):
            with pytest.raises(ValidationError) as caught:
                owner.model_validate({name: given})
            assert name in {error["loc"][0] for error in caught.value.errors()}


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for one in get_args(annotation):
        yield from _parts(one)


def stage(**fields: Any) -> dict[str, Any]:
    return {"width": 4, "mixer": {"kind": "identity"}, "downsample": {"stride": 1}, **fields}


def tree(*stages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": "net",
        "patch_size": [8, 8, 8],
        "encoder": {"stages": stages or (stage(),)},
        "decoder": {"kind": "sum"},
        **fields,
    }


MAMBA = {"kind": "mamba", "d_state": 1, "d_conv": 1, "expand": 1}
AT_THE_BOUND = {
    "stages": (tree(*[stage()] * 16), tree(*[stage()] * 17)),
    "blocks": (tree(stage(depth=998), stage()), tree(stage(depth=999), stage())),
    "blocks of the decoder": (
        tree(stage(), stage(), decoder={"kind": "sum", "num_blocks": 998}),
        tree(stage(), stage(), decoder={"kind": "sum", "num_blocks": 999}),
    ),
    "steps of the decoder": (
        tree(stage(), stage(), decoder={"kind": "concat", "num_convs": [998]}),
        tree(stage(), stage(), decoder={"kind": "concat", "num_convs": [999]}),
    ),
    "width": (tree(stage(width=16384)), tree(stage(width=16385))),
    "width of the decoder": (
        tree(decoder={"kind": "mlp", "width": 16384}),
        tree(decoder={"kind": "mlp", "width": 16385}),
    ),
    "input": (tree(in_channels=16384), tree(in_channels=16385)),
    "classes": (tree(num_classes=16384), tree(num_classes=16385)),
    "kernel": (
        tree(stage(mixer={"kind": "conv", "kernel_size": 63})),
        tree(stage(mixer={"kind": "conv", "kernel_size": 65})),
    ),
    "kernel of a level": (
        tree(stage(), stage(), decoder={"kind": "sum", "kernel_size": [[63, 1, 1]]}),
        tree(stage(), stage(), decoder={"kind": "sum", "kernel_size": [[65, 1, 1]]}),
    ),
    "stride": (
        tree(stage(downsample={"stride": 63, "kernel_size": 63})),
        tree(stage(downsample={"stride": 64, "kernel_size": 63, "sparse": True})),
    ),
    "state": (
        tree(stage(mixer={**MAMBA, "d_state": 1024})),
        tree(stage(mixer={**MAMBA, "d_state": 1025})),
    ),
    "expansion": (
        tree(stage(mixer={**MAMBA, "expand": 1024})),
        tree(stage(mixer={**MAMBA, "expand": 1025})),
    ),
    "patch": (tree(patch_size=[8192, 8, 8]), tree(patch_size=[8193, 8, 8])),
    "padded patch": (
        tree(stage(downsample={"stride": 32, "kernel_size": 33}), patch_size=[8192, 8, 8]),
        tree(stage(downsample={"stride": 30, "kernel_size": 31}), patch_size=[8192, 8, 8]),
    ),
    "weight of 64 GiB": (
        tree(stage(width=16384, mixer={"kind": "conv", "kernel_size": [1, 5, 11]})),
        tree(stage(width=16384, mixer={"kind": "conv", "kernel_size": [1, 5, 13]})),
    ),
    "features of 64 GiB": (
        tree(stage(width=4), patch_size=[4096, 1024, 1024]),
        tree(stage(width=5), patch_size=[4096, 1024, 1024]),
    ),
    "logits of 64 GiB": (
        tree(num_classes=4, patch_size=[4096, 1024, 1024]),
        tree(num_classes=5, patch_size=[4096, 1024, 1024]),
    ),
    "name": (tree(name="a" * 200), tree(name="a" * 201)),
}


@pytest.mark.parametrize("name", AT_THE_BOUND)
def test_the_bound_is_taken_and_what_exceeds_it_refused(name: str) -> None:
    taken, refused = AT_THE_BOUND[name]
    plan(load(taken))
    with pytest.raises(SpecError) as caught:
        plan(load(refused))
    assert len(str(caught.value).splitlines()) == 1
    assert "at most" in str(caught.value) or "less than or equal to" in str(caught.value)


class _Largest(MetaKernels):
    """Keep the most elements of a tensor that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = meta_result(func, args, kwargs or {})
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.untyped_storage().nbytes() // 4)
        return out


def traced(spec: dict[str, Any] | str) -> int:
    """Return the elements of the largest tensor that the network really has or makes."""
    net, x = on_meta(plan(load(spec)))
    with torch.enable_grad(), FusedAttention(), _Largest() as largest:
        net(x)
    return max(largest.elements, x.numel(), *(p.numel() for p in net.parameters()))


def one_stage(**fields: Any) -> dict[str, Any]:
    """Return a network in which the stage's fields make the largest tensor."""
    return tree(stage(width=24, **fields), decoder={"kind": "sum"})


WIDE = {"expand": 8, "d_state": 300}
LARGEST: dict[str, dict[str, Any] | str] = {
    **{name: name for name in list_specs()},
    "attention": one_stage(mixer={"kind": "attention", "num_heads": 2}),
    "reduced attention": one_stage(mixer={"kind": "attention", "reduction": 4}),
    "conv": one_stage(mixer={"kind": "conv", "kernel_size": 7}),
    "mamba": one_stage(mixer={"kind": "mamba", "expand": 8, "directions": 2}),
    "mamba with a large state": one_stage(mixer={"kind": "mamba", **WIDE}),
    "reduced mamba": one_stage(mixer={"kind": "mamba", "reduction": 8}),
    "tom": one_stage(mixer={"kind": "tom", "expand": 4}),
    "tom with a large state": one_stage(mixer={"kind": "tom", **WIDE}),
    "mlp": one_stage(ffn={"kind": "mlp", "ratio": 9.0}),
    "mix": one_stage(ffn={"kind": "mix", "ratio": 9.0}),
    "basic": one_stage(block={"kind": "basic", "kernel_size": 7}),
    "plain": one_stage(block={"kind": "plain", "kernel_size": 7}),
    "gate": one_stage(block={"kind": "residual", "gate": "conv"}),
    "project": one_stage(block={"kind": "residual", "project": True}),
    "cmmb": one_stage(block={"kind": "cmmb"}),
    "gsc": one_stage(local={"kind": "gsc"}),
    "post": one_stage(post={"kind": "conv", "kernel_size": 7}),
    "skip": one_stage(skip={"mlp_ratio": 12.0}),
    "downsample": one_stage(downsample={"stride": 2, "kernel_size": 31}),
    "pre": tree(stage(width=64), stage(downsample={"pre": "norm_conv_norm"})),
    "separable": tree(
        stage(width=24),
        stage(width=30, downsample={"stride": 4, "groups": "in", "kernel_size": 63}),
    ),
    "sum": tree(stage(), stage(), decoder={"kind": "sum", "kernel_size": 31}),
    "sum of another width": tree(
        stage(width=64), stage(width=512), decoder={"kind": "sum", "num_blocks": 0}
    ),
    "mlp decoder": tree(stage(), stage(), decoder={"kind": "mlp", "width": 300}),
    "concat": tree(stage(), stage(), decoder={"kind": "concat", "kernel_size": 31}),
    "plain concat": tree(
        stage(),
        stage(width=9),
        decoder={"kind": "concat", "num_convs": 2, "skip_block": "none", "kernel_size": 31},
    ),
    "concat of the input": tree(stage(), stage(), decoder={"kind": "concat", "input_skip": True}),
    "bottleneck": tree(stage(), stage(), decoder={"kind": "concat", "bottleneck_width": 900}),
    "up": tree(
        stage(width=60),
        stage(width=60, downsample={"stride": 8, "kernel_size": 9, "groups": "in"}),
        decoder={"kind": "concat", "num_convs": 1, "skip_block": "none", "kernel_size": 1},
    ),
    "classes": tree(num_classes=999),
    "head": tree(
        stage(width=900, downsample={"stride": 8, "kernel_size": 1, "sparse": True}),
        decoder={"kind": "sum", "head": "transpose"},
        num_classes=9,
    ),
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_tensor_is_that_of_the_real_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of its size lets the network pass, and one of a number less refuses it."""
    elements = traced(LARGEST[name])
    spec = load(LARGEST[name])
    monkeypatch.setattr(bounds, "MAX_TENSOR", 4 * elements)
    plan(spec)
    monkeypatch.setattr(bounds, "MAX_TENSOR", 4 * elements - 4)
    with pytest.raises(SpecError, match="makes a tensor of"):
        plan(spec)
