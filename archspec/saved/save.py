"""A network -> one safetensors file, or a folder in the layout of Hugging Face."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from archspec.files import check_folder, check_writable, replacing, replacing_folder, write_text
from archspec.network.build import build_plan
from archspec.network.published import check_not_meta
from archspec.network.segnet import SegNet
from archspec.saved.info import ModelInfo, check_info
from archspec.spec.schema import ArchSpec
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import SpecError, argument, reason

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""Files of a folder; the card is the user's once it is there."""


def save(
    net: nn.Module,
    file: str | Path,
    *,
    spacing: Sequence[float] | None = None,
    normalization: Sequence[str | Mapping[str, Any]] | None = None,
    labels: Mapping[str, Any] | None = None,
    regions_class_order: Sequence[int] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Write the network's weights with its spec and sizes, and what is said of its inputs.

    `from_pretrained` reads the file, which ends in .safetensors; another name is a folder, with the
    files that Hugging Face's hub expects. The network is one of `build` or `create_model`, in DDP
    or torch.compile's wrapper too. `ModelInfo` says what the other arguments are; `preprocessing`
    is a mapping of what nnU-Net's plans call so, {} for what is usual there: `archspec predict`
    needs it, with spacing, normalization and labels.

    Raises:
        SpecError: no such network, what is said does not fit it, the file is there and `force` is
            not set, or it cannot be written.
    """
    path = Path(file)
    inner = _network(net)
    info = info_of(
        inner,
        spacing=spacing,
        normalization=normalization,
        labels=labels,
        regions_class_order=regions_class_order,
        preprocessing=preprocessing,
    )
    write(inner, info, path, force=force)
    return path


def info_of(net: SegNet, **said: Any) -> ModelInfo:
    """Return what a network says of itself, with what is said of its inputs, see `ModelInfo`.

    Raises:
        SpecError: that does not fit it.
    """
    planned = net.planned
    return check_info(
        ModelInfo(
            spec=_without_start(planned.spec),
            in_channels=planned.in_channels,
            num_classes=planned.num_classes,
            patch_size=planned.patch_size,
            **said,
        )
    )


def write(net: SegNet, info: ModelInfo, path: Path, *, force: bool = False) -> None:
    """Write a network with what is known of it.

    Raises:
        SpecError: as `save`.
    """
    check_target(path, force=force)
    tensors = _tensors(net)
    with torch.device("meta"):
        fits = build_plan(info.plan())
    _check_fits(fits, tensors)
    if path.suffix == ".safetensors":
        _write_weights(tensors, info, path)
    elif path.exists():  # whatever else lies there is not ours
        _write_folder(tensors, info, path)
    else:
        with replacing_folder(path) as draft:
            _write_folder(tensors, info, draft)


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a file or folder that `save` would not write to.

    Raises:
        SpecError: see above.
    """
    taken = [path]
    if path.suffix == ".safetensors":
        check_writable(path)
    elif path.suffix and not path.is_dir():
        raise SpecError("must end in .safetensors, or be a folder", where=path)
    else:
        check_folder(path)
        taken = [path / WEIGHTS, path / CONFIG]
    for one in taken:
        if one.exists() and not force:
            raise SpecError(
                "exists", where=one, suggestion="give another name, or `force` to replace it"
            )


def _network(net: nn.Module) -> SegNet:
    """Return the network inside a wrapper of it."""
    found = [one for one in net.modules() if isinstance(one, SegNet)]
    if len(found) != 1 or not hasattr(found[0], "planned"):
        raise SpecError(
            "not a network that archspec built" if len(found) < 2 else "holds several networks",
            where=argument("net", type(net).__name__),
            suggestion="give one of archspec.build or archspec.create_model",
        )
    return found[0]


def _without_start(spec: ArchSpec) -> ArchSpec:
    """Return the spec without claims, and without weights to start from: it has its own now."""
    changed: dict[str, Any] = {"claims": ()}
    if isinstance(spec.encoder, TimmEncoderSpec):
        changed["encoder"] = spec.encoder.model_copy(update={"pretrained": False})
    return spec.model_copy(update=changed)


def _tensors(net: SegNet) -> dict[str, Tensor]:
    """Return the weights as safetensors takes them: whole, on the CPU, none sharing memory."""
    state = net.state_dict()
    check_not_meta(state)
    found, seen = {}, set()
    for key, value in state.items():
        own = value.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        found[key] = own.clone() if place in seen else own
        seen.add(place)
    return found


def _check_fits(fits: SegNet, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that the spec's network would not take: the network was changed by hand."""
    ours = {key: tuple(value.shape) for key, value in fits.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in tensors.items()}
    changed = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if changed:
        raise SpecError(
            f"is not as its spec {fits.spec_name} says: {len(changed)} tensors differ, e.g. "
            f"{changed[0]}",
            field="net",
            suggestion="what is changed by hand after build is not in the spec",
        )


def _write_folder(tensors: dict[str, Tensor], info: ModelInfo, folder: Path) -> None:
    _write_weights(tensors, info, folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(info.to_json(), indent=2, allow_nan=False) + "\n")
    if not (folder / CARD).exists():
        write_text(folder / CARD, _card(info))


def _write_weights(tensors: dict[str, Tensor], info: ModelInfo, path: Path) -> None:
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=info.metadata())
    except SafetensorError as error:
        raise SpecError(f"cannot be written: {reason(error)}", where=path) from None


def _card(info: ModelInfo) -> str:
    """Return the model card; licence, data and results are for the user to add."""
    page = "\n".join(f"    {line}" for line in info.text().splitlines())
    return f"""---
library_name: archspec-seg
pipeline_tag: image-segmentation
tags: [archspec, medical-imaging]
---
# {info.spec.name}

{info.spec.title or "A segmentation network."}

{page}

`config.json` holds the spec, and `model.safetensors` the weights with the spec again.

```python
import archspec

net = archspec.from_pretrained("FOLDER")  # this folder; pip install archspec-seg
```
"""
