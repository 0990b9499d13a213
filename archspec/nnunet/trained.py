"""A model folder of nnU-Net's results -> the network with its weights, and what its inputs are.

nnU-Net itself is not needed for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archspec.files import read_json
from archspec.network.checkpoint import read_whole, weights_in
from archspec.network.segnet import SegNet
from archspec.network.weights import fill
from archspec.nnunet.dataset import (
    PreprocessedDataset,
    check_description,
    check_settings,
    resolved,
)
from archspec.nnunet.export import NETWORK_CLASS
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.words import listed, shown
from blocks.errors import SpecError

CHECKPOINT = "checkpoint_final.pth"
_OF_PLANS = ("transpose_forward", "image_reader_writer")
_OF_CONFIGURATION = (
    "preprocessor_name",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs",
)


@dataclass(frozen=True, slots=True)
class Trained:
    """The network of a fold, the dataset it was trained on, by its plans, and its mirroring.

    `mirror_axes` are those of the patch that nnU-Net mirrors predictions along.
    """

    net: SegNet
    dataset: PreprocessedDataset
    mirror_axes: tuple[int, ...]


def is_trained(folder: Path) -> bool:
    """Say whether it looks like a model folder of nnU-Net."""
    return (folder / "plans.json").is_file() and (folder / "dataset.json").is_file()


def read_trained(folder: Path, *, fold: str | None = None, checkpoint: str = CHECKPOINT) -> Trained:
    """Return the network of a fold.

    The folder is called TRAINER__PLANS__CONFIGURATION. The fold may be left out where there is one.

    Raises:
        SpecError: no such folder or checkpoint, or the network is not one of a spec.
    """
    dataset = _dataset(folder)
    architecture = dataset.settings.get("architecture")
    if not isinstance(architecture, Mapping) or not isinstance(
        architecture.get("arch_kwargs"), Mapping
    ):
        raise SpecError("has no architecture with arch_kwargs", where=folder / "plans.json")
    name = architecture.get("network_class_name")
    if name != NETWORK_CLASS:
        raise SpecError(
            f"{shown(name)} is not a network of a spec, which is {NETWORK_CLASS}",
            where=folder / "plans.json",
            field="architecture.network_class_name",
        )
    file = _fold(folder, fold) / checkpoint
    whole = read_whole(file)
    weights = weights_in(whole, file)
    try:
        net = ArchSpecNet(dataset.num_channels, dataset.num_classes, **architecture["arch_kwargs"])
    except SpecError as error:
        raise error.at(folder / "plans.json") from None
    except TypeError:
        raise SpecError(
            "arch_kwargs are not those that archspec exports", where=folder / "plans.json"
        ) from None
    try:
        fill(net, weights)
    except SpecError as error:
        raise error.at(file) from None
    return Trained(net, dataset, whole.get("inference_allowed_mirroring_axes") or ())


def said_of(dataset: PreprocessedDataset, mirror_axes: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return what plans and dataset.json say of a network's inputs, as `archspec.save` takes it.

    Raises:
        SpecError: it is the second half of a cascade, whose input no image alone is.
    """
    if dataset.previous_stage is not None:
        raise SpecError(
            f"{dataset.configuration!r} is the second half of a cascade, whose input holds the "
            f"labels that {dataset.previous_stage!r} predicts",
            field="configuration",
        )
    schemes = dataset.settings.get("normalization_schemes")
    found: dict[str, Any] = {"spacing": dataset.spacing, "labels": dataset.dataset_json["labels"]}
    if order := dataset.dataset_json.get("regions_class_order"):
        found["regions_class_order"] = tuple(order)
    found["preprocessing"] = _preprocessing(dataset, mirror_axes)
    if not isinstance(schemes, list):
        return found
    masks = dataset.settings.get("use_mask_for_norm")
    numbers = dataset.plans.get("foreground_intensity_properties_per_channel")
    found["normalization"] = [
        {
            "scheme": scheme,
            "use_mask": bool(masks[index]) if isinstance(masks, list) and masks[index:] else False,
            **(numbers.get(str(index), {}) if isinstance(numbers, Mapping) else {}),
        }
        for index, scheme in enumerate(schemes)
    ]
    return found


def _preprocessing(
    dataset: PreprocessedDataset, mirror_axes: tuple[int, ...]
) -> dict[str, Any] | None:
    """Return the rest of it; None for plans that say less than nnU-Net needs to predict."""
    plans, settings, description = dataset.plans, dataset.settings, dataset.dataset_json
    said = {name: plans[name] for name in _OF_PLANS if name in plans}
    said |= {name: settings[name] for name in _OF_CONFIGURATION if name in settings}
    if len(said) < len(_OF_PLANS) + len(_OF_CONFIGURATION) or "file_ending" not in description:
        return None
    names = description.get("modality") or description["channel_names"]
    values = names.values() if isinstance(names, Mapping) else names
    return {
        **said,
        "mirror_axes": mirror_axes,
        "file_ending": description["file_ending"],
        "channel_names": [str(one) for one in values],
        "label_manager": plans.get("label_manager", "LabelManager"),
    }


def _dataset(folder: Path) -> PreprocessedDataset:
    """Return the dataset as the copies of its plans and dataset.json in the folder have it."""
    plans, description = (read_json(folder / name) for name in ("plans.json", "dataset.json"))
    parts = folder.absolute().name.split("__")
    if len(parts) != 3:
        raise SpecError(
            "its name does not say trainer, plans and configuration",
            where=folder,
            suggestion="give nnU-Net's model folder TRAINER__PLANS__CONFIGURATION itself",
        )
    if not isinstance(plans, dict) or not isinstance(description, dict):
        raise SpecError("plans.json and dataset.json must hold JSON objects", where=folder)
    settings = resolved(plans, parts[2], where=folder / "plans.json")
    check_settings(settings, parts[2], folder / "plans.json")
    check_description(description, folder / "dataset.json")
    return PreprocessedDataset(
        folder, str(plans.get("dataset_name")), parts[2], plans, description, settings
    )


def _fold(folder: Path, fold: str | None) -> Path:
    folds = sorted(one.name for one in folder.glob("fold_*") if one.is_dir())
    if fold is not None and f"fold_{fold}" in folds:
        return folder / f"fold_{fold}"
    if fold is None and len(folds) == 1:
        return folder / folds[0]
    raise SpecError(
        "several folds were trained" if folds and fold is None else "no such fold",
        where=folder,
        allowed=listed([one.removeprefix("fold_") for one in folds]),
        suggestion="give `fold`",
    )
