"""Find a preprocessed nnU-Net dataset by reading its JSON files; nnU-Net is not needed."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archspec.files import read_json
from archspec.network.input_sizes import InputSizes
from archspec.nnunet.labels import check_labels, num_foreground_labels, num_segmentation_heads
from archspec.spec.claims import MAX_PATCH_AXIS
from archspec.spec.words import listed, shown
from blocks.base import MAX_WIDTH, Grid, SpecError, is_count
from blocks.errors import argument

PATCHES = "patches.npz"
"""Lies where the cases of a preprocessed dataset would; see `search/trials/patch_set.py`."""

_VARIABLE = "nnUNet_preprocessed"
_MAX_SPACING = 1e6
_ALLOWED = {
    "patch_size": f"2 or 3 sizes in voxels, from 1 to {MAX_PATCH_AXIS}",
    "batch_size": f"an integer from 1 to {MAX_WIDTH}",
    "spacing": "2 or 3 sizes in mm",
    "data_identifier": "the name of a folder",
    "previous_stage": "the name of a configuration, or null",
}


@dataclass(frozen=True, slots=True)
class PreprocessedDataset:
    """One configuration of a dataset below nnUNet_preprocessed; `plans` is its plans file.

    `settings` is that configuration with what it inherits filled in.
    """

    folder: Path
    name: str
    configuration: str
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    settings: dict[str, Any]

    @property
    def patch_size(self) -> tuple[int, ...]:
        return tuple(self.settings["patch_size"])

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple(self.settings["spacing"])

    @property
    def batch_size(self) -> int:
        return int(self.settings["batch_size"])

    @property
    def previous_stage(self) -> str | None:
        """Return the configuration whose predicted labels are inputs too, in a cascade."""
        name: str | None = self.settings.get("previous_stage")
        return name

    @property
    def num_channels(self) -> int:
        """Return the network's input channels: the image's, then a cascade's foreground labels.

        Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/utilities/label_handling/label_handling.py
        (2.8.1), `determine_num_input_channels`.
        """
        names = self.dataset_json.get("modality") or self.dataset_json["channel_names"]
        labels = num_foreground_labels(self.dataset_json["labels"]) if self.previous_stage else 0
        return len(names) + labels

    @property
    def num_classes(self) -> int:
        """Return nnU-Net's `num_segmentation_heads`: labels, or regions without background."""
        return num_segmentation_heads(self.dataset_json["labels"])

    @property
    def sizes(self) -> InputSizes:
        """Return what a network for this configuration is planned for."""
        return InputSizes(
            in_channels=self.num_channels,
            num_classes=self.num_classes,
            patch_size=self.patch_size,
            spacing=self.spacing,
        )

    def with_patch(self, patch_size: Grid | None) -> "PreprocessedDataset":
        """Return the dataset as if nnU-Net had planned this patch; None changes nothing.

        Batches, sliding windows and networks then have this size, for all read it here.

        Raises:
            SpecError: another number of axes, or stored patches, which have a size already.
        """
        if patch_size is None or patch_size == self.patch_size:
            return self
        where = argument("patch_size", patch_size)
        if len(patch_size) != len(self.patch_size):
            raise SpecError(f"{self.configuration} has {len(self.patch_size)} axes", where=where)
        if (self.data_folder / PATCHES).is_file():
            raise SpecError(
                f"{self.name} holds stored patches of {list(self.patch_size)} voxels", where=where
            )
        changed = {"patch_size": list(patch_size)}
        configurations = self.plans.get("configurations", {})
        own = {**configurations.get(self.configuration, {}), **changed}
        plans = {**self.plans, "configurations": {**configurations, self.configuration: own}}
        return replace(self, plans=plans, settings={**self.settings, **changed})

    @property
    def data_folder(self) -> Path:
        """Return where the preprocessed cases of this configuration lie."""
        return self.folder / str(self.settings["data_identifier"])


def find_dataset(
    dataset: int | str, *, configuration: str = "3d_fullres", plans_name: str = "nnUNetPlans"
) -> PreprocessedDataset:
    """Return the dataset with that id (901, "901") or folder name ("Dataset901_Reach").

    Raises:
        SpecError: nnUNet_preprocessed, the dataset, its plans or the configuration is missing, or
            the configuration is the second half of a cascade.
    """
    (found,) = find_configurations(dataset, (configuration,), plans_name=plans_name)
    if found.previous_stage is not None:
        raise SpecError(
            f"{configuration!r} is the second half of a cascade (its input holds the labels that "
            f"{found.previous_stage!r} predicts)",
            field="configuration",
            suggestion="use 3d_fullres",
        )
    return found


def configuration_names(dataset: int | str, *, plans_name: str = "nnUNetPlans") -> list[str]:
    """Return the names of the configurations that the plans have.

    Raises:
        SpecError: as `find_dataset`.
    """
    folder = _find_folder(_root(), dataset)
    plans = read_plans(folder, plans_name)
    found = plans.get("configurations")
    return list(found) if isinstance(found, dict) else []


def usual_configuration(dataset: int | str, *, ndim: int, plans_name: str = "nnUNetPlans") -> str:
    """Return the usual configuration for networks with so many axes, else that of the other number.

    Raises:
        SpecError: as `find_dataset`.
    """
    usual = ["3d_fullres", "2d"] if ndim == 3 else ["2d", "3d_fullres"]
    there = configuration_names(dataset, plans_name=plans_name)
    return next((name for name in usual if name in there), usual[0])


def find_configurations(
    dataset: int | str, configurations: Sequence[str], *, plans_name: str = "nnUNetPlans"
) -> list[PreprocessedDataset]:
    """Return those configurations of the dataset, a cascade's second half included.

    Raises:
        SpecError: as `find_dataset`.
    """
    folder = _find_folder(_root(), dataset)
    plans, plans_path = read_plans(folder, plans_name), folder / f"{plans_name}.json"
    if not (folder / "dataset.json").is_file():
        command = _plan_command(folder.name)
        raise SpecError("no such file", where=folder / "dataset.json", suggestion=f"run {command}")
    dataset_json = _read(folder / "dataset.json")
    check_description(dataset_json, folder / "dataset.json")
    found = []
    for configuration in configurations:
        settings = resolved(plans, configuration, where=str(plans_path))
        check_settings(settings, configuration, plans_path)
        found.append(
            PreprocessedDataset(folder, folder.name, configuration, plans, dataset_json, settings)
        )
    return found


def read_plans(folder: Path, plans_name: str) -> dict[str, Any]:
    """Return the plans of that name of a preprocessed dataset.

    Raises:
        SpecError: no such file, or not JSON; it names the plans that are there.
    """
    path = folder / f"{plans_name}.json"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*Plans*.json"))) or "none"
        command = _plan_command(folder.name)
        raise SpecError(
            f"no such plans file (found: {there})", where=path, suggestion=f"run {command}"
        )
    return _read(path)


def dataset_id(name: str) -> int | None:
    """Return the number in a dataset's folder name, 1001 in Dataset1001_Reach, or None."""
    match = re.match(r"Dataset(\d+)_", name)
    return int(match[1]) if match else None


def _root() -> Path:
    value = os.environ.get(_VARIABLE)
    if not value:
        raise SpecError(
            "this environment variable is not set",
            where=_VARIABLE,
            suggestion=(
                f"nnU-Net needs nnUNet_raw, {_VARIABLE} and nnUNet_results, e.g. export "
                f"{_VARIABLE}=/data/{_VARIABLE}"
            ),
        )
    root = Path(value)
    if not root.is_dir():
        raise SpecError(
            f"{root} is not a folder",
            where=_VARIABLE,
            suggestion="correct the variable, or run nnUNetv2_plan_and_preprocess, which makes it",
        )
    return root


def _find_folder(root: Path, dataset: int | str) -> Path:
    text = str(dataset)
    if not re.fullmatch(r"[0-9]{1,9}|Dataset[0-9]{3,9}_.+", text):
        raise SpecError(
            f"must be an id or a folder's name, e.g. 901 or Dataset901_Reach, but is {text!r}",
            field="dataset",
        )
    names = sorted(p.name for p in root.glob("Dataset*_*") if p.is_dir())
    if text.isdigit():
        matches = [name for name in names if dataset_id(name) == int(text)]
    else:
        matches = [name for name in names if name == text]
    if len(matches) > 1:
        raise SpecError(
            f"{text} is the id of {' and '.join(matches)} in {root}",
            field="dataset",
            suggestion="give the full name",
        )
    if not matches:
        raise SpecError(
            f"{text} is not in {root} (found: {', '.join(names) or 'none'})",
            field="dataset",
            suggestion=f"run {_plan_command(text)}",
        )
    return root / matches[0]


def _plan_command(dataset: str) -> str:
    number = dataset_id(dataset) or dataset
    return f"nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity"


def _read(path: Path) -> dict[str, Any]:
    tree = read_json(path)
    if not isinstance(tree, dict):
        raise SpecError("must hold a JSON object", where=path)
    return tree


def resolved(plans: Mapping[str, Any], name: str, *, where: Path | str) -> dict[str, Any]:
    """Return the configuration over the ones it inherits from, as nnU-Net merges them.

    `where` is what refusals call the plans.

    Raises:
        SpecError: no such configuration, or one that inherits from itself.
    """
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict):
        raise SpecError(
            "holds no configurations", where=where, suggestion="these are not nnU-Net v2 plans"
        )
    chain: list[str] = []
    parent: str | None = name
    while parent is not None:
        if not _is_known(parent, configurations) or parent in chain:
            raise SpecError(
                f"{shown(parent)} is not in {where}, or inherits from itself (found: "
                f"{listed(list(configurations))})",
                field="configuration",
            )
        chain.append(parent)
        parent = configurations[parent].get("inherits_from")
    merged: dict[str, Any] = {}
    for link in reversed(chain):
        merged |= configurations[link]
    return {key: value for key, value in merged.items() if key != "inherits_from"}


def _is_known(name: Any, configurations: Mapping[str, Any]) -> bool:
    return isinstance(name, str) and isinstance(configurations.get(name), dict)


def check_settings(settings: Mapping[str, Any], configuration: str, path: Path) -> None:
    """Refuse a configuration without what a network is planned from, or with another type of it.

    Raises:
        SpecError: see above.
    """
    patch, spacing = settings.get("patch_size"), settings.get("spacing")
    previous = settings.get("previous_stage")
    right = {
        "patch_size": isinstance(patch, list)
        and len(patch) in (2, 3)
        and all(is_count(size, most=MAX_PATCH_AXIS) for size in patch),
        "batch_size": is_count(settings.get("batch_size"), most=MAX_WIDTH),
        "spacing": isinstance(spacing, list)
        and len(spacing) in (2, 3)
        and all(type(size) in (int, float) and 0 < size < _MAX_SPACING for size in spacing),
        "data_identifier": isinstance(settings.get("data_identifier"), str),
        "previous_stage": previous is None or isinstance(previous, str),
    }
    for key, is_right in right.items():
        if not is_right and key not in settings:
            raise SpecError(f"configuration {configuration!r} has no {key}", where=path)
        if not is_right:
            raise SpecError(
                f"configuration {configuration!r} has {key} {shown(settings[key])}",
                where=path,
                allowed=_ALLOWED[key],
            )


def check_description(dataset_json: dict[str, Any], path: Path) -> None:
    if not isinstance(dataset_json.get("labels"), dict):
        raise SpecError("has no labels", where=path)
    names = dataset_json.get("modality") or dataset_json.get("channel_names")
    if not names:
        raise SpecError("has no channel_names", where=path)
    if not isinstance(names, dict | list):
        raise SpecError(
            f"must name each channel, but is {shown(names)}", where=path, field="channel_names"
        )
    try:
        check_labels(dataset_json["labels"], dataset_json.get("regions_class_order"))
    except SpecError as error:
        raise error.at(path) from None
