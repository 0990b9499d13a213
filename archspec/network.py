"""SegNet: the generic network that every plan compiles to."""

from torch import Tensor, nn

from blocks.base import Grid
from blocks.decoders.decoder import Decoder


class Stage(nn.Module):
    """Down-sample, run the blocks, normalise: (B, C, *grid) -> (B, width, *grid / stride)."""

    def __init__(self, *, downsample: nn.Module, blocks: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.blocks(self.downsample(x)))
        return out


class SegNet(nn.Module):
    """Encoder stages and a decoder: (B, in_channels, *patch) -> logits (B, num_classes, *patch).

    While `decoder.deep_supervision` is set, forward returns a list of logits, fine to coarse, in
    training and evaluation alike. Any input size works whose axes divide by `total_stride`.
    """

    def __init__(self, stages: list[nn.Module], decoder: Decoder, *, total_stride: Grid) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.decoder = decoder
        self.total_stride = total_stride

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        grid = tuple(x.shape[2:])
        if len(grid) != len(self.total_stride) or any(
            n % s for n, s in zip(grid, self.total_stride, strict=True)
        ):
            raise ValueError(
                f"input of shape {tuple(x.shape)}: each of the {len(self.total_stride)} spatial "
                f"axes must divide by {list(self.total_stride)}"
            )
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        out: Tensor | list[Tensor] = self.decoder(skips, grid)
        return out
