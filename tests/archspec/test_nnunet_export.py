"""Derive plans from a dataset's base plans, or refuse in one line with nothing written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from archspec.building import build
from archspec.loading import load
from archspec.nnunet import ArchSpecNet
from archspec.nnunet_export import NETWORK_CLASS, default_plans_name, export_nnunet, target_sizes
from archspec.planning import plan
from blocks.base import SpecError

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def tree(
    *, ndim: int = 3, heads: int = 1, stride: Any = 2, last: Any = 2, head: str = "interpolate"
) -> Any:
    """Return a tiny spec with a Mamba stage between two convolution stages."""
    return {
        "name": "tiny",
        "title": "äöü",
        "in_channels": 2,
        "patch_size": [32] * ndim,
        "encoder": {
            "stages": [
                {
                    "width": 4,
                    "downsample": {"stride": stride, "kernel_size": 5},
                    "mixer": {"kind": "conv"},
                },
                {
                    "width": 8,
                    "downsample": {"stride": 2},
                    "mixer": {"kind": "mamba", "d_state": 4, "directions": 2},
                    "ffn": {"kind": "mlp"},
                },
                {"width": 8, "downsample": {"stride": last}, "mixer": {"kind": "conv"}},
            ]
        },
        "decoder": {"kind": "sum", "head": head},
        "deep_supervision": {"heads": heads},
    }


def arguments(spec: Any, *, patch_size: tuple[int, ...] = (16, 16, 16)) -> dict[str, Any]:
    """Return what the plans of a spec hand to the network."""
    loaded = load(spec)
    return {
        "spec": loaded.tree(),
        "patch_size": list(patch_size),
        "strides": plan(loaded, patch_size=patch_size).strides,
        "schema_version": 1,
    }


def snapshot(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def refusal(root: Path, *arguments: Any, **options: Any) -> str:
    """Return the message; nothing may have been written."""
    before = snapshot(root)
    with pytest.raises(SpecError) as caught:
        export_nnunet(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert snapshot(root) == before
    return message


def test_plans_keep_everything_but_the_network(preprocessed: Path) -> None:
    base = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    export = export_nnunet(tree(), 901)
    assert export.path == preprocessed / "archspec_tiny.json"
    derived = json.loads(export.path.read_text())
    assert derived["plans_name"] == export.plans_name == export.path.stem
    expected = base | {"plans_name": export.plans_name, "configurations": {}}
    assert {**derived, "configurations": {}} == expected
    assert list(derived["configurations"]) == ["3d_fullres"]
    ours, stock = derived["configurations"]["3d_fullres"], base["configurations"]["3d_fullres"]
    architecture = ours.pop("architecture")
    stock.pop("architecture")
    assert json.dumps(ours) == json.dumps(stock)
    assert architecture == {
        "network_class_name": NETWORK_CLASS,
        "arch_kwargs": arguments(tree()),
        "_kw_requires_import": [],
    }
    assert sorted(p.name for p in preprocessed.glob("*.json")) == [
        "archspec_tiny.json",
        "dataset.json",
        "nnUNetPlans.json",
    ]
    assert not list(preprocessed.glob(".*"))


def test_numbers_are_copied_digit_by_digit(preprocessed: Path) -> None:
    text = export_nnunet(tree(), 901).path.read_text()
    for number in ("0.30000000000000004", "1e-07", "1234.5678901234567"):
        assert number in text


def test_notes_and_commands(preprocessed: Path) -> None:
    export = export_nnunet(tree(), 901)
    assert "in_channels: spec says 2, the dataset has 1; the dataset wins" in export.notes
    assert "num_classes: spec says 2, the dataset has 3; the dataset wins" in export.notes
    assert any(note.startswith("patch_size: spec says [32, 32, 32]") for note in export.notes)
    assert any(note.startswith("configurations: left out") for note in export.notes)
    assert all("\n" not in note for note in export.notes)
    assert export.commands == (
        "nnUNetv2_train Dataset901_Blobs 3d_fullres 0 -p archspec_tiny",
        "nnUNetv2_predict -d Dataset901_Blobs -c 3d_fullres -f 0 -p archspec_tiny "
        "-i INPUT_FOLDER -o OUTPUT_FOLDER",
    )


def test_note_when_data_or_results_are_missing(
    preprocessed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (preprocessed / "nnUNetPlans_3d_fullres").rmdir()
    monkeypatch.delenv("nnUNet_results")
    notes = export_nnunet(tree(), 901).notes
    command = "nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 3d_fullres"
    assert any(note.endswith(command) for note in notes)
    assert any(note.startswith("nnUNet_results is not set") for note in notes)


def test_2d_configuration(preprocessed: Path) -> None:
    export = export_nnunet(tree(ndim=2), 901, configuration="2d", plans_name="flat")
    settings = json.loads(export.path.read_text())["configurations"]["2d"]
    assert settings["architecture"]["arch_kwargs"]["patch_size"] == [16, 24]
    assert settings["architecture"]["arch_kwargs"]["strides"] == [[1, 1], [1, 2], [1, 2]]


def test_inherited_configuration_stands_alone(preprocessed: Path) -> None:
    export = export_nnunet(tree(), 901, configuration="small_batch")
    configurations = json.loads(export.path.read_text())["configurations"]
    assert list(configurations) == ["small_batch"]
    assert "inherits_from" not in configurations["small_batch"]
    assert configurations["small_batch"]["batch_size"] == 1
    assert configurations["small_batch"]["spacing"] == [1.5, 1.0, 1.0]


def test_next_stage_goes_with_its_configuration(preprocessed: Path) -> None:
    export = export_nnunet(tree(), 901, configuration="3d_lowres")
    assert "next_stage" not in json.loads(export.path.read_text())["configurations"]["3d_lowres"]
    assert any(note.startswith("next_stage") for note in export.notes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("net", "archspec_net"), ("a__b", "archspec_a_b"), ("a_", "archspec_a"), ("a.1", None)],
)
def test_default_plans_name(name: str, expected: str | None) -> None:
    assert default_plans_name(load(tree() | {"name": name})) == (expected or f"archspec_{name}")


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
def test_plans_name_refused(preprocessed: Path, name: str, force: bool) -> None:
    message = refusal(preprocessed, tree(), 901, plans_name=name, force=force)
    assert message.startswith("plans_name: ")


def test_base_plans_are_never_replaced(preprocessed: Path) -> None:
    (preprocessed / "nnUNetPlans.json").rename(preprocessed / "MyPlans.json")
    message = refusal(
        preprocessed, tree(), 901, base_plans="MyPlans", plans_name="MyPlans", force=True
    )
    assert message.startswith("plans_name: ")


def test_existing_plans_need_force(preprocessed: Path) -> None:
    first = export_nnunet(tree(), 901).path.read_text()
    assert "exists" in refusal(preprocessed, tree(heads=2), 901)
    again = export_nnunet(tree(heads=2), 901, force=True)
    assert f"replaced {again.path}" in again.notes
    assert again.path.read_text() != first


def test_existing_results_need_force(preprocessed: Path) -> None:
    results = preprocessed.parents[1] / "results" / preprocessed.name
    folder = results / "nnUNetTrainerOther__archspec_tiny__3d_lowres"
    folder.mkdir(parents=True)
    assert str(folder) in refusal(preprocessed, tree(), 901)
    notes = export_nnunet(tree(), 901, force=True).notes
    assert any(str(folder) in note for note in notes)
    export_nnunet(tree(), 901, plans_name="archspec_tin")


def test_dimensions_must_agree(preprocessed: Path) -> None:
    message = refusal(preprocessed, tree(ndim=2), 901)
    assert message.startswith("configuration: tiny is 2-D, but '3d_fullres'")
    assert message.endswith("use one of: 2d")
    assert "3d_fullres, 3d_lowres" in refusal(preprocessed, tree(), 901, configuration="2d")


def test_dataset_patch_must_divide(preprocessed: Path) -> None:
    message = refusal(preprocessed, tree(stride=3), 901)
    assert message.startswith("encoder.stages.0.downsample.stride: grid [16, 16, 16]")


def test_dataset_refusals_pass(preprocessed: Path) -> None:
    assert "cascade" in refusal(preprocessed, tree(), 901, configuration="3d_cascade_fullres")
    assert "found: Dataset901_Blobs" in refusal(preprocessed, tree(), 8)


def test_unwritable_folder(preprocessed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", fail)
    assert "cannot be written" in refusal(preprocessed, tree(), 901)


ODD = tree()
ODD["encoder"]["stages"][0]["downsample"]["stride"] = [2, 2, 3]
del ODD["encoder"]["stages"][1:]
CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "one_head": (tree(), (16, 16, 16)),
    "one_head_odd_axis": (ODD, (16, 16, 15)),
    "jump_to_coarse": (tree(heads=2, stride=4), (16, 16, 16)),
    "anisotropic": (tree(heads=2, stride=[1, 2, 2], last=[1, 2, 2]), (6, 16, 16)),
    "full_resolution": (tree(heads=2, stride=1, head="conv"), (16, 16, 16)),
    "two_dimensions": (tree(ndim=2, heads=2), (16, 24)),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_follow_strides(case: str) -> None:
    spec, patch = CASES[case]
    loaded = load(spec)
    planned = plan(loaded, patch_size=patch)
    net = ArchSpecNet(2, 2, deep_supervision=True, **arguments(spec, patch_size=patch))
    outputs = net(torch.randn(1, 2, *patch))
    assert [tuple(out.shape[2:]) for out in outputs] == target_sizes(planned)
    assert len(outputs) == len(planned.strides) - 1 >= 2
    assert target_sizes(planned)[0] == patch
    net.decoder.deep_supervision = False
    assert net(torch.randn(1, 2, *patch)).shape == outputs[0].shape


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("flag", [False, True])
def test_network_is_the_one_that_build_makes(case: str, flag: bool) -> None:
    spec, patch = CASES[case]
    expected = build(spec, in_channels=2, num_classes=4, patch_size=patch).eval()
    net = ArchSpecNet(2, 4, deep_supervision=flag, **arguments(spec, patch_size=patch)).eval()
    assert net.decoder.deep_supervision is flag
    assert list(net.state_dict()) == list(expected.state_dict())
    net.load_state_dict(expected.state_dict())
    x = torch.randn(1, 2, *patch)
    out = net(x)
    torch.testing.assert_close(out[0] if flag else out, expected(x), rtol=0, atol=0)


def test_wrong_strides_refused() -> None:
    kwargs = arguments(tree()) | {"strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    with pytest.raises(SpecError, match=r"^strides: the outputs of tiny"):
        ArchSpecNet(1, 2, deep_supervision=True, **kwargs)


def test_newer_schema_refused() -> None:
    with pytest.raises(SpecError, match="schema_version: 99 is newer"):
        ArchSpecNet(1, 2, **arguments(tree()) | {"schema_version": 99})
