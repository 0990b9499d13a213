"""torch.compile of three bundled networks as one graph: convolutions, attention with Mamba, ToM."""

from collections.abc import Callable

import pytest
import torch

from archspec.network.build import build_plan
from archspec.network.plan import Plan

NETWORKS = ("small-unet", "segmaformer", "segmamba")
"""Those that benchmarks/deploy.py times."""


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("small-unet", "eager"),
        *(pytest.param(name, "inductor", marks=pytest.mark.long) for name in NETWORKS),
    ],
)
def test_no_graph_breaks(
    name: str, backend: str, shrunk: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSPEC_SCAN", "reference")  # numba would compile for ten seconds
    torch._dynamo.reset()
    planned = shrunk(name)
    net = build_plan(planned).eval()
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    x = torch.randn(1, planned.in_channels, *planned.patch_size)
    with torch.no_grad():
        try:
            found = compiled(x)
        except torch._inductor.exc.InductorError as error:  # no C++ compiler on this machine
            pytest.skip(f"inductor does not work here: {error}")
        want = net(x)
    assert (found - want).abs().max() <= 1e-4 * want.abs().max()
