"""How images become a network's input and its logits masks, as a saved file says it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from archspec.spec.words import did_you_mean, shown
from blocks.errors import SpecError

Options = Mapping[str, bool | int | float | str | None]

_AXES = (0, 1, 2)
_RESAMPLE = "resample_data_or_seg_to_shape"
_NATURAL = (".png", ".bmp", ".tif")
_MOST = 1e6


def _spline(order: int) -> Options:
    return {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """What nnU-Net's plans say beside spacing and normalization, under their names there.

    `transpose_forward` are the axes of a file, as nnU-Net reads it (D, H, W), in the order of the
    patch's. `mirror_axes` are those of the patch along which predictions may be mirrored: the ones
    that the training mirrored along.
    """

    transpose_forward: tuple[int, ...] = _AXES
    mirror_axes: tuple[int, ...] = ()
    file_ending: str = ".nii.gz"
    channel_names: tuple[str, ...] | None = None
    image_reader_writer: str = "SimpleITKIO"
    preprocessor_name: str = "DefaultPreprocessor"
    label_manager: str = "LabelManager"
    resampling_fn_data: str = _RESAMPLE
    resampling_fn_data_kwargs: Options = field(default_factory=lambda: _spline(3))
    resampling_fn_probabilities: str = _RESAMPLE
    resampling_fn_probabilities_kwargs: Options = field(default_factory=lambda: _spline(1))

    @classmethod
    def of(cls, given: Any, *, in_channels: int, ndim: int) -> Self:
        """Return what a caller or a file says; what it leaves out is as nnU-Net usually has it.

        Raises:
            SpecError: a name that is none of these, or a value that does not fit.
        """
        if isinstance(given, cls):
            given = given.to_json()
        names = [one.name for one in fields(cls)]
        if not isinstance(given, Mapping):
            raise SpecError(f"must be a mapping, but is {shown(given)}", field="preprocessing")
        for name in given:
            if name not in names:
                raise SpecError(
                    "no such entry",
                    field=f"preprocessing.{name}",
                    allowed=", ".join(names),
                    suggestion=did_you_mean(str(name), names),
                )
        rules: dict[str, tuple[Callable[[Any], bool], str]] = {
            "transpose_forward": (
                lambda value: _are_axes(value, 3) and len(value) == 3,
                "the axes 0, 1 and 2 in some order",
            ),
            "mirror_axes": (lambda value: _are_axes(value, ndim), f"axes from 0 to {ndim - 1}"),
            "file_ending": (_is_ending, "an ending such as .nii.gz"),
            "channel_names": (
                lambda value: value is None or _are_names(value, in_channels),
                f"a name for each of {in_channels} input channels",
            ),
        }
        for name, value in given.items():
            usual = (_are_options, "a mapping of names to numbers or words")
            if not name.endswith("_kwargs"):
                usual = (_is_name, "a name of nnU-Net's")
            fits, allowed = rules.get(name, usual)
            if not fits(value):
                raise SpecError(
                    f"must be {allowed}, but is {shown(value)}", field=f"preprocessing.{name}"
                )
        ending = given.get("file_ending", ".nii.gz")
        reader = {"image_reader_writer": "NaturalImage2DIO"} if ending in _NATURAL else {}
        said: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }
        return cls(**reader | said)

    @property
    def transpose_backward(self) -> tuple[int, ...]:
        """Return the order that undoes `transpose_forward`."""
        return tuple(self.transpose_forward.index(axis) for axis in _AXES)

    def to_json(self) -> dict[str, Any]:
        """Return all of it, as `of` takes it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def text(self) -> str:
        """Return the line of it."""
        order = " ".join(map(str, self.transpose_forward))
        mirrored = " ".join(map(str, self.mirror_axes)) or "none"
        return f"images {self.file_ending}, axes {order}, mirrored {mirrored}"


def _are_axes(value: Any, most: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and all(type(one) is int and 0 <= one < most for one in value)
        and len(set(value)) == len(value)
    )


def _are_names(value: Any, count: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(one, str) for one in value)
    )


def _are_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str)
        and (
            one is None
            or isinstance(one, bool | str)
            or (isinstance(one, int | float) and -_MOST < one < _MOST)
        )
        for key, one in value.items()
    )


def _is_ending(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"(\.[A-Za-z0-9]{1,8}){1,2}", value) is not None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w{0,99}", value) is not None
