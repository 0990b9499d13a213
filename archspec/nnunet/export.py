"""Write a spec as nnU-Net plans, so that stock nnU-Net trains it and predicts with it."""

import json
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from archspec.costs.fit import memory_size
from archspec.files import check_writable, write_text
from archspec.network.start_weights import check_start_weights
from archspec.nnunet.check_data import check_data
from archspec.nnunet.commands import check_recipe, commands, environment, recipe_note
from archspec.nnunet.contract import check_contract, network_arguments
from archspec.nnunet.dataset import (
    PreprocessedDataset,
    dataset_id,
    find_configurations,
    usual_configuration,
)
from archspec.nnunet.names import RESULTS, check_free, check_name, default_plans_name
from archspec.nnunet.sizes import Network, SizeWishes, dimension_notes, settle
from archspec.spec.load import SpecLike, load
from archspec.spec.plugins import refuse_scripted
from archspec.spec.schema import ArchSpec
from blocks.base import Grid
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import SpecError

NETWORK_CLASS = "archspec.nnunet.ArchSpecNet"


@dataclass(frozen=True, slots=True)
class Export:
    """A written plans file, each difference that was settled, and what to run next.

    `environment` holds the lines to run before `commands`: train and predict per configuration.
    """

    path: Path
    plans_name: str
    notes: tuple[str, ...]
    environment: tuple[str, ...]
    commands: tuple[str, ...]


def export_nnunet(
    spec: SpecLike,
    dataset: int | str,
    *,
    configuration: str | Sequence[str] | None = None,
    base_plans: str = "nnUNetPlans",
    plans_name: str | None = None,
    patch_size: Grid | Literal["exact"] | None = None,
    batch_size: int | None = None,
    fit_memory: str | None = None,
    stages_from_dataset: bool = False,
    recipe: str = "spec",
    force: bool = False,
) -> Export:
    """Write plans that make stock nnU-Net build this spec on that preprocessed dataset.

    Everything but the network comes from the base plans, so that the preprocessed data are used as
    they are. By default 3d_fullres is exported, or 2d for a spec with two axes; a cascade's second
    stage goes with its first. `patch_size` (voxels) and `batch_size` replace the dataset's; a patch
    that the network does not suit is padded inside it, or with "exact" the dataset's is refused;
    `fit_memory`, such as "24GB", makes the batch (not below nnU-Net's least, 2), then the patch
    smaller until the estimate for training under AMP fits. `stages_from_dataset` fits strides and
    kernels to the spacing. `recipe` "spec" trains as the spec says, "nnunet" as nnU-Net does.
    Every network is built and traced as nnU-Net runs it before anything is written. `force`
    replaces existing plans of that name, never those of nnU-Net's planners.

    Raises:
        SpecError: dataset, its data, configuration, spec, size or name cannot be used; nothing was
            written.
    """
    check_recipe(recipe)
    wishes = SizeWishes(
        patch_size=None if patch_size is None or patch_size == "exact" else tuple(patch_size),
        exact=patch_size == "exact",
        batch_size=batch_size,
        fit_memory=None if fit_memory is None else memory_size(fit_memory, name="fit_memory"),
        stages_from_dataset=stages_from_dataset,
    )
    loaded = load(spec)
    refuse_scripted("nnU-Net's processes", loaded)
    check_start_weights(loaded)
    chosen = _configurations(loaded, configuration, dataset, base_plans)
    found = find_configurations(dataset, chosen, plans_name=base_plans)
    loaded, rebuilt = _in_dimension_of(loaded, found)
    name = default_plans_name(loaded) if plans_name is None else plans_name
    path = found[0].folder / f"{name}.json"
    check_name(name, base_plans)
    check_writable(path)
    fitting, left_out = _of_dimension(loaded, found)
    _check_cascades(fitting)
    for one in fitting:
        if one.data_folder.is_dir() and any(one.data_folder.iterdir()):  # plans may come first
            check_data(one)
    stock = recipe == "nnunet"
    networks = [settle(loaded, one, wishes, stock_recipe=stock) for one in fitting]
    specs = {one.dataset.configuration: one.planned.spec for one in networks}
    replaced = check_free(path, found[0].name, specs, force=force)
    unused = {one.dataset.configuration: _check(one) for one in networks}
    configurations = {one.dataset.configuration: _derive(one, specs) for one in networks}
    tree = deepcopy(found[0].plans) | {"plans_name": name, "configurations": configurations}
    write_text(path, json.dumps(tree, indent=4) + "\n")
    return Export(
        path=path,
        plans_name=name,
        notes=(
            *rebuilt,
            *left_out,
            *_settled(networks),
            *_unused(loaded, unused),
            *replaced,
            recipe_note(loaded.training, recipe),
            *_warnings(fitting, base_plans, name),
        ),
        environment=environment(recipe),
        commands=tuple(commands(fitting, name, recipe)),
    )


def _configurations(
    spec: ArchSpec, given: str | Sequence[str] | None, dataset: int | str, base_plans: str
) -> list[str]:
    """Return what was asked for, or the usual one of the spec's dimension, else of another."""
    if given:
        return [given] if isinstance(given, str) else list(dict.fromkeys(given))
    return [usual_configuration(dataset, ndim=len(spec.patch_size), plans_name=base_plans)]


def _in_dimension_of(
    spec: ArchSpec, found: list[PreprocessedDataset]
) -> tuple[ArchSpec, list[str]]:
    """Return the spec with as many axes as all configurations have, where it has another number.

    Sizes that are one integer serve in 2-D and 3-D; the plan refuses lists of another length.
    """
    notes = dimension_notes(spec, found[0])
    if not notes or len({len(one.patch_size) for one in found}) > 1:
        return spec, []
    return spec.model_copy(update={"patch_size": found[0].patch_size}), notes


def _of_dimension(
    spec: ArchSpec, found: list[PreprocessedDataset]
) -> tuple[list[PreprocessedDataset], list[str]]:
    """Return the configurations with the spec's number of axes, and a note on the others."""
    ndim = len(spec.patch_size)
    fitting = [one for one in found if len(one.patch_size) == ndim]
    others = [one for one in found if one not in fitting]
    notes = [
        f"{one.configuration}: left out, since {spec.name} is {ndim}-D (its patch_size has {ndim} "
        "axes)"
        for one in others
    ]
    unused = set(found[0].plans["configurations"]) - {one.configuration for one in found}
    if unused:
        notes.append(f"configurations not exported: {', '.join(sorted(unused))}")
    return fitting, notes


def _check_cascades(found: list[PreprocessedDataset]) -> None:
    """Refuse a second stage alone: nnU-Net looks its first one up in the same plans."""
    exported = {one.configuration for one in found}
    for one in found:
        if one.previous_stage is not None and one.previous_stage not in exported:
            raise SpecError(
                f"{one.configuration!r} is the second half of a cascade, whose input holds the "
                f"labels that {one.previous_stage!r} predicts",
                field="configuration",
                suggestion=f"export both: {one.previous_stage} and {one.configuration}",
            )


def _check(network: Network) -> tuple[str, ...]:
    """Return the parameters that get no gradient, after checking that nnU-Net can train it."""
    arguments = network_arguments(network.planned)
    return check_contract(network.planned, arguments, batch_size=network.batch_size)


def _unused(spec: ArchSpec, found: dict[str, tuple[str, ...]]) -> list[str]:
    """Return a note where a library's network has parameters that no output depends on."""
    names = next((names for names in found.values() if names), ())
    if not names:
        return []
    whose = spec.encoder.timm if isinstance(spec.encoder, TimmEncoderSpec) else spec.decoder.kind
    return [
        f"no output depends on {len(names)} of {whose}'s parameters, e.g. {names[0]}: "
        "they stay as they are, and training on several GPUs (DDP) stops at them"
    ]


def _derive(network: Network, exported: dict[str, ArchSpec]) -> dict[str, Any]:
    """Return the configuration with our network."""
    arguments = network_arguments(network.planned)
    settings = deepcopy(network.dataset.settings)
    settings["patch_size"] = list(network.planned.patch_size)
    settings["batch_size"] = network.batch_size
    following = settings.get("next_stage")
    # nnU-Net looks the next stage up in these plans after training, and has to find it.
    if not isinstance(following, str) or following not in exported:
        settings.pop("next_stage", None)
    settings["architecture"] = {
        "network_class_name": NETWORK_CLASS,
        "arch_kwargs": arguments,
        "_kw_requires_import": [],
    }
    return settings


def _settled(networks: list[Network]) -> list[str]:
    """Return the notes on sizes; each says its configuration, if there are several."""
    return [
        note if len(networks) == 1 else f"{one.dataset.configuration}: {note}"
        for one in networks
        for note in one.notes
    ]


def _warnings(found: list[PreprocessedDataset], base_plans: str, name: str) -> list[str]:
    notes = []
    for one in found:
        data, number = one.data_folder, dataset_id(one.name)
        notes.append(
            f"never run nnUNetv2_preprocess -plans_name {name}: it deletes {data.name}, whose data "
            "these plans share"
        )
        if not data.is_dir():
            notes.append(
                f"not yet preprocessed: {data} is missing; run nnUNetv2_preprocess -d {number} "
                f"-plans_name {base_plans} -c {one.configuration}"
            )
        if one.previous_stage is not None:
            notes.append(
                f"{one.configuration} needs every fold of {one.previous_stage} trained before, by "
                "the same trainer: its input holds their predictions for the training cases"
            )
    if not os.environ.get(RESULTS):
        notes.append(f"{RESULTS} is not set, but training needs it: export {RESULTS}=FOLDER")
    return list(dict.fromkeys(notes))
