"""Models of timm as feature pyramids: which may be named, how they are made, what they give.

timm is imported when a model is first planned, which takes seconds. Nothing here downloads, but
for `pretrained_model` without weights.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from blocks.base import SpecError, StageShape
from blocks.errors import quoted, reason
from blocks.layers.foreign import Largest, NumbersOnHost, bounded, quiet
from blocks.layers.fused_attention import FusedAttention

_FIELD = "encoder.timm"
_WEIGHTS = "encoder.pretrained"

Indices = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Pyramid:
    """What a model gives: the features that are taken, fine to coarse, and its largest tensor.

    `elements` are those of the tensor at batch 1.
    """

    features: tuple[StageShape, ...]
    elements: int


def _timm() -> Any:
    """Return the package."""
    with quiet():
        import timm
    return timm


def check_name(name: str) -> None:
    """Refuse what timm has no model for, or no weights of that tag.

    Raises:
        SpecError: see above.
    """
    timm = _timm()
    base, dot, tag = name.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=1)
        raise SpecError(
            f"timm {timm.__version__} has no model {quoted(base)}",
            field=_FIELD,
            suggestion=f"did you mean {near[0]!r}?" if near else "see timm.list_models()",
        )
    known = [one.partition(".")[2] for one in timm.list_pretrained(f"{base}.*")] if dot else []
    if dot and tag not in known:
        raise SpecError(
            f"timm's {base} has no weights with the tag {quoted(tag)}",
            field=_FIELD,
            allowed=", ".join(known),
            suggestion="" if known else "leave the tag out",
        )


def check_has_weights(name: str) -> None:
    """Refuse a model that timm has no weights of, before anyone waits for them.

    Raises:
        SpecError: see above.
    """
    timm = _timm()
    if not timm.is_model_pretrained(name):
        raise SpecError(
            f"timm has no weights of {name}",
            field=_WEIGHTS,
            suggestion="use false, or give a file of your own",
        )


def is_sized(name: str) -> bool:
    """Say whether the model is built for one size of its input."""
    timm = _timm()
    found = timm.get_pretrained_cfg(name)
    return found is not None and bool(found.fixed_input_size)


def divisor(name: str, indices: Indices) -> int:
    """Return by what an axis of the input must divide: the strides of all features.

    Raises:
        SpecError: timm cannot make the model as a pyramid, or it has fewer features.
    """
    every, usual = _feature_info(name)
    taken = usual if indices is None else indices
    if max(taken) >= len(every):
        raise SpecError(
            f"{name} has features 0 to {len(every) - 1}",
            field="encoder.out_indices",
            allowed=f"at most {len(every) - 1}",
        )
    return math.lcm(*(every[index] for index in taken))


@cache
def _feature_info(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the strides of all features, and which of them timm takes by default."""
    with torch.device("meta"):
        info: Any = _made(name, {}).feature_info
    every = tuple(int(one["reduction"]) for one in info.info)
    return every, tuple(index % len(every) for index in info.out_indices)


@cache
def pyramid(name: str, indices: Indices, inp: StageShape) -> Pyramid:
    """Run the model without memory.

    Raises:
        SpecError: it cannot be made for this input, or does not run at it; a model for one size may
            run at another.
    """
    other = "patch_size" if is_sized(name) else ""
    with torch.device("meta"):
        net = make(name, indices, inp)
        x = torch.empty(1, inp.channels, *inp.grid)
    try:
        with torch.no_grad(), quiet(), FusedAttention(), Largest() as largest:
            found = net.eval()(x)
    except Exception as error:  # timm's own checks, shapes that do not match
        raise SpecError(
            f"{name} does not run on the meta device at {list(x.shape)}: {reason(error)}",
            field=_FIELD,
            other=other,
        ) from None
    features = tuple(_shape_of(one, net) for one in found)
    _check_statistics(name, net, features[-1])
    parameters = (parameter.numel() for parameter in net.parameters())
    return Pyramid(features, max(largest.elements, *parameters))


def make(name: str, indices: Indices, inp: StageShape) -> nn.Module:
    """Return the model on the default device, with start values as timm draws them.

    Raises:
        SpecError: timm cannot make it so.
    """
    return _made(name, _arguments(name, indices, inp))


def channels_first(features: Tensor, net: nn.Module) -> Tensor:
    """Return features of the model as (B, C, H, W)."""
    return features.permute(0, 3, 1, 2).contiguous() if _is_channels_last(net) else features


def pretrained_model(
    name: str, indices: Indices, inp: StageShape, weights: Mapping[str, Tensor] | None
) -> nn.Module:
    """Return the model with weights: timm's own, which may be downloaded, or those given.

    Those are a state dict of the whole model, as `timm.create_model(name).state_dict()`. timm fits
    its first convolution to the channels of the input.

    Raises:
        SpecError: no weights come, or they are not the model's.
    """
    arguments = _arguments(name, indices, inp) | {"pretrained": True}
    if weights is not None:
        with torch.device("meta"):
            _check_cover(name, make(name, indices, inp), weights)
        overlay: dict[str, Any] = {"state_dict": dict(weights), "source": ""}
        if _suits_channels(name, inp.channels, weights):
            overlay["first_conv"] = None
        arguments["pretrained_cfg_overlay"] = overlay
    timm = _timm()
    try:
        with torch.device("cpu"), quiet():
            net: nn.Module = timm.create_model(name, features_only=True, **arguments)
    except Exception as error:  # no network, no such file there, weights of other shapes
        whose = "its weights" if weights is None else "these weights"
        raise SpecError(
            f"timm cannot load {whose} of {name}: {type(error).__name__}: {reason(error)}",
            field=_WEIGHTS,
            suggestion="give a file of weights, or false" if weights is None else "",
        ) from None
    return net


def _arguments(name: str, indices: Indices, inp: StageShape) -> dict[str, Any]:
    return {
        "in_chans": inp.channels,
        **({} if indices is None else {"out_indices": indices}),
        **({"img_size": inp.grid} if is_sized(name) else {}),
    }


def _made(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    timm = _timm()
    create = partial(timm.create_model, name, pretrained=False, features_only=True, **arguments)
    try:
        with quiet(), NumbersOnHost(), bounded(name, field=_FIELD):
            try:
                net: nn.Module = create()
            except NotImplementedError:  # RegNet computes its widths by what meta cannot do
                device = torch.empty(0).device
                with torch.device("cpu"):
                    net = create().to(device)
    except SpecError:
        raise
    except Exception as error:  # most often: it gives no features
        raise SpecError(
            f"timm cannot make {name} with features_only=True: {type(error).__name__}: "
            f"{reason(error)}",
            field=_FIELD,
            suggestion="name another model",
        ) from None
    return net


def _is_channels_last(net: nn.Module) -> bool:
    return str(getattr(getattr(net, "output_fmt", None), "value", "NCHW")) == "NHWC"


def _shape_of(features: Tensor, net: nn.Module) -> StageShape:
    _, channels, *grid = channels_first(features, net).shape
    return StageShape(channels, tuple(grid))


def _check_statistics(name: str, net: nn.Module, coarsest: StageShape) -> None:
    """Refuse batch norm over one position, as of our own stages."""
    batch = any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in net.modules())
    if batch and coarsest.positions == 1:
        raise SpecError(
            f"the batch norms of {name} over a grid of one position have nothing to take "
            "statistics of",
            field=_FIELD,
            suggestion="use a larger patch",
            other="patch_size",
        )


def _check_cover(name: str, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that lack a tensor of the pyramid, which timm would leave as it was drawn.

    A pyramid names `stages.0.conv` of a model `stages_0.conv`, or puts `model.` before it.
    """
    start = "model." if all(key.startswith("model.") for key in net.state_dict()) else ""
    needed = [key.removeprefix(start).replace(".", "_") for key, _ in net.named_parameters()]
    given = {key.replace(".", "_") for key in weights}
    missing = [key for key in needed if key not in given]
    if missing:
        raise SpecError(
            f"not the weights of {name}: of its {len(needed)} parameters {len(missing)} are "
            f"missing, e.g. {missing[0]}",
            field=_WEIGHTS,
            suggestion=f"save timm.create_model({name!r}).state_dict()",
        )


def _suits_channels(name: str, channels: int, weights: Mapping[str, Tensor]) -> bool:
    """Say whether the first convolutions have these input channels, and none is to be fitted.

    Raises:
        SpecError: they have neither these nor the three that timm can fit.
    """
    timm = _timm()
    found = timm.get_pretrained_cfg(name)
    named = None if found is None else found.first_conv
    names = (named,) if isinstance(named, str) else tuple(named or ())
    first = [weights[f"{one}.weight"] for one in names if f"{one}.weight" in weights]
    own = {one.shape[1] for one in first if one.ndim > 1}
    if own - {3, channels}:
        raise SpecError(
            f"weights for {max(own)} input channels, but the network has {channels}",
            field=_WEIGHTS,
            allowed=f"weights for {channels}, or for 3, which timm fits",
        )
    return own == {channels}
