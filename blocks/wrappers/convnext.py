"""The block of one residual branch: ConvNeXt's, and MedNeXt's."""

from typing import Literal

from torch import Tensor, nn

from blocks.base import StageShape
from blocks.layers.norm import Norm, build_norm, check_norm
from blocks.wrappers.block import BlockSpec


class ConvNeXtBlockSpec(BlockSpec):
    """Add mixer, norm and FFN, one behind the other, to the features.

    With a depth-wise convolution without activation as the mixer and an MLP as the FFN, this is
    ConvNeXt's block under `norm: layer`, and MedNeXt's under `norm: instance_affine`.
    """

    kind: Literal["convnext"] = "convnext"
    norm: Norm = "layer"

    def check(self, at: StageShape) -> None:
        check_norm(self.norm, at, field="norm")

    def build(
        self, at: StageShape, *, mixer: nn.Module, ffn: nn.Module | None, position: float = 0.0
    ) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return ConvNeXtBlock(at, norm=self.norm, mixer=mixer, ffn=ffn)


class ConvNeXtBlock(nn.Module):
    """Compute x + ffn(norm(mixer(x))).

    Source: ConvNeXt, arXiv 2201.03545, section 2.6 and figure 4; MedNeXt, arXiv 2303.09975,
    section 2.1, as in github.com/Project-MONAI/MONAI 1.6.1, monai/networks/blocks/mednext_block.py.
    """

    def __init__(
        self, at: StageShape, *, norm: str, mixer: nn.Module, ffn: nn.Module | None
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = build_norm(norm, at)
        self.ffn = nn.Identity() if ffn is None else ffn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.ffn(self.norm(self.mixer(x)))
        return out
