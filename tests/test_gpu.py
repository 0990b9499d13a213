"""Networks on a CUDA device, under the precisions that nnU-Net and the search train in."""

import pytest
import torch

import archspec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", archspec.list_specs())
def test_forward_and_backward_are_finite_under_autocast(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = archspec.build(name, in_channels=1, num_classes=3, patch_size=(32, 32, 32)).cuda()
    x = torch.randn(1, 1, 32, 32, 32, device="cuda")
    with torch.autocast("cuda", dtype):
        logits = net(x)
    assert isinstance(logits, torch.Tensor)
    logits.float().square().mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", archspec.list_specs())
def test_logits_equal_the_cpu_s(name: str) -> None:
    torch.manual_seed(0)
    net = archspec.build(name, in_channels=1, num_classes=3, patch_size=(32, 32, 32)).eval()
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        expected = net(x)
        found = net.cuda()(x.cuda()).cpu()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
