"""An encoder of timm: a model's features as skips, in 2-D."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from blocks.base import Allowed, ComponentSpec, Grid, NotWeights, SpecError, StageShape, is_count
from blocks.encoders import timm_models
from blocks.layers.foreign import positions_and_scales

_MOST = 100


def _check_pretrained(value: object) -> object:
    """Take a file as it can be found from anywhere."""
    if not isinstance(value, bool | str) or value == "":
        raise ValueError("must be true, false, or a file of weights")
    return str(Path(value).absolute()) if isinstance(value, str) else value


def _check_indices(value: object) -> object:
    if value is None:
        return None
    indices = value if isinstance(value, tuple) else ()
    counts = all(is_count(one, least=0, most=_MOST) for one in indices)
    if not indices or not counts or list(indices) != sorted(set(indices)):
        raise ValueError("must be a list of features, from 0 on and fine to coarse, e.g. [0, 1, 2]")
    return value


class TimmEncoderSpec(ComponentSpec):
    """Take a model of timm by its name, such as `convnext_tiny`, in place of stages; 2-D alone.

    The decoder gets its features `out_indices`, fine to coarse, those that timm takes where they
    are left out. Its convolutions on the input are fitted to the channels as timm does it.
    `pretrained: true` starts from timm's own weights, which it may download when a training starts;
    a file (.safetensors, or what torch.save wrote) is a state dict of the whole model, and its path
    is taken from the spec's folder.
    """

    timm: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)?$", max_length=99)]
    pretrained: Annotated[
        bool | str,
        NotWeights(),
        BeforeValidator(_check_pretrained),
        Allowed("true | false | a file"),
    ] = False
    out_indices: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(_check_indices),
        Allowed("a list of integers >= 0, fine to coarse, or null"),
    ] = None

    @property
    def stages(self) -> tuple[()]:
        """Return no stages of ours."""
        return ()

    def divisor(self, ndim: int) -> Grid:
        """Return by what every axis of the network's input must divide.

        Raises:
            SpecError: not in 2-D, or nothing that timm can make.
        """
        if ndim != 2:
            raise SpecError(
                f"timm's models are 2-D, but the patch has {ndim} axes",
                field="encoder.timm",
                suggestion="give a patch_size of two axes, or stages of our own",
                other="patch_size",
            )
        timm_models.check_name(self.timm)
        if self.pretrained is True:
            timm_models.check_has_weights(self.timm)
        return (timm_models.divisor(self.timm, self.out_indices),) * ndim

    def features(self, inp: StageShape) -> tuple[StageShape, ...]:
        """Return the skips, fine to coarse.

        Raises:
            SpecError: the model does not run at this input.
        """
        return timm_models.pyramid(self.timm, self.out_indices, inp).features

    def largest(self, inp: StageShape) -> int:
        """Return the elements of the largest tensor at batch 1."""
        return timm_models.pyramid(self.timm, self.out_indices, inp).elements

    def build(self, inp: StageShape) -> "TimmEncoder":
        return TimmEncoder(inp, spec=self)


class TimmEncoder(nn.Module):
    """Map the input to the coarsest features, and to all of them for the decoder.

    It starts as timm draws it; `load_start` is for whoever begins a training. It stands where
    stages do, the only one.
    """

    keeps_start: ClassVar[bool] = True

    def __init__(self, inp: StageShape, *, spec: TimmEncoderSpec) -> None:
        super().__init__()
        self.spec, self.inp = spec, inp
        self.model = timm_models.make(spec.timm, spec.out_indices, inp)
        self.only = inp.grid if timm_models.is_sized(spec.timm) else None

    @property
    def spared_from_decay(self) -> frozenset[str]:
        """Return what is no weight of a layer: tables of positions, say."""
        return positions_and_scales(self)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.only is not None and tuple(x.shape[2:]) != self.only:
            raise ValueError(
                f"input of {tuple(x.shape[2:])}: {self.spec.timm} was built for {self.only} and "
                "runs at no other size; give windows of that size"
            )
        features = tuple(timm_models.channels_first(one, self.model) for one in self.model(x))
        return features[-1], features

    def load_start(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Replace what timm drew by these weights of the whole model, else by timm's own.

        Raises:
            SpecError: they do not come, or are not the model's.
        """
        spec = self.spec
        donor = timm_models.pretrained_model(spec.timm, spec.out_indices, self.inp, weights)
        self.model.load_state_dict(donor.state_dict())
