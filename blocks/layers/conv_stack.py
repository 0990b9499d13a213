"""Plain steps of convolution, norm and activation."""

from dataclasses import dataclass

from torch import nn

from blocks.base import Grid, StageShape
from blocks.layers.act import Act, build_act
from blocks.layers.conv import conv
from blocks.layers.dropout import build_dropout
from blocks.layers.norm import build_norm


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvStep:
    """One step conv - dropout - norm - act."""

    kernel_size: Grid
    bias: bool
    dropout: float
    norm: str
    act: Act


def conv_stack(in_channels: int, at: StageShape, *, num_convs: int, step: ConvStep) -> nn.Module:
    """Return `num_convs` steps conv - dropout - norm - act: (B, in, *grid) -> (B, C, *grid).

    At rate 0 there is no module for the dropout.

    Source: github.com/MIC-DKFZ/dynamic-network-architectures 0.4.4,
    building_blocks/simple_conv_blocks.py, `StackedConvBlocks`.
    """
    widths = [in_channels, *[at.channels] * (num_convs - 1)]
    return nn.Sequential(
        *(
            nn.Sequential(
                conv(width, at.channels, kernel_size=step.kernel_size, bias=step.bias),
                *([build_dropout(step.dropout, at.ndim)] if step.dropout else []),
                build_norm(step.norm, at),
                build_act(step.act),
            )
            for width in widths
        )
    )
