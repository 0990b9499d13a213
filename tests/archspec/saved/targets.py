"""What every bundled spec becomes as every target, in 2-D and 3-D: the table of docs/deploy.md.

`python -m tests.archspec.saved.targets [SPEC...]` prints its rows.
"""

import sys
import tempfile
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


def network(name: str, ndim: int) -> SegNet:
    """Build the spec small, with two positions per axis in its deepest stage or more.

    A norm over one position divides rounding by rounding.

    Raises:
        SpecError: the spec is not for so many axes.
    """
    torch.manual_seed(0)
    strides = archspec.plan(name, patch_size=(128,) * ndim).window.total_stride
    patch = tuple(max(_SIZE[ndim], 2 * stride) for stride in strides)
    return archspec.build(name, patch_size=patch).eval()


def images(net: SegNet) -> Tensor:
    return torch.randn(1, net.planned.in_channels, *net.planned.patch_size)


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
    with torch.no_grad():
        x = images(net)
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
                print(row(name, ndim, outcomes(name, ndim, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
