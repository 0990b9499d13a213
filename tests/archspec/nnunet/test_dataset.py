"""Find a preprocessed dataset, or say in one line what is missing and what to run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archspec.nnunet.dataset import dataset_id, find_dataset, usual_configuration
from blocks.base import SpecError

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Set = Callable[[dict[str, Any]], object]

PLAN = "nnUNetv2_plan_and_preprocess -d 901 --verify_dataset_integrity"


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(SpecError) as caught:
        find_dataset(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dataset", [901, "901", "0901", "Dataset901_Blobs"])
def test_find_by_id_or_name(preprocessed: Path, dataset: int | str) -> None:
    found = find_dataset(dataset)
    assert found.folder == preprocessed
    assert found.name == "Dataset901_Blobs"
    assert found.configuration == "3d_fullres"
    assert found.patch_size == (16, 16, 16)
    assert found.spacing == (1.5, 1.0, 1.0)
    assert (found.num_channels, found.num_classes) == (1, 3)
    assert found.data_folder == preprocessed / "nnUNetPlans_3d_fullres"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("Dataset901_Reach", 901),
        ("Dataset001_X", 1),
        ("Dataset1001_Reach_24", 1001),
        ("Dataset_X", None),
        ("Task001_X", None),
    ],
)
def test_id_in_a_name(name: str, number: int | None) -> None:
    assert dataset_id(name) == number


def test_another_patch(preprocessed: Path) -> None:
    """It stands wherever the patch is read: in settings, plans and sizes; the file stays."""
    found = find_dataset(901, configuration="small_batch")
    other = found.with_patch((8, 16, 24))
    assert other.patch_size == other.sizes.patch_size == (8, 16, 24)
    configurations = other.plans["configurations"]
    assert configurations["small_batch"] == {
        **found.plans["configurations"]["small_batch"],
        "patch_size": [8, 16, 24],
    }
    assert configurations["3d_fullres"] == found.plans["configurations"]["3d_fullres"]
    assert found.patch_size == (16, 16, 16) and find_dataset(901).patch_size == (16, 16, 16)
    assert found.with_patch(None) is found.with_patch((16, 16, 16)) is found
    with pytest.raises(SpecError, match=r"^patch_size=\(8, 16\): small_batch has 3 axes$"):
        found.with_patch((8, 16))
    (found.data_folder / "patches.npz").touch()
    with pytest.raises(SpecError, match=r"Dataset901_Blobs holds stored patches of \[16, 16, 16\]"):
        found.with_patch((8, 16, 16))


@pytest.mark.parametrize(("axes", "wanted"), [(3, "3d_fullres"), (2, "2d")])
def test_the_usual_configuration(
    preprocessed: Path, rewrite: Rewrite, axes: int, wanted: str
) -> None:
    assert usual_configuration(901, ndim=axes) == wanted
    rewrite(
        preprocessed / "nnUNetPlans.json",
        lambda tree: tree["configurations"].pop(wanted),
    )
    assert usual_configuration(901, ndim=axes) == {"2d": "3d_fullres", "3d_fullres": "2d"}[wanted]


def test_inherited_settings(preprocessed: Path) -> None:
    found = find_dataset(901, configuration="small_batch")
    assert found.patch_size == (16, 16, 16)
    assert found.settings["batch_size"] == 1
    assert "inherits_from" not in found.settings


def test_num_classes(preprocessed: Path, rewrite: Rewrite) -> None:
    """8: the count of labels is in test_labels.py."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    changed = {"labels": labels, "regions_class_order": [1, 2]}
    rewrite(preprocessed / "dataset.json", lambda tree: tree.update(changed))
    assert find_dataset(901).num_classes == 2
    rewrite(preprocessed / "dataset.json", lambda tree: tree.pop("regions_class_order"))
    message = refusal(901)
    assert message.startswith(f"{preprocessed / 'dataset.json'}: regions_class_order: must list 2")


def test_channels_of_old_dataset_json(preprocessed: Path, rewrite: Rewrite) -> None:
    rewrite(
        preprocessed / "dataset.json", lambda tree: tree.update(modality={"0": "CT", "1": "PET"})
    )
    assert find_dataset(901).num_channels == 2


@pytest.mark.parametrize("value", [None, ""])
def test_variable_unset(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    else:
        monkeypatch.setenv("nnUNet_preprocessed", value)
    message = refusal(901)
    for part in ("nnUNet_raw", "nnUNet_results", "export nnUNet_preprocessed=/"):
        assert part in message


def test_folder_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in refusal(901)


def test_dataset_missing(preprocessed: Path) -> None:
    message = refusal(7)
    assert "found: Dataset901_Blobs" in message
    assert "nnUNetv2_plan_and_preprocess -d 7 --verify_dataset_integrity" in message
    assert "-d 901" in refusal("Dataset901_Other")


@pytest.mark.parametrize(
    "dataset",
    ["Blobs", "", "Dataset901", "-1", "Dataset901_../x", "9" * 5000, f"Dataset{'9' * 5000}_X"],
    ids=range(7),
)
def test_dataset_malformed(preprocessed: Path, dataset: str) -> None:
    assert refusal(dataset).startswith("dataset: ")


def test_two_datasets_with_one_id(preprocessed: Path) -> None:
    (preprocessed.parent / "Dataset901_Twin").mkdir()
    assert "Dataset901_Blobs and Dataset901_Twin" in refusal(901)
    assert find_dataset("Dataset901_Blobs").folder == preprocessed


def test_plans_missing(preprocessed: Path) -> None:
    message = refusal(901, plans_name="nnUNetResEncUNetLPlans")
    assert "nnUNetResEncUNetLPlans.json" in message
    assert "found: nnUNetPlans" in message
    assert PLAN in message


def test_dataset_json_missing(preprocessed: Path) -> None:
    (preprocessed / "dataset.json").unlink()
    assert PLAN in refusal(901)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_plans_broken(preprocessed: Path, text: str) -> None:
    (preprocessed / "nnUNetPlans.json").write_text(text)
    assert "nnUNetPlans.json" in refusal(901)


@pytest.mark.parametrize(
    ("file", "change", "lacking"),
    [
        ("dataset.json", lambda tree: tree.pop("labels"), "labels"),
        ("dataset.json", lambda tree: tree.pop("channel_names"), "channel_names"),
        ("nnUNetPlans.json", lambda tree: tree.pop("configurations"), "configurations"),
        (
            "nnUNetPlans.json",
            lambda tree: tree["configurations"]["3d_fullres"].pop("patch_size"),
            "patch_size",
        ),
    ],
)
def test_keys_missing(
    preprocessed: Path, rewrite: Rewrite, file: str, change: Set, lacking: str
) -> None:
    rewrite(preprocessed / file, change)
    message = refusal(901)
    assert file in message
    assert lacking in message


def test_configuration_missing(preprocessed: Path) -> None:
    message = refusal(901, configuration="3d_half")
    assert "'3d_half'" in message
    assert "2d, 3d_fullres, 3d_lowres" in message


def test_configuration_inherits_from_itself(preprocessed: Path, rewrite: Rewrite) -> None:
    rewrite(
        preprocessed / "nnUNetPlans.json",
        lambda tree: tree["configurations"]["3d_fullres"].update(inherits_from="small_batch"),
    )
    assert "inherits from itself" in refusal(901)


def test_cascade_refused(preprocessed: Path) -> None:
    assert "cascade" in refusal(901, configuration="3d_cascade_fullres")


def test_import_needs_no_nnunet() -> None:
    code = (
        "import sys; sys.modules['nnunetv2'] = None\n"
        "import archspec\n"
        "assert not [m for m in sys.modules if m.startswith('archspec.nnunet')]\n"
        "import archspec.nnunet.network, archspec.nnunet.dataset, archspec.nnunet.export\n"
        "assert not [m for m in sys.modules if m.startswith('nnunetv2.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
