"""The basic block of residual encoders."""

from typing import Literal

from torch import Tensor, nn

from blocks.base import StageShape
from blocks.layers.act import build_act
from blocks.layers.conv import mean_pool, pointwise
from blocks.layers.dropout import build_dropout
from blocks.layers.ffn_branch import with_ffn
from blocks.layers.norm import build_norm
from blocks.wrappers.block import ConvBlockSpec


class BasicBlockSpec(ConvBlockSpec):
    """Convolve, then mix, and add the input before the last activation.

    `kernel_size` and `bias` are the convolution's, which `dropout` follows; with
    `downsample.in_block`, the first block of a stage takes the down-sampling's convolution in its
    place, and its shortcut shrinks by mean pooling.
    """

    kind: Literal["basic"] = "basic"

    def build_first(
        self,
        inp: StageShape,
        at: StageShape,
        *,
        conv: nn.Module,
        mixer: nn.Module,
        ffn: nn.Module | None,
    ) -> nn.Module:
        block = BasicBlock(inp, at, spec=self, conv=conv, mixer=mixer)
        return with_ffn(block, at, ffn=ffn, norm=self.norm)


class BasicBlock(nn.Module):
    """Compute act(norm(mixer(act(norm(drop(conv(x)))))) + shortcut(x)).

    The shortcut is mean pooling over the stride, then norm(1x1 convolution) where the channels
    change. With a convolution as the mixer, this is nnU-Net's block.

    Source: ResNet-D, arXiv 1812.01187, section 4.2;
    github.com/MIC-DKFZ/dynamic-network-architectures 0.4.4, building_blocks/residual.py,
    `BasicBlockD`.
    """

    def __init__(
        self,
        inp: StageShape,
        at: StageShape,
        *,
        spec: BasicBlockSpec,
        conv: nn.Module,
        mixer: nn.Module,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm1 = build_norm(spec.norm, at)
        self.mixer = mixer
        self.norm2 = build_norm(spec.norm, at)
        self.act = build_act(spec.act)
        self.drop = build_dropout(spec.dropout, at.ndim)
        stride = tuple(n // m for n, m in zip(inp.grid, at.grid, strict=True))
        shortcut: list[nn.Module] = []
        if any(step > 1 for step in stride):
            shortcut.append(mean_pool(stride))
        if inp.channels != at.channels:
            project = pointwise(inp.channels, at.channels, at.ndim, bias=False)
            shortcut += [project, build_norm(spec.norm, at)]
        self.shortcut = nn.Sequential(*shortcut)

    @property
    def last_norm(self) -> nn.Module:
        return self.norm2

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.norm1(self.drop(self.conv(x))))
        out: Tensor = self.act(self.norm2(self.mixer(hidden)) + self.shortcut(x))
        return out
