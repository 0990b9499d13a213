"""Names of plans: which are free, and which results would be broken by plans of that name."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError

RESULTS = "nnUNet_results"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9.-])?"
# Names that nnU-Net's planners write, and rewrite whenever a dataset is planned again.
_PLANNERS = r"nnUNet(ResEncUNet\w*?)?Plans.*"
_OTHER_FILES = ("dataset", "dataset_fingerprint", "splits_final")
_FORCE = "choose another `plans_name`, or replace the plans with `force`"


def default_plans_name(spec: ArchSpec) -> str:
    """Return archspec_<spec name>, without what nnU-Net's folder names cannot hold."""
    return re.sub(r"_+", "_", f"archspec_{spec.name}")[:100].rstrip("_")


def check_name(name: str, base_plans: str) -> None:
    """Refuse names that nnU-Net cannot use, or uses itself.

    Raises:
        SpecError: see above.
    """
    if not re.fullmatch(_NAME, name) or "__" in name:
        raise SpecError(
            f"{name!r} must be at most 100 letters, digits, '.', '-' or single '_', and begin with "
            "a letter or digit and not end with '_', because nnU-Net splits folder names at '__'",
            field="plans_name",
        )
    taken = name == base_plans or name in _OTHER_FILES
    if taken or re.fullmatch(_PLANNERS, name, flags=re.IGNORECASE):
        raise SpecError(
            f"{name!r} belongs to nnU-Net, which would overwrite it or be broken by it",
            field="plans_name",
            suggestion="choose another name, e.g. archspec_mine",
        )


def check_free(
    path: Path, dataset: str, networks: Mapping[str, ArchSpec], *, force: bool
) -> list[str]:
    """Return a note for each file that is replaced, and for each folder of results in the way.

    `networks` are the specs to be written, by configuration. Results of the same network do not
    stand in the way: nnU-Net goes on from their checkpoints.

    Raises:
        SpecError: the plans exist, or there are results of another network under their name, and
            `force` is not set.
    """
    same: list[Path] = []
    notes: list[str] = []
    for folder in _results(dataset, path.stem):
        reason = _difference(folder, networks)
        if reason is None:
            same.append(folder)
            continue
        broken = (
            f"{folder} holds results of {reason}: with new plans of the name {path.stem!r}, "
            "nnUNetv2_train --c could not load those weights, and without --c would overwrite them"
        )
        if not force:
            raise SpecError(broken, field="plans_name", suggestion=_FORCE)
        notes.append(broken)
    if path.exists():
        if not force:
            held = f", and {same[0]} holds results of this network" if same else ""
            raise SpecError(f"{path} exists{held}", field="plans_name", suggestion=_FORCE)
        notes.insert(0, f"replaced {path}")
    return notes + [
        f"{folder} holds results of this network: --c continues them, training without --c "
        "would overwrite them"
        for folder in same
    ]


def _results(dataset: str, name: str) -> list[Path]:
    """Return the folders of results under that name, of any trainer and configuration."""
    root = os.environ.get(RESULTS)
    return sorted((Path(root) / dataset).glob(f"*__{name}__*")) if root else []


def _difference(folder: Path, networks: Mapping[str, ArchSpec]) -> str | None:
    """Return how the network trained there differs from the one to be written, None if it fits."""
    configuration = folder.name.rpartition("__")[2]
    if configuration not in networks:
        return f"{configuration!r}, which is not exported now"
    trained, exported = _trained_hash(folder, configuration), arch_hash(networks[configuration])
    if trained is None:
        return "another network"
    if trained != exported:
        return f"another network (arch_hash {trained}, not {exported})"
    return None


def _trained_hash(folder: Path, configuration: str) -> str | None:
    """Return the hash of the spec in the plans that a training left there; None if not ours.

    It is computed anew, for a later archspec may hash the same spec to other digits.
    """
    try:
        plans: Any = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
        kwargs = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
        return arch_hash(load({**kwargs["spec"], "schema_version": kwargs["schema_version"]}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
