"""Derive plans from a dataset's base plans, or refuse in one line with nothing written.

Numbers in docstrings are those of the acceptance list that every export into nnU-Net has to pass.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec import plan
from archspec.nnunet.export import NETWORK_CLASS, export_nnunet
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Refuse = Callable[..., str]


def tree(*, ndim: int = 3, heads: int = 1, stride: Any = 2, **fields: Any) -> Any:
    """Return a tiny spec with a Mamba stage between two convolution stages."""
    conv = {"kind": "conv"}
    mamba = {"kind": "mamba", "d_state": 4, "directions": 2}
    down = {"stride": stride, "kernel_size": 5}
    return {
        "name": "tiny",
        "title": "äöü",
        "in_channels": 2,
        "patch_size": [32] * ndim,
        "encoder": {
            "stages": [
                {"width": 4, "downsample": down, "mixer": conv},
                {"width": 8, "mixer": mamba, "ffn": {"kind": "mlp"}},
                {"width": 8, "mixer": conv},
            ]
        },
        "decoder": {"kind": "sum"},
        "deep_supervision": {"heads": heads},
        **fields,
    }


def exported(**options: Any) -> dict[str, Any]:
    """Return the configurations of the written plans."""
    plans: dict[str, Any] = json.loads(export_nnunet(**options).path.read_text())
    return dict(plans["configurations"])


def test_plans_keep_everything_but_the_network(preprocessed: Path) -> None:
    base = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    claim = {"what": "parameters", "value": 1, "source": "us", "confidence": "code"}
    spec = load(tree(claims=[claim]))
    export = export_nnunet(spec, 901)
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
    inlined = {key: value for key, value in spec.tree().items() if key != "claims"}
    assert architecture == {
        "network_class_name": NETWORK_CLASS,
        "arch_kwargs": {
            "spec": inlined,
            "patch_size": [16, 16, 16],
            "strides": plan(spec, patch_size=(16, 16, 16)).strides,
            "schema_version": 1,
            "arch_hash": arch_hash(spec),
        },
        "_kw_requires_import": [],
    }
    assert arch_hash(load(inlined)) == arch_hash(spec)
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


def test_residual_encoder_plans(preprocessed: Path, rewrite: Rewrite) -> None:
    """ResEnc plans share the data of the default ones, under their own patch and batch."""
    stock = (preprocessed / "nnUNetPlans.json").read_text()
    base = preprocessed / "nnUNetResEncUNetLPlans.json"
    base.write_text(stock.replace('"nnUNetPlans"', '"nnUNetResEncUNetLPlans"'))
    rewrite(base, lambda t: t["configurations"]["3d_fullres"].update(patch_size=[24, 16, 16]))
    settings = exported(spec=tree(), dataset=901, base_plans=base.stem)["3d_fullres"]
    assert settings["data_identifier"] == "nnUNetPlans_3d_fullres"
    assert settings["architecture"]["arch_kwargs"]["patch_size"] == [24, 16, 16]


def test_preprocessed_data_are_left_alone(
    preprocessed: Path, hollow_case: Callable[[Path], None]
) -> None:
    """13, the export's half: nothing but the new plans is written, and the shared data warned of.

    The training's half is in the chain's tests.
    """
    data = preprocessed / "nnUNetPlans_3d_fullres"
    hollow_case(data / "case")
    before = {path: path.stat().st_mtime_ns for path in preprocessed.rglob("*")}
    data_before = data.stat().st_mtime_ns
    export = export_nnunet(tree(), 901)
    after = {path: path.stat().st_mtime_ns for path in preprocessed.rglob("*")}
    assert after.pop(export.path) and after == before and data.stat().st_mtime_ns == data_before
    warning = (
        f"never run nnUNetv2_preprocess -plans_name archspec_tiny: it deletes {data.name}, whose "
        "data these plans share"
    )
    assert warning in export.notes


def test_note_when_data_or_results_are_missing(
    preprocessed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (preprocessed / "nnUNetPlans_3d_fullres").rmdir()
    monkeypatch.delenv("nnUNet_results")
    notes = export_nnunet(tree(), 901).notes
    command = "nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 3d_fullres"
    assert any(note.endswith(command) for note in notes)
    missing = "nnUNet_results is not set, but training needs it: export nnUNet_results=FOLDER"
    assert missing in notes
    assert all("\n" not in note for note in notes)


def test_two_axes_export_2d(preprocessed: Path) -> None:
    """11: a spec with two axes goes into `2d`, without being told."""
    (settings,) = exported(spec=tree(ndim=2), dataset=901).items()
    assert settings[0] == "2d"
    kwargs = settings[1]["architecture"]["arch_kwargs"]
    assert kwargs["patch_size"] == [16, 24]
    assert kwargs["strides"] == [[1, 1], [1, 2], [1, 2]]


def test_several_configurations(preprocessed: Path) -> None:
    """11: one plans file holds all that fit; others are left out, and a line says which."""
    export = export_nnunet(tree(), 901, configuration=["3d_fullres", "2d", "3d_lowres"])
    configurations = json.loads(export.path.read_text())["configurations"]
    assert list(configurations) == ["3d_fullres", "3d_lowres"]
    assert "2d: left out, since tiny is 3-D (its patch_size has 3 axes)" in export.notes
    differs = "in_channels: spec says 2, the dataset has 1; the dataset wins"
    assert f"3d_fullres: {differs}" in export.notes and f"3d_lowres: {differs}" in export.notes
    assert [line.split()[0] for line in export.commands] == [
        "nnUNetv2_train",
        "nnUNetv2_predict",
    ] * 2
    assert "configurations not exported: 3d_cascade_fullres, small_batch" in export.notes


def test_a_spec_is_built_in_the_dimension_of_the_dataset(preprocessed: Path) -> None:
    """11: where nothing in it is for another number of axes; that is said."""
    for spec, name, axes in ((tree(ndim=2), "3d_fullres", 3), (tree(), "2d", 2)):
        export = export_nnunet(spec, 901, configuration=name, force=True)
        assert f"tiny is {5 - axes}-D as it is written; built in {axes}-D, as {name} is" in (
            export.notes
        )
        written = json.loads(export.path.read_text())["configurations"][name]
        kwargs = written["architecture"]["arch_kwargs"]
        assert len(written["patch_size"]) == len(kwargs["spec"]["patch_size"]) == axes


def test_sizes_per_axis_keep_a_spec_in_its_dimension(refused_export: Refuse) -> None:
    anisotropic = tree()
    anisotropic["encoder"]["stages"][1]["downsample"] = {"stride": [1, 2, 2]}
    message = refused_export(anisotropic, configuration="2d")
    assert "encoder.stages.1.downsample.stride: [1, 2, 2] has 3 entries, but patch_size" in message


def test_inherited_configuration_stands_alone(preprocessed: Path) -> None:
    configurations = exported(spec=tree(), dataset=901, configuration="small_batch")
    assert list(configurations) == ["small_batch"]
    assert "inherits_from" not in configurations["small_batch"]
    assert configurations["small_batch"]["batch_size"] == 1
    assert configurations["small_batch"]["spacing"] == [1.5, 1.0, 1.0]


def test_cascade(preprocessed: Path) -> None:
    """18: the second stage has an input for every foreground label, and its first stage beside."""
    names = ["3d_cascade_fullres", "3d_lowres"]
    export = export_nnunet(tree(), 901, configuration=names)
    configurations = json.loads(export.path.read_text())["configurations"]
    second = configurations["3d_cascade_fullres"]
    assert configurations["3d_lowres"]["next_stage"] == "3d_cascade_fullres"
    assert second["previous_stage"] == "3d_lowres"
    for name, channels in (("3d_lowres", 1), ("3d_cascade_fullres", 3)):
        said = f"in_channels: spec says 2, the dataset has {channels}; the dataset wins"
        assert f"{name}: {said}" in export.notes
    assert [line.split()[2] for line in export.commands if "train" in line] == names[::-1]
    assert "-prev_stage_predictions OUTPUT_FOLDER_OF_3d_lowres" in export.commands[-1]
    nnunet = pytest.importorskip("nnunetv2.utilities.plans_handling.plans_handler")
    labels = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
    manager = nnunet.PlansManager(json.loads(export.path.read_text()))
    dataset_json = json.loads((preprocessed / "dataset.json").read_text())
    for name, channels in (("3d_lowres", 1), ("3d_cascade_fullres", 3)):
        assert labels.determine_num_input_channels(manager, name, dataset_json) == channels
        kwargs = manager.get_configuration(name).network_arch_init_kwargs
        net = ArchSpecNet(channels, 3, **kwargs)
        assert net.stages[0].downsample[0].in_channels == channels


def test_cascade_needs_its_first_stage(refused_export: Refuse) -> None:
    """18: nnU-Net would look `3d_lowres` up in the same plans."""
    message = refused_export(tree(), configuration="3d_cascade_fullres")
    assert message.endswith("export both: 3d_lowres and 3d_cascade_fullres")


def test_next_stage_goes_with_its_configuration(preprocessed: Path) -> None:
    settings = exported(spec=tree(), dataset=901, configuration="3d_lowres")
    assert "next_stage" not in settings["3d_lowres"]


def test_dataset_mistakes_write_nothing(refused_export: Refuse, preprocessed: Path) -> None:
    """5, the export's half; the messages are in test_dataset.py."""
    assert "found: Dataset901_Blobs" in refused_export(tree(), dataset=8)
    assert "nnUNetv2_plan_and_preprocess" in refused_export(tree(), base_plans="nnUNetXPlans")
    assert "'3d_half'" in refused_export(tree(), configuration=["3d_fullres", "3d_half"])
    (preprocessed / "nnUNetPlans.json").unlink()
    assert "no such plans file (found: none)" in refused_export(tree())


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        ("write_text", KeyboardInterrupt()),
        ("replace", KeyboardInterrupt()),
        ("write_text", MemoryError()),
    ],
)
def test_interrupted_export_leaves_no_file(
    preprocessed: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
) -> None:
    before = sorted(preprocessed.rglob("*"))
    original = Path.write_text

    def stop(self: Path, text: Any, *arguments: Any, **options: Any) -> None:
        if moment == "write_text":
            original(self, text[: len(text) // 2])
        raise error

    monkeypatch.setattr(Path, moment, stop)
    with pytest.raises(type(error)):
        export_nnunet(tree(), 901)
    monkeypatch.undo()
    assert sorted(preprocessed.rglob("*")) == before


def test_interrupted_export_keeps_the_plans_before(
    preprocessed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export_nnunet(tree(), 901).path
    before = path.read_text()

    def stop(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        export_nnunet(tree(heads=2), 901, force=True)
    assert path.read_text() == before
    assert not list(preprocessed.glob(".*"))


def test_unwritable_folder(refused_export: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", fail)
    assert "cannot be written" in refused_export(tree())


def test_bundled_specs_by_name(preprocessed: Path) -> None:
    """A bundled name is enough, and the plans hold the whole network without the YAML."""
    kwargs = exported(spec="mamba-unet", dataset=901)["3d_fullres"]["architecture"]["arch_kwargs"]
    assert load(kwargs["spec"]).encoder == load("mamba-unet").encoder
    assert archspec.export_nnunet is export_nnunet
