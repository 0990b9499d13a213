"""Names of plans, and results that are in the way (7 and 9 of the acceptance list)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archspec.nnunet.export import Export, export_nnunet
from archspec.nnunet.names import default_plans_name
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load

Refuse = Callable[..., str]


def tree(*, width: int = 4, name: str = "tiny", **fields: Any) -> dict[str, Any]:
    stage = {"width": width, "mixer": {"kind": "conv"}}
    return {
        "name": name,
        "patch_size": [16, 16, 16],
        "num_classes": 3,
        "encoder": {"stages": [stage, stage]},
        "decoder": {"kind": "sum"},
        **fields,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [("net", "archspec_net"), ("a__b", "archspec_a_b"), ("a_", "archspec_a"), ("a.1", None)],
)
def test_default_plans_name(name: str, expected: str | None) -> None:
    assert default_plans_name(load(tree(name=name))) == (expected or f"archspec_{name}")


@pytest.mark.parametrize(
    "name",
    [
        *("", "a__b", "a_", "_a", "a/b", "..", "a\\b", "a b", "a\n", "x" * 101),
        *("nnUNetPlans", "nnUNetResEncUNetPlans", "nnUNetResEncUNetXLPlans", "nnunetplans"),
        *("nnUNetPlans_torchres", "nnUNetResEncUNetLPlans_noResampling"),
        *("dataset", "dataset_fingerprint", "splits_final"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_plans_name_refused(refused_export: Refuse, name: str, force: bool) -> None:
    """7: names that nnU-Net cannot use, or uses itself; `force` changes nothing."""
    message = refused_export(tree(), plans_name=name, force=force)
    assert message.startswith("plans_name: ")


def test_base_plans_are_never_replaced(preprocessed: Path, refused_export: Refuse) -> None:
    (preprocessed / "nnUNetPlans.json").rename(preprocessed / "MyPlans.json")
    message = refused_export(tree(), base_plans="MyPlans", plans_name="MyPlans", force=True)
    assert message.startswith("plans_name: ")


def test_existing_plans_need_force(preprocessed: Path, refused_export: Refuse) -> None:
    """7: a file of that name."""
    first = export_nnunet(tree(), 901).path.read_text()
    remedy = "exists; choose another `plans_name`, or replace the plans with `force`"
    assert refused_export(tree(width=8)).endswith(remedy)
    again = export_nnunet(tree(width=8), 901, force=True)
    assert f"replaced {again.path}" in again.notes
    assert again.path.read_text() != first


def results(export: Export, *, trainer: str = "nnUNetTrainer", **settings: Any) -> Path:
    """Return the folder that a training of the exported plans leaves behind."""
    (configuration,) = json.loads(export.path.read_text())["configurations"]
    root = export.path.parents[2] / "results" / export.path.parent.name
    folder = root / f"{trainer}__{export.plans_name}__{settings.get('as', configuration)}"
    (folder / "fold_0").mkdir(parents=True)
    shutil.copy(export.path, folder / "plans.json")
    return folder


def test_same_network_continues(preprocessed: Path, refused_export: Refuse) -> None:
    """9: another recipe and other claims, but the weights fit: --c goes on."""
    export = export_nnunet(tree(), 901)
    folder = results(export)
    message = refused_export(tree())
    assert f"{folder} holds results of this network" in message and "exists" in message
    recipe = tree(training={"lr": 3e-4}, title="longer")
    notes = export_nnunet(recipe, 901, force=True).notes
    assert any(note.startswith(f"{folder} holds results of this network: --c") for note in notes)
    export.path.unlink()
    assert not any("replaced" in note for note in export_nnunet(recipe, 901).notes)


def test_other_network_is_refused(preprocessed: Path, refused_export: Refuse) -> None:
    """9: nnU-Net would load a checkpoint into a network that it does not fit."""
    export = export_nnunet(tree(), 901)
    folder = results(export, trainer="nnUNetTrainerArchSpec")
    export.path.unlink()
    other = load(tree(width=8))
    message = refused_export(other)
    assert message.startswith(f"plans_name: {folder} holds results of another network")
    assert arch_hash(load(tree())) in message and arch_hash(other) in message
    assert "--c could not load" in message and "`force`" in message
    notes = export_nnunet(other, 901, force=True).notes
    assert any("--c could not load" in note for note in notes)
    export_nnunet(other, 901, plans_name="archspec_tin")


def test_results_of_a_configuration_left_out(preprocessed: Path, refused_export: Refuse) -> None:
    export = export_nnunet(tree(), 901, configuration="3d_lowres")
    results(export)
    export.path.unlink()
    assert "'3d_lowres', which is not exported now" in refused_export(tree())


@pytest.mark.parametrize("plans", [None, "{", "[]", '{"configurations": {"3d_fullres": {}}}'])
def test_foreign_results_are_refused(
    preprocessed: Path, refused_export: Refuse, plans: str | None
) -> None:
    """7: results that are not ours, or cannot be read."""
    root = preprocessed.parents[1] / "results" / preprocessed.name
    folder = root / "nnUNetTrainerOther__archspec_tiny__3d_fullres"
    folder.mkdir(parents=True)
    if plans is not None:
        (folder / "plans.json").write_text(plans)
    assert f"{folder} holds results of another network:" in refused_export(tree())
    assert any(str(folder) in note for note in export_nnunet(tree(), 901, force=True).notes)
