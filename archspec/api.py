"""The public functions that no room holds: plan any spec, create a model, list components."""

from dataclasses import replace
from pathlib import Path

from archspec.network.build import build, build_plan
from archspec.network.checkpoint import read_checkpoint
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan
from archspec.network.published import is_published, load_official
from archspec.network.resolve import resolve
from archspec.network.segnet import SegNet
from archspec.network.weights import fill, weights_file
from archspec.spec.load import SpecLike
from archspec.spec.messages import classes_at
from archspec.spec.schema import ArchSpec, StageSpec
from archspec.spec.words import did_you_mean
from blocks.base import Grid, SpecError
from blocks.errors import argument
from blocks.registry import kind_of


def plan(
    spec: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
    exact: bool = False,
    spacing: tuple[float, ...] | None = None,
) -> Plan:
    """Return every shape of the network that `build` would make; arguments as there.

    A patch that the network does not suit is padded inside it; `exact` refuses it. To a `spacing`
    (mm per axis of the patch) strides, kernels and stages are fitted, as `stages_from_dataset` does
    on export; `build` makes that network of the plan's `spec`.

    Raises:
        SpecError: the spec is wrong, or does not fit the sizes.
    """
    sizes = InputSizes(in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    fit = spacing is not None
    return resolve(spec, replace(sizes, exact=exact, spacing=spacing, fit_stages=fit))


def create_model(
    name: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
    weights: str | Path | None = None,
) -> SegNet:
    """Build a network as timm's function of this name does: `build`, or weights from a file.

    The file is one that torch.save or safetensors wrote, or a folder that `save` did. It holds a
    state dict of the network, or weights published for its spec, under our names or theirs (see
    `load_official`). For weights that cover the network in part there is `load_weights`.

    Raises:
        SpecError: as `build`; the file cannot be read, or does not cover the network exactly.
    """
    sizes = InputSizes(in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    if weights is None:
        return build(name, in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    net = build_plan(resolve(name, sizes))
    path = weights_file(Path(weights))
    found = read_checkpoint(path)
    ours = net.state_dict()
    try:
        if is_published(net.spec_name) and len(found.keys() & ours.keys()) * 2 < len(ours):
            load_official(net, found)
        else:
            fill(net, found)
    except SpecError as error:
        raise error.at(path) from None
    return net


def list_components(slot: str) -> list[str]:
    """Return the kinds that a spec may name in a slot such as `mixer`, `block` or `decoder`.

    A component without a kind, such as the plain one of `downsample`, goes by the slot's name.

    Raises:
        SpecError: no such slot.
    """
    slots = {
        name: [kind or name for kind in map(kind_of, classes)]
        for spec, names in ((StageSpec, list(StageSpec.model_fields)), (ArchSpec, ["decoder"]))
        for name in names
        if (classes := classes_at(spec, name))
    }
    if slot not in slots:
        raise SpecError(
            "not a slot for components",
            where=argument("slot", slot),
            allowed=", ".join(slots),
            suggestion=did_you_mean(slot, list(slots)),
        )
    return slots[slot]
