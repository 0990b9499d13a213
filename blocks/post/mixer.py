"""A mixer behind the blocks of a stage."""

from collections.abc import Callable
from typing import ClassVar, Literal, Self

from torch import Tensor, nn

from blocks.base import Grid, LayerSpec, SpecError, StageShape
from blocks.layers.norm import Norm, build_norm, check_norm
from blocks.mixers.cycle import OneMixer
from blocks.mixers.identity import IdentityMixerSpec
from blocks.registry import rebuilt_with_slots


@rebuilt_with_slots
class MixerPostSpec(LayerSpec, defer_build=True):
    """End the stage with a mixer behind a norm, added to the features where `residual` says so."""

    divisor_field: ClassVar[str] = "mixer"

    kind: Literal["mixer"] = "mixer"
    mixer: OneMixer = IdentityMixerSpec()
    norm: Norm = "layer"
    residual: bool = True

    def divisor(self, ndim: int) -> Grid:
        try:
            return self.mixer.divisor(ndim)
        except SpecError as error:
            raise error.below("mixer") from None

    def settled(self, at: StageShape, largest: Callable[[int], Grid]) -> Self:
        try:
            mixer = self.mixer.settled(at, largest)
        except SpecError as error:
            raise error.below("mixer") from None
        return self if mixer is self.mixer else self.model_copy(update={"mixer": mixer})

    def check(self, at: StageShape) -> None:
        check_norm(self.norm, at, field="norm")
        try:
            self.mixer.check(at)
        except SpecError as error:
            raise error.below("mixer") from None

    def largest(self, at: StageShape) -> int:
        return self.mixer.largest(at)

    def build(self, at: StageShape) -> nn.Module:
        """Return a module (B, C, *grid) -> same shape."""
        return MixerPost(
            norm=build_norm(self.norm, at), mix=self.mixer.build(at), residual=self.residual
        )


class MixerPost(nn.Module):
    """Compute mixer(norm(x)), added to x where `residual` is set.

    Source: U-Mamba, arXiv 2401.04722, figure 1;
    github.com/bowang-lab/U-Mamba@5307397, umamba/nnunetv2/nets/UMambaEnc_3d.py, `MambaLayer`, which
    has no residual.
    """

    def __init__(self, *, norm: nn.Module, mix: nn.Module, residual: bool) -> None:
        super().__init__()
        self.norm = norm
        self.mix = mix
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mix(self.norm(x))
        return x + out if self.residual else out
