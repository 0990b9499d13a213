"""FUE against its formula, and at the ends of what a float holds."""

import math

import pytest
import torch

from blocks.layers.fue import FUE, uncertainty


def test_fue_is_the_formula() -> None:
    z = 3 * torch.randn(2, 7, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    mean = 1 / (1 + torch.exp(-z.mean(1, keepdim=True)))
    u = -mean * torch.log(mean)
    torch.testing.assert_close(uncertainty(z), u, rtol=1e-12, atol=0)
    torch.testing.assert_close(FUE()(z), z + z * (1 - u), rtol=1e-12, atol=0)
    assert 0 < u.min() < u.max() <= 1 / math.e
    assert torch.autograd.gradcheck(FUE(), z[:1, :2, :2, :2, :2].detach().requires_grad_())
    assert not list(FUE().parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("level", [-6e4, -200, -20, 0, 20, 6e4])
def test_fue_is_safe_at_the_ends(dtype: torch.dtype, level: float) -> None:
    z = torch.full((1, 3, 2, 2), level, dtype=dtype, requires_grad=True)
    u = uncertainty(z)
    assert (u >= 0).all()
    assert (u <= 1 / math.e + 1e-6).all()
    out = FUE()(z) if abs(level) < 3e4 else u
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert out.dtype == (dtype if abs(level) < 3e4 else uncertainty(z).dtype)
