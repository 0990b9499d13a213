"""Weights with their spec in one file: what is written, what is read, what is refused."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import archspec
from archspec.network.build import build_plan
from archspec.network.resolve import resolve
from archspec.saved.info import FORMAT
from archspec.spec.hashing import arch_hash
from archspec.spec.yaml_file import dump
from blocks.base import SpecError

TREE = {
    "name": "tiny",
    "patch_size": [8, 8, 8],
    "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}]},
    "decoder": {"kind": "sum"},
}
SAID: dict[str, Any] = {
    "spacing": (2.5, 0.5, 0.5),
    "normalization": ["ZScoreNormalization", {"scheme": "CTNormalization", "mean": 7.5, "std": 2}],
    "labels": {"background": 0, "liver": 1, "tumor": 2},
    "preprocessing": {"transpose_forward": [2, 0, 1], "mirror_axes": (0, 2)},
}


def network(**sizes: Any) -> Any:
    """Return a network with weights that no start value is equal to."""
    net = archspec.build(TREE, **{"in_channels": 2, "num_classes": 3, **sizes})
    with torch.no_grad():
        for value in net.parameters():
            value.normal_()
    return net


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(SpecError) as caught:
        do()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewritten(file: Path, **changed: str | None) -> None:
    """Change entries of a file's metadata; None takes one out."""
    with safe_open(file, framework="pt") as opened:
        old = opened.metadata()
    new = {key: value for key, value in {**old, **changed}.items() if value is not None}
    save_file(load_file(file), file, metadata=new)


@pytest.mark.parametrize("name", ["net.safetensors", "folder"])
def test_a_network_comes_back_whole(tmp_path: Path, name: str) -> None:
    net, file = network(patch_size=(6, 7, 8)), tmp_path / name
    assert archspec.save(net, file, **SAID) == file
    again = archspec.from_pretrained(file)
    assert same_weights(net, again) and again.planned == net.planned
    x = torch.randn(1, 2, 6, 7, 8)
    assert torch.equal(net.eval()(x), again.eval()(x))
    info = archspec.model_info(str(file))
    assert (info.in_channels, info.num_classes, info.patch_size) == (2, 3, (6, 7, 8))
    assert info.spec == net.planned.spec
    assert info.spacing == SAID["spacing"] and info.labels == SAID["labels"]
    assert info.normalization == ({"scheme": "ZScoreNormalization"}, SAID["normalization"][1])
    other = archspec.from_pretrained(file, patch_size=(8, 8, 8))
    assert other.planned.patch_size == (8, 8, 8) and same_weights(net, other)
    assert same_weights(
        net, archspec.create_model(TREE, in_channels=2, num_classes=3, weights=file)
    )


def test_what_a_folder_holds(tmp_path: Path) -> None:
    net, folder = network(), tmp_path / "model"
    archspec.save(net, folder, **SAID)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model"]
    names = sorted(one.name for one in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["spec"]["name"] == "tiny" and config["arch_hash"] == arch_hash(net.planned.spec)
    assert archspec.model_info(folder) == archspec.model_info(folder / "model.safetensors")
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: archspec-seg\n") and "# tiny" in card
    # a card that the user wrote, and other files, are kept
    (folder / "README.md").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    other = network()
    assert "exists" in refusal(lambda: archspec.save(other, folder))
    assert same_weights(net, archspec.from_pretrained(folder))
    archspec.save(other, folder, force=True)
    assert same_weights(other, archspec.from_pretrained(folder))
    assert (folder / "README.md").read_text() == (folder / "notes.txt").read_text() == "mine"


def test_the_page_of_a_saved_network(tmp_path: Path) -> None:
    archspec.save(network(), tmp_path / "net.safetensors", **SAID)
    info = archspec.model_info(tmp_path / "net.safetensors")
    assert str(info).splitlines() == [
        "tiny: input 1 x 2 x 8 x 8 x 8, 3 classes",
        f"arch hash {arch_hash(info.spec)}",
        "spacing 2.5 x 0.5 x 0.5 mm",
        "normalization ZScoreNormalization, CTNormalization",
        "labels background, liver, tumor",
        "images .nii.gz, axes 2 0 1, mirrored 0 2",
    ]
    assert json.loads(json.dumps(info.to_json(), allow_nan=False)) == info.to_json()
    assert {one.name for one in fields(info)} <= set(info.to_json()) | {"regions_class_order"}


def test_wrapped_networks_and_numpy_numbers(tmp_path: Path) -> None:
    net, file = network(), tmp_path / "net.safetensors"
    spacing = tuple(np.float32([2.5, 0.5, 0.5]))
    archspec.save(nn.DataParallel(net), file, spacing=spacing)
    assert same_weights(net, archspec.from_pretrained(file))
    assert archspec.model_info(file).spacing == (2.5, 0.5, 0.5)


def test_networks_that_cannot_be_saved(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    assert "not a network that archspec built" in refusal(
        lambda: archspec.save(nn.Conv3d(1, 1, 1), file)
    )
    two = nn.ModuleList([network(), network()])
    assert "several" in refusal(lambda: archspec.save(two, file))
    with torch.device("meta"):
        hollow = archspec.build(TREE)
    assert "meta device" in refusal(lambda: archspec.save(hollow, file))
    changed = network()
    changed.stages[0].downsample = nn.Conv3d(2, 4, 1)
    assert "is not as its spec tiny says" in refusal(lambda: archspec.save(changed, file))
    assert not list(tmp_path.iterdir())


def test_targets_that_are_refused(tmp_path: Path) -> None:
    net, file = network(), tmp_path / "net.safetensors"
    assert "must end in .safetensors" in refusal(lambda: archspec.save(net, tmp_path / "net.pth"))
    missing = tmp_path / "no" / "net.safetensors"
    assert "does not exist" in refusal(lambda: archspec.save(net, missing))
    file.write_text("mine")
    assert "exists; give another name" in refusal(lambda: archspec.save(net, file))
    assert "is no folder" in refusal(lambda: archspec.save(net, file / "model"))
    assert file.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    archspec.save(net, file, force=True)
    assert same_weights(net, archspec.from_pretrained(file))


REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"spacing": (1.0, 1.0)}, "spacing: must be 3 sizes in mm"),
        ({"spacing": (1.0, 1.0, 0)}, "spacing: must be 3 sizes in mm"),
        ({"spacing": (1.0, 1.0, float("nan"))}, "spacing: must be 3 sizes in mm"),
        ({"normalization": ["ZScoreNormalization"]}, "an entry for each of 2 input channels"),
        ({"normalization": ["ZScoreNormalization", {"mean": 1}]}, "normalization.1: must be"),
        ({"labels": {"background": 0, "liver": 1}}, "labels: need a network of 2 classes"),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "without a gap"),
        ({"labels": ["background"]}, "labels: must be a mapping"),
        ({"labels": {**REGIONS, "edge": [1, 3]}}, "regions_class_order: must list 3 labels"),
        ({"regions_class_order": [1, 2]}, "regions_class_order: must be a list of labels"),
        ({**SAID, "regions_class_order": 5}, "regions_class_order: must be a list of labels"),
        ({"preprocessing": []}, "preprocessing: must be a mapping"),
        ({"preprocessing": {"mirror_axis": [0]}}, "did you mean 'mirror_axes'?"),
        ({"preprocessing": {"mirror_axes": [3]}}, "mirror_axes: must be axes from 0 to 2"),
        ({"preprocessing": {"mirror_axes": [1, 1]}}, "mirror_axes: must be axes from 0 to 2"),
        ({"preprocessing": {"transpose_forward": [0, 1]}}, "the axes 0, 1 and 2 in some order"),
        ({"preprocessing": {"channel_names": ["T1"]}}, "a name for each of 2 input channels"),
        ({"preprocessing": {"file_ending": "../x"}}, "must be an ending such as .nii.gz"),
        ({"preprocessing": {"resampling_fn_data": "a.b"}}, "must be a name of nnU-Net's"),
        (
            {"preprocessing": {"resampling_fn_data_kwargs": {"order": [3]}}},
            "resampling_fn_data_kwargs: must be a mapping of names to numbers or words",
        ),
    ],
)
def test_what_is_said_has_to_fit(tmp_path: Path, said: Any, words: str) -> None:
    file = tmp_path / "net.safetensors"
    assert words in refusal(lambda: archspec.save(network(), file, **said))
    assert not file.exists()


def test_what_is_usual_for_images(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    archspec.save(network(), file, preprocessing={})
    said = archspec.model_info(file).preprocessing
    assert said is not None and said.image_reader_writer == "SimpleITKIO"
    assert said.transpose_forward == said.transpose_backward == (0, 1, 2)
    turned = {"file_ending": ".png", "transpose_forward": (2, 0, 1)}
    archspec.save(network(), file, preprocessing=turned, force=True)
    said = archspec.model_info(file).preprocessing
    assert said is not None and said.image_reader_writer == "NaturalImage2DIO"
    assert said.transpose_backward == (1, 2, 0)
    rewritten(file, preprocessing=None)  # as files of before say nothing
    assert archspec.model_info(file).preprocessing is None


def test_regions(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    net = network(num_classes=2)
    archspec.save(net, file, labels=REGIONS, regions_class_order=(1, 2))
    info = archspec.model_info(file)
    assert info.labels == REGIONS and info.regions_class_order == (1, 2)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"arch_hash": '"h1:0123456789abcdef"'},
            "'h1:0123456789abcdef' is not the hash",
        ),
        ({"arch_hash": None}, "arch_hash: null is not the hash of the spec there"),
        ({"archspec_format": str(FORMAT + 1)}, "archspec_format: 2 is not a format that"),
        ({"archspec_format": "{"}, "archspec_format: not JSON"),
        ({"spacing": "[" * 100_000}, "spacing: not JSON"),
        ({"spacing": "[1, 1, -1]"}, "spacing: must be 3 sizes"),
        ({"preprocessing": '{"mirror_axes": 0}'}, "preprocessing.mirror_axes: must be axes"),
        ({"in_channels": '"two"'}, "in_channels: must be an integer"),
        ({"in_channels": "5"}, "1 have another shape"),
        ({"patch_size": "7"}, "patch_size: must be 2 or 3 sizes"),
        ({"packages": '{"archspec-nosuch": "1.0"}'}, "needs the package archspec-nosuch 1.0"),
        ({"packages": "[1]"}, "packages: must be names with versions"),
        ({"spec": None}, "holds weights without their spec"),
        ({"spec": "name: tiny"}, "spec.patch_size: missing"),
        ({"spec": "[" * 100}, "nested"),
        (
            {"spec": "schema_version: 99"},
            "spec.schema_version: 99 is newer than this",
        ),
    ],
)
def test_damaged_headers(tmp_path: Path, changed: dict[str, str | None], words: str) -> None:
    file = tmp_path / "net.safetensors"
    archspec.save(network(), file)
    rewritten(file, **changed)
    with pytest.raises(SpecError) as caught:
        archspec.from_pretrained(file)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(str(file)) and words in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    archspec.save(network(), file)
    whole = file.read_bytes()

    def refused() -> str:
        return refusal(lambda: archspec.from_pretrained(file))

    for part in (whole[:-5], whole[:100], whole[:4], b"", b"junk" * 9):
        file.write_bytes(part)
        assert f"{file}: not a safetensors file, or not a whole one" in refused()
    file.unlink()
    assert refused() == f"{file}: no such file or folder"
    file.mkdir()
    assert "config.json: cannot be read as JSON" in refused()
    (file / "config.json").write_text("[]")
    assert "holds no spec" in refused()
    other = tmp_path / "net.pth"
    other.write_bytes(whole)
    assert "must end in .safetensors" in refusal(lambda: archspec.model_info(other))


def test_a_folder_without_its_weights(tmp_path: Path) -> None:
    archspec.save(network(), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    words = refusal(lambda: archspec.from_pretrained(tmp_path / "model"))
    assert words == f"{tmp_path / 'model' / 'model.safetensors'}: no such file"


def test_other_classes_and_channels_take_what_fits(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    trained = network()
    archspec.save(trained, file)
    wider = network(num_classes=5)
    before = {key: value.clone() for key, value in wider.state_dict().items()}
    words = refusal(lambda: archspec.load_weights(wider, file))
    assert words.startswith(f"{file}: not the weights") and ", which is (3, 4" in words
    assert all(torch.equal(value, before[key]) for key, value in wider.state_dict().items())
    report = archspec.load_weights(wider, file, allow_partial=True)
    assert not report.complete and report.missing == report.unused == ()
    assert set(report.reshaped) == {k for k, v in before.items() if 5 in v.shape[:1]}
    for key, value in wider.state_dict().items():
        kept = before[key] if key in report.reshaped else trained.state_dict()[key]
        assert torch.equal(value, kept)
    total = len(before)
    assert report.text().splitlines() == [
        f"{len(report.loaded)} of {total} tensors loaded",
        f"{len(report.reshaped)} have another shape in the file, and were left as they were:",
        *(f"  {key}" for key in report.reshaped),
    ]
    assert json.loads(json.dumps(report.to_json()))["reshaped"] == list(report.reshaped)
    assert archspec.load_weights(network(), file).complete
    more = network(in_channels=1)
    assert archspec.load_weights(more, file, allow_partial=True).reshaped


def test_weights_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"conv": torch.zeros(2)}, file)
    words = refusal(lambda: archspec.load_weights(network(), file, allow_partial=True))
    assert "1 have no place, e.g. conv" in words


def test_files_of_convert_are_read(tmp_path: Path) -> None:
    net, file = network(), tmp_path / "net.safetensors"
    spec = dump(net.planned.spec.tree())
    metadata = {"spec": spec, "in_channels": "2", "num_classes": "3"}
    save_file(net.state_dict(), file, metadata=metadata)
    assert same_weights(net, archspec.from_pretrained(file))


@pytest.mark.long
def test_weights_to_start_from_are_not_asked_for_again(tmp_path: Path) -> None:
    encoder = {"timm": "resnet10t", "pretrained": str(tmp_path / "gone.pth")}
    tree = {"name": "timm", "patch_size": [32, 32], "decoder": {"kind": "sum"}, "encoder": encoder}
    net, file = build_plan(resolve(tree)), tmp_path / "net.safetensors"
    archspec.save(net, file)
    assert same_weights(net, archspec.from_pretrained(file))
    assert archspec.model_info(file).spec.encoder.pretrained is False
