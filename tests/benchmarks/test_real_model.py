"""The data, the spec and the zip of a model that stock nnU-Net trains."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from model import copy_data, pack, spec_of
from protocol import HERE, parts_of, person_of, read_protocol

from archspec.spec.load import load
from blocks.base import SpecError

_ENDING = ".nii.gz"


def test_no_person_of_the_test_part_is_copied(tmp_path: Path) -> None:
    tree = read_protocol().tree
    split, name = tree["split"], tree["dataset"]["name"]
    persons = [split["test"][0], split["folds"][0][0], split["folds"][1][0], split["folds"][2][0]]
    cases = [f"hippocampus_{2 * person - side:03}" for person in persons for side in (0, 1)]
    source = tmp_path / "raw" / name
    for folder, suffix in (("imagesTr", f"_0000{_ENDING}"), ("labelsTr", _ENDING)):
        (source / folder).mkdir(parents=True)
        for case in cases:
            (source / folder / f"{case}{suffix}").write_text(case, encoding="utf-8")
    header = {"file_ending": _ENDING, "numTraining": len(cases)}
    (source / "dataset.json").write_text(json.dumps(header), encoding="utf-8")
    assert copy_data(tmp_path / "raw", tmp_path / "work") == 6
    copied = tmp_path / "work" / "raw" / name
    labels = [file.name.removesuffix(_ENDING) for file in (copied / "labelsTr").iterdir()]
    assert {person_of(case) for case in labels} == set(persons[1:])
    assert not parts_of(split, labels, split["fold"]).test
    assert len(list((copied / "imagesTr").iterdir())) == 6
    for folder in ("imagesTr", "labelsTr"):
        test = (tmp_path / "work" / "test" / folder).iterdir()
        assert {file.read_text(encoding="utf-8") for file in test} == set(cases[:2])
    assert json.loads((copied / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 6


def test_the_spec_has_the_steps_that_fit_into_the_hours() -> None:
    one, two = (spec_of("unet-8", hours, HERE / "results")["training"] for hours in (1, 2))
    assert two["epochs"] == pytest.approx(2 * one["epochs"], abs=1)
    spec = load(spec_of("unet-8", 1, HERE / "results"))
    assert spec.encoder.stages[0].width == 8
    assert spec.training.lr == 2e-3


def test_a_network_that_is_not_recorded_has_no_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not on record"):
        spec_of("unet-8", 1, tmp_path)


def test_a_packed_model_keeps_what_predicts_alone(tmp_path: Path) -> None:
    model = tmp_path / "Dataset004_Hippocampus" / "trainer__plans__3d_fullres"
    (model / "fold_all").mkdir(parents=True)
    kept = {"network_weights": {"w": torch.ones(3)}, "trainer_name": "nnUNetTrainer"}
    left = {"optimizer_state": {"m": torch.ones(9)}, "logging": {"loss": [1.0]}}
    torch.save(kept | left, model / "fold_all" / "checkpoint_final.pth")
    for name in ("dataset.json", "plans.json", "dataset_fingerprint.json"):
        (model / name).write_text(f'"{name}"', encoding="utf-8")
    assert pack(model, "all", tmp_path / "one.zip") == (tmp_path / "one.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        archive.extractall(tmp_path / "out")
    there = tmp_path / "out" / model.parent.name / model.name
    assert json.loads((there / "plans.json").read_text(encoding="utf-8")) == "plans.json"
    content = torch.load(there / "fold_all" / "checkpoint_final.pth", weights_only=False)
    assert set(content) == set(kept)
    assert torch.equal(content["network_weights"]["w"], torch.ones(3))
    with pytest.raises(FileExistsError):
        pack(model, "all", tmp_path / "one.zip")
