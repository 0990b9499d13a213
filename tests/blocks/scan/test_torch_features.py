"""The operators under torch.compile, torch.export, checkpointing, DDP and double backward."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocks.base import StageShape
from blocks.mixers.tom import TomMixerSpec
from blocks.scan.causal_conv import causal_conv1d
from blocks.scan.op import selective_scan

GRID = (4, 2, 3)


def tom_mixer() -> nn.Module:
    torch.manual_seed(0)
    return TomMixerSpec(d_state=4).build(StageShape(channels=8, grid=GRID))


def gradients(net: nn.Module, out: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out.square().sum(), list(net.parameters())))


@pytest.mark.parametrize(
    "compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)]
)
def test_compile_without_graph_breaks(compiler: str) -> None:
    mixer, x = tom_mixer(), torch.randn(2, 8, *GRID)
    try:
        compiled = torch.compile(mixer, fullgraph=True, backend=compiler)
        out = compiled(x)
    except torch._inductor.exc.InductorError as error:  # no C++ compiler on this machine
        pytest.skip(f"inductor does not work here: {error}")
    torch.testing.assert_close(out, mixer(x))
    for found, want in zip(gradients(mixer, out), gradients(mixer, mixer(x)), strict=True):
        torch.testing.assert_close(found, want)


def test_compile_under_autocast() -> None:
    mixer, x = tom_mixer(), torch.randn(2, 8, *GRID)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), mixer(x))


def test_export_keeps_the_operators() -> None:
    mixer, x = tom_mixer().eval(), torch.randn(2, 8, *GRID)
    program = torch.export.export(mixer, (x,))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("archspec.selective_scan" in name for name in names) == 1
    assert sum("archspec.causal_conv1d" in name for name in names) == 1
    torch.testing.assert_close(program.module()(x), mixer(x))


@pytest.mark.parametrize("orders", [("forward", "reverse", "inter_slice"), ("hdw", "-whd")])
def test_export_with_any_depth(orders: Any) -> None:
    """Slices, integers among the operators' orders, follow the input; so do swapped axes."""
    mixer = TomMixerSpec(d_state=4, orders=orders).build(StageShape(8, (6, 2, 3))).eval()
    sizes = ({2: torch.export.Dim("depth", min=5, max=64)},)
    program = torch.export.export(mixer, (torch.randn(1, 8, 6, 2, 3),), dynamic_shapes=sizes)
    x = torch.randn(1, 8, 9, 2, 3)
    torch.testing.assert_close(program.module()(x), mixer(x))


def test_export_with_any_batch() -> None:
    mixer, x = tom_mixer().eval(), torch.randn(2, 8, *GRID)
    program = torch.export.export(mixer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.randn(3, 8, *GRID)
    torch.testing.assert_close(program.module()(x), mixer(x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool) -> None:
    mixer, x = tom_mixer(), torch.randn(2, 8, *GRID, requires_grad=True)
    out = checkpoint(mixer, x, use_reentrant=reentrant)
    assert isinstance(out, Tensor)
    out.square().sum().backward()
    found = [p.grad for p in mixer.parameters()]
    for grad, want in zip(found, gradients(mixer, mixer(x)), strict=True):
        torch.testing.assert_close(grad, want)


def _train(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    mixer = nn.parallel.DistributedDataParallel(tom_mixer())
    out = mixer(torch.load(f"{folder}/x.pt")[rank : rank + 1])
    out.square().sum().backward()
    torch.save([p.grad for p in mixer.parameters()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.long
def test_distributed_data_parallel(tmp_path: Path) -> None:
    """Two processes with half a batch each average to the gradients of the whole."""
    mixer, x = tom_mixer(), torch.randn(2, 8, *GRID)
    torch.save(x, tmp_path / "x.pt")
    mp.spawn(_train, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for grad, want in zip(found, gradients(mixer, mixer(x)), strict=True):
            torch.testing.assert_close(grad, want / 2)


def test_copies_and_meta() -> None:
    mixer, x = tom_mixer(), torch.randn(2, 8, *GRID)
    torch.testing.assert_close(copy.deepcopy(mixer)(x), mixer(x))
    assert mixer.to("meta")(x.to("meta")).shape == x.shape


@pytest.mark.parametrize(
    "gate", [True, pytest.param(False, marks=pytest.mark.long)], ids=["z", "no-z"]
)
def test_double_backward_of_the_scan(backend: str, gate: bool) -> None:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    A = (-torch.rand(2, 2, 2, dtype=torch.float64) - 0.2).requires_grad_()
    inputs = [leaf(1, 2, 4, 2), leaf(1, 2, 4, 2), A, leaf(1, 2, 4, 2), leaf(1, 2, 4, 2)]
    inputs += [leaf(2, 2), leaf(2, 2), *([leaf(1, 4, 2)] if gate else [])]
    assert torch.autograd.gradgradcheck(
        lambda *tensors: selective_scan(*tensors, *([] if gate else [None]), (1, 2)), inputs
    )


def test_double_backward_of_the_convolution(backend: str) -> None:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    inputs = (leaf(1, 4, 2), leaf(2, 2, 3), leaf(2, 2))
    assert torch.autograd.gradcheck(lambda *t: causal_conv1d(*t, (-1, 2)), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: causal_conv1d(*t, (-1, 2)), inputs)
