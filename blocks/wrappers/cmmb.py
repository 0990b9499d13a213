"""CMMB: a mixer at half the resolution, between convolutions."""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Grid, StageShape
from blocks.layers.act import build_act
from blocks.layers.conv import conv, doubling_conv
from blocks.layers.ffn_branch import with_ffn
from blocks.layers.norm import Norm, build_norm, check_norm
from blocks.wrappers.block import BlockSpec


class CMMBSpec(BlockSpec):
    """Halve the grid, convolve, mix, convolve, double the grid, and add the input.

    `norm` follows every convolution; `mixer_norm` comes before the mixer, which has no residual of
    its own. The mixer sees half the grid, rounded up, then up to the next even size.
    `resize_kernel` is that of the two convolutions that change the grid.
    """

    kind: Literal["cmmb"] = "cmmb"
    norm: Norm = "layer"
    mixer_norm: Norm = "layer"
    resize_kernel: Literal[3, 5] = 5

    def grid_divisor(self, needed: Grid) -> Grid:
        return tuple(1 if 2 % n == 0 else 2 * math.lcm(2, n) for n in needed)

    def mixer_shape(self, at: StageShape) -> StageShape:
        return StageShape(at.channels, tuple(n + n % 2 for n in _halved(at.grid)))

    def check(self, at: StageShape) -> None:
        rule = f"a stage's grid with an axis of 3 or more (cmmb halves {list(at.grid)}), "
        half = StageShape(at.channels, _halved(at.grid))
        check_norm(self.norm, half, field="norm", instead=f"layer or group1, {rule}")
        check_norm(self.mixer_norm, self.mixer_shape(at), field="mixer_norm")

    def largest(self, at: StageShape) -> int:
        kernel = math.prod((self.resize_kernel,) * at.ndim)
        return max(at.channels**2 * kernel, self.mixer_shape(at).elements)

    def build(
        self, at: StageShape, *, mixer: nn.Module, ffn: nn.Module | None, position: float = 0.0
    ) -> nn.Module:
        mixer_norm = build_norm(self.mixer_norm, self.mixer_shape(at))
        block = CMMB(
            at,
            mixer_norm=mixer_norm,
            mixer=mixer,
            norm=self.norm,
            resize_kernel=self.resize_kernel,
        )
        return with_ffn(block, at, ffn=ffn, norm=self.norm)


class CMMB(nn.Module):
    """Compute x + enlarge(last(mixer(first(shrink(x))))); norm and ReLU follow each convolution.

    `shrink` and `enlarge` have stride 2, `first` and `last` 3x3x3 kernels. Around the
    mixer, odd axes are padded by one plane of zeros at their end. Where x has an odd axis, what
    comes back is one plane too large, and the first one is dropped.

    Source: SegResMamba, arXiv 2503.07766, figure of the block; github.com/badhandas/
    SegResMamba@7142651, model/segresmamba.py, `GSC`, where the mixer is built and never called.
    Deviation: the figure's second ToM, behind the sum, is in no published code and not here.
    """

    def __init__(
        self,
        at: StageShape,
        *,
        mixer_norm: nn.Module,
        mixer: nn.Module,
        norm: str,
        resize_kernel: int,
    ) -> None:
        super().__init__()
        half = StageShape(at.channels, _halved(at.grid))
        width, resizing, three = at.channels, (resize_kernel,) * at.ndim, (3,) * at.ndim
        self.shrink = _normed(
            conv(width, width, kernel_size=resizing, stride=(2,) * at.ndim), half, norm=norm
        )
        self.first = _normed(conv(width, width, kernel_size=three), half, norm=norm)
        self.mixer_norm = mixer_norm
        self.mixer = mixer
        self.last = _normed(conv(width, width, kernel_size=three), half, norm=norm)
        self.enlarge = _normed(doubling_conv(width, width, kernel_size=resizing), at, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(self.shrink(x))
        out: Tensor = self.enlarge(self.last(self._mixed(hidden)))
        for axis in range(2, x.ndim):
            out = out.narrow(axis, out.shape[axis] - x.shape[axis], x.shape[axis])
        return x + out

    def _mixed(self, x: Tensor) -> Tensor:
        grid = tuple(x.shape[2:])
        pads = [pad for n in reversed(grid) for pad in (0, n % 2)]
        mixed: Tensor = self.mixer(self.mixer_norm(F.pad(x, pads)))
        for axis, n in enumerate(grid, start=2):
            mixed = mixed.narrow(axis, 0, n)
        return mixed


def _halved(grid: Grid) -> Grid:
    return tuple(math.ceil(n / 2) for n in grid)


def _normed(layer: nn.Module, at: StageShape, *, norm: str) -> nn.Module:
    return nn.Sequential(layer, build_norm(norm, at), build_act("relu"))
