"""Write a spec as nnU-Net plans, so that stock nnU-Net trains it and predicts with it."""

import json
import os
import re
import shlex
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from archspec.loading import SpecLike, load
from archspec.nnunet import ArchSpecNet
from archspec.nnunet_dataset import PreprocessedDataset, find_dataset
from archspec.planning import Plan, plan
from archspec.spec import ArchSpec
from blocks.base import SpecError

NETWORK_CLASS = "archspec.nnunet.ArchSpecNet"
_RESULTS = "nnUNet_results"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9.-])?"
# Names that nnU-Net's planners write, and rewrite whenever a dataset is planned again.
_PLANNERS = r"nnUNet(ResEncUNet\w*?)?Plans.*"
_OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final")


@dataclass(frozen=True, slots=True)
class Export:
    """A written plans file, each difference that was settled, and what to run next."""

    path: Path
    plans_name: str
    notes: tuple[str, ...]
    commands: tuple[str, ...]


def export_nnunet(
    spec: SpecLike,
    dataset: int | str,
    *,
    configuration: str = "3d_fullres",
    base_plans: str = "nnUNetPlans",
    plans_name: str | None = None,
    force: bool = False,
) -> Export:
    """Write plans that make stock nnU-Net build this spec on that preprocessed dataset.

    Everything but the network comes from the base plans, patch size included, so the preprocessed
    data are used as they are. The network is built and traced once before anything is written.
    `force` replaces existing plans of that name, never those of nnU-Net's planners.

    Raises:
        SpecError: dataset, configuration, spec or name cannot be used; nothing was written.
    """
    loaded = load(spec)
    found = find_dataset(dataset, configuration=configuration, plans_name=base_plans)
    name = default_plans_name(loaded) if plans_name is None else plans_name
    path = found.folder / f"{name}.json"
    _check_name(name, base_plans)
    replaced = _check_free(path, found, force=force)
    planned = _plan_for(loaded, found)
    arch_kwargs = _dry_run(planned)
    tree = _derive(found, name, arch_kwargs)
    _write(path, json.dumps(tree, indent=4) + "\n")
    return Export(
        path=path,
        plans_name=name,
        notes=(*_differences(loaded, found), *replaced, *_warnings(found, base_plans, name)),
        commands=_commands(found.name, configuration, name),
    )


def default_plans_name(spec: ArchSpec) -> str:
    """Return archspec_<spec name>, without what nnU-Net's folder names cannot hold."""
    return re.sub(r"_+", "_", f"archspec_{spec.name}")[:100].rstrip("_")


def _check_name(name: str, base_plans: str) -> None:
    if not re.fullmatch(_NAME, name) or "__" in name:
        raise SpecError(
            f"plans_name: {name!r} must be at most 100 letters, digits, '.', '-' or single '_', "
            "and begin with a letter or digit and not end with '_', because nnU-Net splits folder "
            "names at '__'"
        )
    taken = name == base_plans or name in _OTHER_FILES
    if taken or re.fullmatch(_PLANNERS, name, flags=re.IGNORECASE):
        raise SpecError(
            f"plans_name: {name!r} belongs to nnU-Net, which would overwrite it or be broken by "
            "it; choose another name, e.g. archspec_mine"
        )


def _check_free(path: Path, dataset: PreprocessedDataset, *, force: bool) -> list[str]:
    """Return a note for each thing that `force` lets us replace."""
    results = os.environ.get(_RESULTS)
    trained = []
    if results:
        trained = sorted((Path(results) / dataset.name).glob(f"*__{path.stem}__*"))
    if trained and not force:
        raise SpecError(
            f"plans_name: {trained[0]} holds results of plans {path.stem!r}, which other plans "
            "of that name could not continue; choose another plans_name, or --force (force=True)"
        )
    if path.exists() and not force:
        raise SpecError(
            f"plans_name: {path} exists; choose another plans_name, or --force (force=True)"
        )
    notes = [f"replaced {path}"] if path.exists() else []
    return notes + [f"results of the plans before are in {folder}" for folder in trained]


def _plan_for(spec: ArchSpec, dataset: PreprocessedDataset) -> Plan:
    ndim, wanted = len(spec.patch_size), len(dataset.patch_size)
    if ndim != wanted:
        same = [
            name
            for name, settings in dataset.plans["configurations"].items()
            if len(settings.get("patch_size", ())) == ndim
        ]
        raise SpecError(
            f"configuration: {spec.name} is {ndim}-D, but {dataset.configuration!r} of "
            f"{dataset.name} is {wanted}-D; use one of: {', '.join(same) or 'none fits'}"
        )
    return plan(
        spec,
        in_channels=dataset.num_channels,
        num_classes=dataset.num_classes,
        patch_size=dataset.patch_size,
    )


def _dry_run(planned: Plan) -> dict[str, Any]:
    """Return the network's arguments after building and tracing it from their JSON text."""
    arguments = {
        "spec": planned.spec.tree(),
        "patch_size": list(planned.patch_size),
        "strides": planned.strides,
        "schema_version": planned.spec.schema_version,
    }
    try:
        kwargs: dict[str, Any] = json.loads(json.dumps(arguments, allow_nan=False))
    except ValueError as error:
        raise SpecError(f"spec: {planned.spec.name} cannot be written as JSON: {error}") from None
    if load(kwargs["spec"]) != planned.spec:
        raise SpecError(f"spec: {planned.spec.name} changes when written as JSON; report this bug")
    net = ArchSpecNet(planned.in_channels, planned.num_classes, deep_supervision=True, **kwargs)
    net.to("meta")
    patch = torch.empty(2, planned.in_channels, *planned.patch_size, device="meta")
    try:
        with torch.no_grad():
            sizes = [tuple(out.shape) for out in net(patch)]
    except (RuntimeError, ValueError) as error:
        raise SpecError(
            f"spec: {planned.spec.name} does not run at patch_size {kwargs['patch_size']}: {error}"
        ) from None
    wanted = [(2, planned.num_classes, *size) for size in target_sizes(planned)]
    if sizes != wanted:
        raise SpecError(
            f"strides: {planned.spec.name} gives outputs of shapes {sizes}, but nnU-Net would "
            f"compare them with targets of {wanted}; report this bug"
        )
    return kwargs


def target_sizes(planned: Plan) -> list[tuple[int, ...]]:
    """Return the grids of the targets that nnU-Net derives from `strides`.

    Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py (2.8.1),
    `_get_deep_supervision_scales`; batchgeneratorsv2, `DownsampleSegForDSTransform`.
    """
    factors = accumulate(
        planned.strides, lambda done, row: [a * b for a, b in zip(done, row, strict=True)]
    )
    sizes = [
        tuple(round(n * (1 / f)) for n, f in zip(planned.patch_size, row, strict=True))
        for row in factors
    ]
    return sizes[:-1]


def _derive(dataset: PreprocessedDataset, name: str, arch_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the base plans with our name, our network, and only this configuration."""
    tree = deepcopy(dataset.plans)
    settings = deepcopy(dataset.settings)
    # nnU-Net looks the next stage up in these plans after training, and would not find it.
    settings.pop("next_stage", None)
    settings["architecture"] = {
        "network_class_name": NETWORK_CLASS,
        "arch_kwargs": arch_kwargs,
        "_kw_requires_import": [],
    }
    return tree | {"plans_name": name, "configurations": {dataset.configuration: settings}}


def _write(path: Path, text: str) -> None:
    """Write beside the file, then replace it, so that readers never see half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be written: {error}") from None
    finally:
        draft.unlink(missing_ok=True)


def _differences(spec: ArchSpec, dataset: PreprocessedDataset) -> list[str]:
    sizes: list[tuple[str, Any, Any]] = [
        ("in_channels", spec.in_channels, dataset.num_channels),
        ("num_classes", spec.num_classes, dataset.num_classes),
        ("patch_size", list(spec.patch_size), list(dataset.patch_size)),
    ]
    notes = [
        f"{field}: spec says {ours}, the dataset has {theirs}; the dataset wins"
        for field, ours, theirs in sizes
        if ours != theirs
    ]
    others = [name for name in dataset.plans["configurations"] if name != dataset.configuration]
    if others:
        notes.append(f"configurations: left out, since they hold other networks: {others}")
    if dataset.settings.get("next_stage"):
        notes.append(f"next_stage: {dataset.settings['next_stage']!r} left out with them")
    return notes


def _warnings(dataset: PreprocessedDataset, base_plans: str, name: str) -> list[str]:
    data, number = dataset.data_folder, dataset.name[7:].split("_")[0]
    notes = [f"never run nnUNetv2_preprocess -plans_name {name}: it deletes the shared {data}"]
    if not data.is_dir():
        notes.append(
            f"not yet preprocessed: {data} is missing; run nnUNetv2_preprocess -d {number} "
            f"-plans_name {base_plans} -c {dataset.configuration}"
        )
    if not os.environ.get(_RESULTS):
        notes.append(f"{_RESULTS} is not set, but training needs it: export {_RESULTS}=...")
    return notes


def _commands(dataset: str, configuration: str, name: str) -> tuple[str, str]:
    train = ["nnUNetv2_train", dataset, configuration, "0", "-p", name]
    predict = ["nnUNetv2_predict", "-d", dataset, "-c", configuration, "-f", "0", "-p", name]
    return shlex.join(train), f"{shlex.join(predict)} -i INPUT_FOLDER -o OUTPUT_FOLDER"
