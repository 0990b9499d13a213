"""Networks on a CUDA device, under the precisions that nnU-Net and the search train in."""

from collections.abc import Callable

import pytest
import torch

from archspec.network.build import build_plan
from archspec.network.plan import Plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_forward_and_backward_are_finite_under_autocast(
    spec_name: str, dtype: torch.dtype, shrunk: Callable[..., Plan]
) -> None:
    planned = shrunk(spec_name, 3)
    net = build_plan(planned).cuda()
    x = torch.randn(1, planned.in_channels, *planned.patch_size, device="cuda")
    with torch.autocast("cuda", dtype):
        logits = net(x)
    assert isinstance(logits, torch.Tensor)
    logits.float().square().mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_logits_equal_the_cpu_s(spec_name: str, shrunk: Callable[..., Plan]) -> None:
    planned = shrunk(spec_name, 3)
    net = build_plan(planned).eval()
    x = torch.randn(1, planned.in_channels, *planned.patch_size)
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        expected = net(x)
        found = net.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
