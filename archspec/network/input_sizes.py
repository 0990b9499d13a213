"""The sizes for which a network is planned, passed on as one."""

from dataclasses import dataclass

from blocks.base import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSizes:
    """What a network is planned for; None leaves the spec's own, of `spacing` an isotropic one.

    `patch_size` is in voxels; `spacing`, in mm per axis, matters only with `fit_stages`, which fits
    the spec's strides, kernels and stages to it, as `stages.fitted` says. A patch that the
    network's strides and mixers do not suit is padded inside it, or with `exact` refused.
    """

    in_channels: int | None = None
    num_classes: int | None = None
    patch_size: Grid | None = None
    spacing: tuple[float, ...] | None = None
    exact: bool = False
    fit_stages: bool = False


OF_SPEC = InputSizes()
"""The spec's own sizes."""
