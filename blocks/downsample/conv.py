"""Strided convolution into a stage; with a large kernel, the stem or a patch embedding."""

import math
from typing import Annotated, Literal

from torch import nn

from blocks.base import Added, Axes, Grid, SpecError, StageShape, per_axis
from blocks.downsample.entry import EntrySpec
from blocks.layers.act import ActOrNone, build_act
from blocks.layers.conv import conv, pointwise
from blocks.layers.dropout import DropoutRate, build_dropout
from blocks.layers.norm import Norm, build_norm, check_norm
from blocks.layers.rope import EmbeddingRope, check_rope

PRE_NORM = "instance"


class DownsampleSpec(EntrySpec):
    """Enter a stage by a convolution with a stride, then an optional norm and activation.

    `pre: norm` normalises each channel of each sample before the convolution; `norm_conv_norm` puts
    a convolution 3 between two such norms there. `groups: in` gives every input channel kernels of
    its own; where the width is no multiple of the input channels, a depth-wise convolution is
    followed by a 1x1 to the width. `rope` marks positions by rotating channels, between the
    convolution and `norm`. `in_block` makes the convolution the first one of the stage's first
    block, which brings its own norm, activation and dropout. `sparse` lets a stride pass over
    positions that a kernel smaller than it does not see, as plans of nnU-Net may. `bias` is that of
    the convolutions; `dropout`, before `norm`, how often training drops a channel of a sample.
    """

    kernel_size: Axes = 3
    stride: Axes = 2
    groups: Literal["dense", "in"] = "dense"
    pre: Literal["none", "norm", "norm_conv_norm"] = "none"
    rope: bool = False
    norm: Norm = "none"
    act: ActOrNone = "none"
    in_block: bool = False
    sparse: Annotated[bool, Added(False)] = False
    bias: Annotated[bool, Added(True)] = True
    dropout: Annotated[DropoutRate, Added(0.0)] = 0.0

    def strides(self, ndim: int) -> Grid:
        """Return the stride per axis."""
        return per_axis(self.stride, ndim, where="stride")

    @property
    def is_in_block(self) -> bool:
        return self.in_block

    def check(self, inp: StageShape, out: StageShape) -> None:
        """Refuse kernels that do not fit their stride.

        Raises:
            SpecError: an even kernel with stride 1 (the grid would shrink by one), or a kernel
                smaller than its stride (positions would be skipped); a norm that cannot work;
                more than a convolution for the block.
        """
        kernel_size = per_axis(self.kernel_size, inp.ndim, where="kernel_size")
        stride = self.strides(inp.ndim)
        for k, s in zip(kernel_size, stride, strict=True):
            if (k < s and not self.sparse) or (k % 2 == 0 and s == 1):
                raise SpecError(
                    f"{list(kernel_size)} with stride {list(stride)} skips positions or shifts "
                    "the grid",
                    field="kernel_size",
                    suggestion="use a kernel >= stride, odd where the stride is 1",
                )
        if self.in_block and self != DownsampleSpec(
            kernel_size=self.kernel_size,
            stride=self.stride,
            in_block=True,
            sparse=self.sparse,
            bias=self.bias,
        ):
            raise SpecError(
                "true takes kernel_size, stride, sparse and bias only, for all else is the block's",
                field="in_block",
                suggestion="leave out groups, pre, rope, norm, act and dropout",
            )
        if self.pre != "none":
            check_norm(PRE_NORM, inp, field="pre", instead="pre: none, ")
        if self.rope:
            check_rope(out, field="rope")
        check_norm(self.norm, out, field="norm")

    def largest(self, inp: StageShape, out: StageShape) -> int:
        """Return the elements of its largest tensor at batch 1, see `LayerSpec.largest`."""
        kernel = math.prod(per_axis(self.kernel_size, inp.ndim, where="kernel_size"))
        pairs = inp.channels * out.channels
        refined = inp.channels**2 * 3**inp.ndim if self.pre == "norm_conv_norm" else 0
        if self.groups == "dense":
            return max(pairs * kernel, refined)
        if self._separable(inp, out):
            return max(inp.channels * kernel, pairs, refined)
        return max(out.channels * kernel, refined)

    def build(self, inp: StageShape, out: StageShape) -> nn.Module:
        """Return a module (B, inp.channels, *inp.grid) -> (B, out.channels, *out.grid).

        `pre: norm_conv_norm` is SegResMamba's: github.com/badhandas/SegResMamba@7142651,
        model/segresmamba.py, `downsample_layers`.
        """
        separable = self._separable(inp, out)
        convolution = conv(
            inp.channels,
            inp.channels if separable else out.channels,
            kernel_size=per_axis(self.kernel_size, inp.ndim, where="kernel_size"),
            stride=self.strides(inp.ndim),
            groups=1 if self.groups == "dense" else inp.channels,
            bias=self.bias,
        )
        if self.in_block:
            return convolution
        layers = [*self._pre(inp), convolution]
        if separable:
            layers.append(pointwise(inp.channels, out.channels, inp.ndim, bias=self.bias))
        if self.rope:
            layers.append(EmbeddingRope(out))
        if self.dropout:
            layers.append(build_dropout(self.dropout, out.ndim))
        layers.append(build_norm(self.norm, out))
        if self.act != "none":
            layers.append(build_act(self.act))
        return nn.Sequential(*layers)

    def _separable(self, inp: StageShape, out: StageShape) -> bool:
        return self.groups == "in" and out.channels % inp.channels != 0

    def _pre(self, inp: StageShape) -> list[nn.Module]:
        if self.pre == "none":
            return []
        if self.pre == "norm":
            return [build_norm(PRE_NORM, inp)]
        refine = conv(inp.channels, inp.channels, kernel_size=(3,) * inp.ndim, bias=self.bias)
        return [build_norm(PRE_NORM, inp), refine, build_norm(PRE_NORM, inp)]
