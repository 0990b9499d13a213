"""Every parameter of every bundled spec learns, but for biases that a norm takes out again."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import archspec
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.network.segnet import SegNet
from archspec.spec.yaml_file import dump

# Networks with batch norm have tests of their own: its node in autograd's graph is instance norm's.
SPECS = [n for n in archspec.list_specs() if "batch" not in dump(archspec.load(n).tree())]


PASSING = (
    *("ViewBackward", "ReshapeAlias", "UnsafeViewBackward", "AddBackward", "CatBackward"),
    *("UpsampleTrilinear3DBackward", "UpsampleBilinear2DBackward", "CloneBackward"),
)


def keeps_shifts(node: Any) -> bool:
    """Say whether a constant added to a channel of its input is one constant per output channel."""
    if node.name().startswith("ConvolutionBackward"):
        return all(size == 1 for size in node._saved_weight.shape[2:])
    return bool(node.name().startswith(PASSING))


def normed_biases(net: SegNet, x: Tensor) -> set[str]:
    """Return the biases that only shift what an instance norm centres again, from autograd's graph.

    Such a shift may pass sums (residuals), interpolation, concatenation and 1x1 convolutions on its
    way; batch norm, which has the same node, is not used in these networks.
    """
    nodes: dict[str, Any] = {}
    for name, module in net.named_modules():
        if getattr(module, "bias", None) is not None:
            module.register_forward_hook(
                lambda _module, _inputs, out, name=name: nodes.update({name: out.grad_fn})
            )
    consumers: dict[Any, set[Any]] = {}
    todo = [net(x).sum().grad_fn]
    while todo:
        node = todo.pop()
        for used, _ in node.next_functions:
            if used is not None:
                if used not in consumers:
                    todo.append(used)
                consumers.setdefault(used, set()).add(node)

    def centred(node: Any) -> bool:
        return bool(consumers.get(node)) and all(
            after.name().startswith("NativeBatchNorm") or (keeps_shifts(after) and centred(after))
            for after in consumers[node]
        )

    return {f"{name}.bias" for name, node in nodes.items() if centred(node)}


@pytest.mark.parametrize("name", SPECS)
def test_every_parameter_learns(name: str, shrunk: Callable[..., Plan]) -> None:
    planned = shrunk(name, 3)
    if max(planned.total_stride) > 16:  # many positions in three dimensions
        planned = shrunk(name, 2)
    net = build_plan(planned).double()
    with torch.no_grad():
        for parameter in net.parameters():  # norms that start at zero hide what lies before them
            if not parameter.any():
                parameter.fill_(0.1)
    x = torch.randn(1, planned.in_channels, *planned.patch_size, dtype=torch.float64)
    null = normed_biases(net, x)
    if name == "segmamba-released":
        assert len(null) == 16  # as the data's README says of the official network
    net.decoder.deep_supervision = True  # every head is in the loss
    sum(out.square().sum() for out in net(x)).backward()
    largest = {}
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        largest[key] = parameter.grad.abs().max().item()
        assert math.isfinite(largest[key]), key
    scale = max(largest.values())
    assert {key for key, size in largest.items() if size < 1e-13 * scale} == null
