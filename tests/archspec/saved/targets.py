"""What every bundled spec becomes as every target, in 2-D and 3-D: the table of docs/deploy.md.

The weights are those of a short training, as deployed ones are: logits of start weights tie on
many voxels, and rounding decides their labels.

`python -m tests.archspec.saved.targets [SPEC...]` prints its rows.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

import archspec
from archspec.network.segnet import SegNet
from archspec.saved.onnx import write_onnx
from archspec.saved.pt2 import write_pt2
from archspec.saved.save import info_of
from blocks.errors import SpecError

LOGITS, LABELS = 1e-4, 0.999
"""By how much logits may differ relative to the largest; the share of voxels of equal label."""
_SIZE = {2: 64, 3: 32}
_STEPS, _LOSS, _CELL = 100, 0.5, 16
"""Optimizer steps of the training at most; the loss that ends it; voxels per axis of one label."""


def network(name: str, ndim: int) -> SegNet:
    """Build the spec small, with two positions per axis in its deepest stage or more.

    A norm over one position divides rounding by rounding.

    Raises:
        SpecError: the spec is not for so many axes.
    """
    torch.manual_seed(0)
    strides = archspec.plan(name, patch_size=(128,) * ndim).window.total_stride
    patch = tuple(max(_SIZE[ndim], 2 * stride) for stride in strides)
    return archspec.build(name, patch_size=patch)


def example(net: SegNet) -> tuple[Tensor, Tensor]:
    """Draw an image of cells of one label each, and its labels: the first channel shows them."""
    plan = net.planned
    cells = torch.randint(plan.num_classes, [-(-size // _CELL) for size in plan.patch_size])
    for axis, size in enumerate(plan.patch_size):
        cells = cells.repeat_interleave(_CELL, axis).narrow(axis, 0, size)
    x = 0.1 * torch.randn(1, plan.in_channels, *plan.patch_size)
    x[0, 0] += 2 * cells / (plan.num_classes - 1) - 1
    return x, cells[None]


def trained(net: SegNet) -> SegNet:
    """Train it until most labels are right, and return it for evaluation."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    net.train()
    for _ in range(_STEPS):
        x, labels = example(net)
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < _LOSS:
            break
    return net.eval()


def run(file: Path, x: Tensor) -> Tensor:
    """Return the logits of an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"image": x.numpy()})
    return torch.from_numpy(found)


def difference(found: Tensor, want: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    assert found.shape == want.shape
    return float((found - want).abs().max() / want.abs().max())


def _safetensors(net: SegNet, x: Tensor, want: Tensor, folder: Path) -> str:
    file = archspec.save(net, folder / "net.safetensors", force=True)
    found = archspec.from_pretrained(file).eval()(x)
    return "equal" if torch.equal(found, want) else f"differs by {difference(found, want):.1e}"


def _pt2(net: SegNet, x: Tensor, want: Tensor, folder: Path) -> str:
    file = folder / "net.pt2"
    written = write_pt2(net, info_of(net), file, force=True)
    off = difference(torch.export.load(file).module()(x), want)
    if not off <= LOGITS:
        return f"differs by {off:.1e}"
    return "equal, needs archspec" if written.operators else "equal"


def _onnx(net: SegNet, x: Tensor, want: Tensor, folder: Path) -> str:
    file = folder / "net.onnx"
    write_onnx(net, info_of(net), file, force=True)
    off = difference(run(file, x), want)
    return "equal" if off <= LOGITS else f"differs by {off:.1e}"


def _half(net: SegNet, x: Tensor, want: Tensor, folder: Path) -> str:
    file = folder / "net.onnx"
    write_onnx(net, info_of(net), file, half=True, force=True)
    same = float((run(file, x).argmax(1) == want.argmax(1)).float().mean())
    return "equal labels" if same >= LABELS else f"equal labels on {100 * same:.2f} %"


TARGETS: dict[str, Callable[[SegNet, Tensor, Tensor, Path], str]] = {
    "safetensors": _safetensors,
    "pt2": _pt2,
    "onnx": _onnx,
    "onnx --half": _half,
}


def outcomes(name: str, ndim: int, folder: Path) -> list[str]:
    """Return the cells of a row; the first says why where the network cannot be built."""
    try:
        net = network(name, ndim)
    except SpecError as error:
        return [_refused(error), *["refused"] * (len(TARGETS) - 1)]
    x, _ = example(trained(net))
    with torch.no_grad():
        want = net(x)
        return [_told(target, net, x, want, folder) for target in TARGETS.values()]


def _told(
    target: Callable[[SegNet, Tensor, Tensor, Path], str],
    net: SegNet,
    x: Tensor,
    want: Tensor,
    folder: Path,
) -> str:
    try:
        return target(net, x, want, folder)
    except SpecError as error:
        return _refused(error)


def _refused(error: SpecError) -> str:
    return f"refused: {error.problems[0].problem}"


def row(name: str, ndim: int, cells: list[str]) -> str:
    return f"| {name} | {ndim}-D | {' | '.join(cells)} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or archspec.list_specs():
            for ndim in (2, 3):
                began = time.monotonic()
                print(row(name, ndim, outcomes(name, ndim, Path(folder))), flush=True)
                print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
