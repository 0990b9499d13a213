"""A file or folder of `save` -> the network."""

from pathlib import Path

from safetensors import safe_open

from archspec.files import read_json
from archspec.network.build import build_plan
from archspec.network.checkpoint import read_checkpoint
from archspec.network.segnet import SegNet
from archspec.network.weights import fill, weights_file
from archspec.saved.info import ModelInfo, info_of_json, info_of_metadata
from archspec.saved.save import CONFIG
from blocks.base import Grid
from blocks.errors import SpecError, reason


def from_pretrained(file: str | Path, *, patch_size: Grid | None = None) -> SegNet:
    """Build the network of a file or folder that `save` or `archspec convert` wrote.

    Channels and classes are those it was saved with; `load_weights` takes its weights into a
    network with others.

    Raises:
        SpecError: no such file, or it is damaged, changed, or of a later archspec; the network does
            not fit the patch.
    """
    path = Path(file)
    info = model_info(path)
    net = build_plan(info.plan(patch_size))
    weights = weights_file(path)
    try:
        fill(net, read_checkpoint(weights))
    except SpecError as error:
        raise error.at(weights) from None
    return net


def model_info(file: str | Path) -> ModelInfo:
    """Return what a file or folder that `save` or `archspec convert` wrote says of its network.

    Raises:
        SpecError: as `from_pretrained`.
    """
    path = Path(file)
    if path.is_dir():
        return info_of_json(read_json(path / CONFIG), path / CONFIG)
    if not path.is_file():
        raise SpecError("no such file or folder", where=path)
    if path.suffix != ".safetensors":
        raise SpecError("must end in .safetensors, or be a folder", where=path)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except Exception as error:  # hostile bytes raise anything
        raise SpecError(
            "not a safetensors file, or not a whole one", where=path, suggestion=reason(error)
        ) from None
    return info_of_metadata(metadata, path)
