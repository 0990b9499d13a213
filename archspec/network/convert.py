"""A published checkpoint file -> safetensors with our keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from archspec.files import check_writable, replacing
from archspec.network.build import build
from archspec.network.checkpoint import read_checkpoint
from archspec.network.published import (
    KeyTable,
    LoadReport,
    Size,
    key_table,
    load_official,
)
from archspec.spec.load import SpecLike, load
from archspec.spec.yaml_file import dump
from blocks.errors import SpecError, reason


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written, and for which sizes of the network."""

    path: Path
    in_channels: int
    num_classes: int
    report: LoadReport


def convert(
    checkpoint: Path,
    *,
    spec: SpecLike,
    out: Path,
    allow_partial: bool = False,
    force: bool = False,
    overrides: tuple[str, ...] = (),
) -> Converted:
    """Write a published checkpoint as safetensors that `build(spec)` loads.

    The numbers of channels and classes are those of the checkpoint. Parameters that it lacks, where
    `allow_partial` lets it, are written with their start values.

    Raises:
        SpecError: see `read_checkpoint` and `load_official`; or `out` exists, or cannot be written.
    """
    check_writable(out)
    if out.exists() and not force:
        raise SpecError(
            "exists", where=out, suggestion="give another name, or `force` to replace it"
        )
    loaded = load(spec, overrides=overrides)
    table = key_table(loaded.name)
    weights = read_checkpoint(checkpoint)
    channels = _size(weights, table, "in_channels") or loaded.in_channels
    classes = _size(weights, table, "num_classes") or loaded.num_classes
    net = build(loaded, in_channels=channels, num_classes=classes)
    try:
        report = load_official(net, weights, allow_partial=allow_partial)
    except SpecError as error:
        raise error.at(checkpoint) from None
    metadata = {
        "spec": dump(loaded.tree()),
        "in_channels": str(channels),
        "num_classes": str(classes),
    }
    tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
    _write(tensors, metadata, out)
    return Converted(out, channels, classes, report)


def _size(weights: Mapping[str, Tensor], table: KeyTable, name: Size) -> int | None:
    """Return the size as the checkpoint shows it, or None where it does not."""
    key, axis = table.sizes[name]
    return weights[key].shape[axis] if key in weights and weights[key].ndim > axis else None


def _write(tensors: dict[str, Tensor], metadata: dict[str, str], out: Path) -> None:
    try:
        with replacing(out) as partial:
            save_file(tensors, partial, metadata=metadata)
    except SafetensorError as error:
        raise SpecError(f"cannot be written: {reason(error)}", where=out) from None
