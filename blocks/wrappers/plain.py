"""The block of two steps without a shortcut."""

from typing import Literal

from torch import Tensor, nn

from blocks.base import StageShape
from blocks.layers.act import Act, build_act
from blocks.layers.dropout import build_dropout
from blocks.layers.ffn_branch import with_ffn
from blocks.layers.norm import build_norm
from blocks.wrappers.block import ConvBlockSpec


class PlainBlockSpec(ConvBlockSpec):
    """Convolve, then mix; a norm and an activation follow each.

    `kernel_size` and `bias` are the convolution's; with `downsample.in_block`, the first block of
    a stage takes the down-sampling's convolution in its place. `dropout` follows both.
    """

    kind: Literal["plain"] = "plain"

    def build_first(
        self,
        inp: StageShape,
        at: StageShape,
        *,
        conv: nn.Module,
        mixer: nn.Module,
        ffn: nn.Module | None,
    ) -> nn.Module:
        block = PlainBlock(
            at, conv=conv, mixer=mixer, norm=self.norm, act=self.act, dropout=self.dropout
        )
        return with_ffn(block, at, ffn=ffn, norm=self.norm)


class PlainBlock(nn.Module):
    """Compute act(norm(drop(mixer(act(norm(drop(conv(x)))))))).

    With a convolution as the mixer, two steps of nnU-Net's plain U-Net.

    Source: nnU-Net, arXiv 1809.10486; github.com/MIC-DKFZ/dynamic-network-architectures 0.4.4,
    building_blocks/simple_conv_blocks.py, `StackedConvBlocks` with two convolutions.
    """

    def __init__(
        self,
        at: StageShape,
        *,
        conv: nn.Module,
        mixer: nn.Module,
        norm: str,
        act: Act,
        dropout: float,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm1 = build_norm(norm, at)
        self.mixer = mixer
        self.norm2 = build_norm(norm, at)
        self.act = build_act(act)
        self.drop = build_dropout(dropout, at.ndim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.norm1(self.drop(self.conv(x))))
        out: Tensor = self.act(self.norm2(self.drop(self.mixer(hidden))))
        return out
