"""nnU-Net's own planned networks as specs."""

import re
from collections.abc import Mapping
from typing import Any

from archspec.network.plan import plan
from archspec.nnunet.arch_kwargs import PlannedNetwork, read_architecture
from archspec.nnunet.dataset import (
    PreprocessedDataset,
    find_configurations,
    read_plans,
    resolved,
)
from archspec.spec.bundled import bundled
from archspec.spec.load import load
from archspec.spec.schema import SCHEMA_VERSION, ArchSpec
from archspec.spec.tree import thawed
from blocks.base import Grid
from blocks.errors import SpecError

_UNSAID: Mapping[str, Mapping[str, Any]] = {
    "downsample": {
        "in_block": False,
        "sparse": False,
        "norm": "none",
        "act": "none",
        "bias": True,
        "dropout": 0.0,
    },
    "block": {"bias": True, "dropout": 0.0},
    "mixer": {"bias": True},
}
"""Per part of a stage: fields that need not be written where they have these values."""


def from_plans(
    dataset: int | str, *, plans_name: str = "nnUNetPlans", configuration: str = "3d_fullres"
) -> ArchSpec:
    """Return the network that nnU-Net planned for a dataset, with nnU-Net's recipe, as a spec.

    The default planner and those of residual encoders (nnUNetResEncUNetMPlans and so on) plan such
    networks. Patch size, channels and classes are the dataset's.

    Raises:
        SpecError: no such dataset, plans or configuration, or a network that no spec can say: each
            field of `arch_kwargs` that is in the way is named, with what it may be.
    """
    return load(tree_of_dataset(dataset, plans_name=plans_name, configuration=configuration))


def tree_of_dataset(dataset: int | str, *, plans_name: str, configuration: str) -> dict[str, Any]:
    """Return the spec that `from_plans` returns as its author would write it in YAML.

    Raises:
        SpecError: as `from_plans`.
    """
    (found,) = find_configurations(dataset, (configuration,), plans_name=plans_name)
    return tree_beside(found, plans_name)


def tree_beside(dataset: PreprocessedDataset, plans_name: str) -> dict[str, Any]:
    """Return the network of the dataset's configuration in the plans of that name beside its own.

    Raises:
        SpecError: no such plans or configuration there, or a network that no spec can say.
    """
    plans = read_plans(dataset.folder, plans_name)
    try:
        return tree_of_plans(
            plans,
            dataset.configuration,
            in_channels=dataset.num_channels,
            num_classes=dataset.num_classes,
        )
    except SpecError as error:
        raise error.at(dataset.folder / f"{plans_name}.json") from None


def spec_of_plans(
    plans: Mapping[str, Any], configuration: str, *, in_channels: int, num_classes: int
) -> ArchSpec:
    """Return the network of a configuration of nnU-Net's plans, as their file holds them.

    Raises:
        SpecError: as `from_plans`.
    """
    return load(
        tree_of_plans(plans, configuration, in_channels=in_channels, num_classes=num_classes)
    )


def tree_of_plans(
    plans: Mapping[str, Any], configuration: str, *, in_channels: int, num_classes: int
) -> dict[str, Any]:
    """Return what `spec_of_plans` does as its author would write it in YAML.

    Raises:
        SpecError: as `from_plans`.
    """
    settings = resolved(plans, configuration, where="plans")
    network = read_architecture(settings)
    dataset, name = str(plans.get("dataset_name", "")), str(plans.get("plans_name", "nnUNetPlans"))
    tree = {
        "schema_version": SCHEMA_VERSION,
        "name": _name(dataset, name, configuration),
        "title": f"The network that nnU-Net planned for {dataset} ({name}, {configuration})",
        "sources": [
            "nnU-Net Revisited, arXiv 2404.09556"
            if network.residual
            else "nnU-Net, arXiv 1809.10486",
            "github.com/MIC-DKFZ/dynamic-network-architectures, "
            + ("ResidualEncoderUNet" if network.residual else "PlainConvUNet"),
        ],
        "in_channels": in_channels,
        "num_classes": num_classes,
        "patch_size": list(settings["patch_size"]),
        "init": "nnunet",
        "encoder": _encoder(network),
        "decoder": _decoder(network),
        "deep_supervision": {"heads": len(network.strides) - 1},
        "training": bundled("unet").tree["training"],  # nnU-Net's recipe
    }
    plan(load(tree))
    return dict(thawed(tree))  # nothing shared, which YAML would write as references


def _name(dataset: str, plans_name: str, configuration: str) -> str:
    """Return what a spec may be called: letters, digits, dots, dashes and underscores."""
    parts = [re.sub(r"^Dataset\d+_", "", dataset), plans_name, configuration]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, parts))).lstrip("._-")


def _encoder(network: PlannedNetwork) -> dict[str, Any]:
    """Return stages, with what most of them share as `defaults`."""
    stages = [_stage(network, index) for index in range(len(network.features))]
    shared: dict[str, dict[str, Any]] = {}
    for part, unsaid in _UNSAID.items():
        for field in list(stages[0][part]):
            values = [stage[part][field] for stage in stages]
            common = max(values, key=values.count)
            for stage in stages:
                if stage[part][field] == common:
                    del stage[part][field]
            if unsaid.get(field) != common:
                shared.setdefault(part, {})[field] = common
        for stage in stages:
            if not stage[part]:
                del stage[part]
    return {"defaults": shared, "stages": stages}


def _stage(network: PlannedNetwork, index: int) -> dict[str, Any]:
    """Return the stage, every field written.

    A block has two convolutions; where it does not come out even, the one that enters the stage
    stands before the blocks, as a residual encoder's stem does.
    """
    depth, stem = network.depths[index], network.residual and index == 0
    alone = stem or (not network.residual and depth % 2 == 1)
    stride, kernel = network.strides[index], network.kernels[index]
    size = _short(kernel)
    downsample = {
        "kernel_size": size,
        "stride": _short(stride),
        "in_block": not alone,
        "sparse": any(k < s for k, s in zip(kernel, stride, strict=True)),
        "norm": network.norm if alone else "none",
        "act": network.act if alone else "none",
        "bias": network.bias,
        "dropout": network.dropout if alone else 0.0,
    }
    blocks = depth if network.residual else depth // 2
    return {
        "width": network.features[index],
        **({} if blocks == 1 else {"depth": blocks}),
        "downsample": downsample,
        "block": {
            "kind": "basic" if network.residual else "plain",
            "kernel_size": size,
            "norm": network.norm,
            "act": network.act,
            "bias": network.bias,
            "dropout": network.dropout,
        },
        "mixer": {"kind": "conv", "kernel_size": size, "act": "none", "bias": network.bias},
    }


def _decoder(network: PlannedNetwork) -> dict[str, Any]:
    kernels = [_short(kernel) for kernel in network.kernels[:-1]]
    convs = network.decoder_convs
    decoder: dict[str, Any] = {
        "kind": "concat",
        "up": "transpose",
        "skip_block": "none",
        "num_convs": convs[0] if len(set(convs)) == 1 else list(convs),
        "kernel_size": kernels[0]
        if all(kernel == kernels[0] for kernel in kernels)
        else [list(kernel) for kernel in network.kernels[:-1]],
        "norm": network.norm,
        "act": network.act,
        "head": "conv",
    }
    if not network.bias:
        decoder["bias"] = False
    if network.dropout:
        decoder["dropout"] = network.dropout
    return decoder


def _short(axes: Grid) -> int | list[int]:
    return axes[0] if len(set(axes)) == 1 else list(axes)
