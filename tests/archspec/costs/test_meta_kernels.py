"""Our kernels for the meta device against PyTorch's: same results, without its compiler."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.costs import flops, memory, meta_kernels
from archspec.costs.flops import cost_plan
from archspec.costs.memory import training_memory
from archspec.costs.meta_kernels import meta_result
from archspec.network.plan import Plan, plan
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec

pytestmark = pytest.mark.smoke


def layout(tensor: Tensor | None) -> Any:
    """Return all that a tensor without memory has."""
    if tensor is None:
        return None
    strides = [n for n, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
    return tensor.shape, strides, tensor.dtype, tensor.untyped_storage().nbytes()


class Compared:
    """Run PyTorch's kernel beside ours and hold the results to each other."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        ours = meta_result(func, args, kwargs)
        packet = func._overloadpacket
        if packet in meta_kernels._KERNELS or packet is torch.ops.aten.arange:
            want = func(*args, **kwargs)
            results = [r if isinstance(r, tuple) else (r,) for r in (ours, want)]
            assert [*map(layout, results[0])] == [*map(layout, results[1])], (func, args)
            self.seen.add(str(func._overloadpacket))
        return ours


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    found = Compared()
    for module in (flops, memory, meta_kernels):
        monkeypatch.setattr(module, "meta_result", found)
    return found


def trace(planned: Plan) -> None:
    cost_plan(planned)
    for amp in (False, True):
        training_memory(planned, amp=amp)


@pytest.mark.long
def test_component(
    component: dict[str, ComponentSpec],
    ndim: int,
    small_spec: Callable[..., ArchSpec],
    compared: Compared,
) -> None:
    trace(plan(small_spec(ndim, **component)))
    assert {"aten.add", "aten.logsumexp"} <= compared.seen


def test_bundled_spec(some_spec: str, shrunk: Callable[..., Plan], compared: Compared) -> None:
    trace(shrunk(some_spec))
    assert compared.seen


def test_the_compiler_is_not_imported() -> None:
    """PyTorch's own kernels for meta would: it takes longer than all of describe."""
    code = (
        "import sys\n"
        "from archspec.costs.describe import describe_plan\n"
        "from archspec.network.resolve import resolve\n"
        "describe_plan(resolve('segmamba'))\n"
        "assert 'torch' in sys.modules\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
