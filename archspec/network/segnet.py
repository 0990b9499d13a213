"""SegNet: the generic network that every plan compiles to."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.network.plan import Plan
from archspec.network.window import far_end
from blocks.base import Grid
from blocks.decoders.decoder import Decoder
from blocks.skip.transform import Tap


class Stage(nn.Module):
    """Down-sample, run local and blocks, post, norm: (B, C, *grid) -> (B, width, *grid / stride).

    Returns the features for the next stage, and those for the decoder, None where it gets none.
    """

    def __init__(
        self,
        *,
        downsample: nn.Module,
        local: nn.Module,
        blocks: list[nn.Module],
        post: nn.Module,
        norm: nn.Module,
        skip: nn.Module,
        tap: Tap,
    ) -> None:
        super().__init__()
        self.downsample = downsample
        self.local = local
        self.blocks = nn.Sequential(*blocks)
        self.post = post
        self.norm = norm
        self.skip = skip
        self.tap = tap

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        entered = self.downsample(x)
        out = self.norm(self.post(self.blocks(self.local(entered))))
        if self.tap == "none":
            return out, None
        return out, self.skip(entered if self.tap == "before_blocks" else out)


class SegNet(nn.Module):
    """Encoder stages and a decoder: (B, in_channels, *patch) -> logits (B, num_classes, *patch).

    A model of timm stands as the only stage, and gives several skips.

    While `decoder.deep_supervision` is set, forward returns a list of logits, fine to coarse, in
    training and evaluation alike. Any input size works: one that does not divide by
    `total_stride` is padded with zeros at the far end, and the logits are cropped. A ToM with
    `num_slices` also needs its tokens to divide by it, or refuses them with a ValueError, but for
    the patch that the network was planned for. `planned` is what it was made from, for
    `archspec.save`; `spec_name` says whose published weights fit, for `archspec.load_official`.
    """

    def __init__(self, stages: list[nn.Module], decoder: Decoder, *, planned: Plan) -> None:
        super().__init__()
        self.planned = planned
        self.spec_name = planned.spec.name
        self.stages = nn.ModuleList(stages)
        self.decoder = decoder
        self.window = planned.window

    @property
    def total_stride(self) -> Grid:
        """Return by what the axes of an input must divide not to be padded."""
        return self.window.total_stride

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.window.check(x)
        size = tuple(x.shape[2:])
        grid = self.window.padded(size)
        if grid != size:
            x = F.pad(x, far_end(size, grid))
        skips = [x] if self.decoder.takes_input else []
        for stage in self.stages:
            x, skip = stage(x)
            if isinstance(skip, tuple):
                skips += skip
            elif skip is not None:
                skips.append(skip)
        out: Tensor | list[Tensor] = self.decoder(skips, grid, size)
        return out
