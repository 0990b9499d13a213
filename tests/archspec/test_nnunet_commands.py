"""What to run after an export, for either recipe."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import archspec
from archspec.cli.main import main
from archspec.nnunet_export import export_nnunet
from archspec.yaml_source import dump

SPEC = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}] * 2},
    "decoder": {"kind": "sum"},
    "training": {"optimizer": "adamw", "lr": 3e-4, "schedule": "cosine"},
}
FOLDER = Path(archspec.__file__).parent / "nnunet_trainers"


@pytest.fixture(autouse=True)
def _no_other_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)


def test_recipe_of_the_spec(preprocessed: Path) -> None:
    export = export_nnunet(SPEC, 901)
    assert export.environment == (f"export nnUNet_extTrainer={shlex.quote(str(FOLDER))}",)
    assert export.commands == (
        "nnUNetv2_train Dataset901_Blobs 3d_fullres 0 -p archspec_tiny -tr nnUNetTrainerArchSpec",
        "nnUNetv2_predict -d Dataset901_Blobs -c 3d_fullres -f 0 -p archspec_tiny "
        "-tr nnUNetTrainerArchSpec -i INPUT_FOLDER -o OUTPUT_FOLDER",
    )
    (note,) = (note for note in export.notes if note.startswith("recipe: "))
    assert note.startswith("recipe: the spec's (adamw, lr 0.0003, cosine)")


def test_recipe_of_nnunet(preprocessed: Path) -> None:
    export = export_nnunet(SPEC, 901, recipe="nnunet")
    assert export.environment == ()
    assert export.commands == (
        "nnUNetv2_train Dataset901_Blobs 3d_fullres 0 -p archspec_tiny",
        "nnUNetv2_predict -d Dataset901_Blobs -c 3d_fullres -f 0 -p archspec_tiny "
        "-i INPUT_FOLDER -o OUTPUT_FOLDER",
    )
    assert any(note.startswith("recipe: nnU-Net's own") for note in export.notes)


def test_recipe_does_not_change_the_plans(preprocessed: Path) -> None:
    ours = export_nnunet(SPEC, 901).path.read_text()
    assert export_nnunet(SPEC, 901, recipe="nnunet", force=True).path.read_text() == ours


def test_other_external_trainers_stay(preprocessed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", f"/mine:{FOLDER}:/my others")
    (line,) = export_nnunet(SPEC, 901).environment
    assert shlex.split(line)[1] == f"nnUNet_extTrainer={FOLDER}:/mine:/my others"


def test_unknown_recipe(refused_export: Callable[..., str]) -> None:
    assert refused_export(SPEC, recipe="sgd") == "recipe: must be spec or nnunet, but is 'sgd'"


def test_the_verb(
    preprocessed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every option of the command line reaches the plans; lines are printed in running order."""
    (tmp_path / "net.yaml").write_text(dump(SPEC), encoding="utf-8")
    line = (
        "export net.yaml --dataset 901 --configuration 3d_fullres --configuration 3d_lowres "
        "--plans-name mine --patch 24,16,20 --batch 3 --fit-memory 24GB --stages-from-dataset"
    )
    again = "export net.yaml --dataset 901 --plans-name mine --force --recipe nnunet"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["archspec", *line.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    plans = json.loads((preprocessed / "mine.json").read_text())
    for name in ("3d_fullres", "3d_lowres"):
        assert plans["configurations"][name]["patch_size"] == [24, 16, 20]
        assert plans["configurations"][name]["batch_size"] == 3
    printed = capsys.readouterr().out.splitlines()
    start = printed.index(f"wrote {preprocessed / 'mine.json'}")
    assert all(note.startswith("note: ") for note in printed[:start])
    assert sum("--fit-memory: nothing changed" in note for note in printed) == 2
    assert sum("--stages-from-dataset: spacing" in note for note in printed) == 2
    words = [line.split()[:4] for line in printed[start + 1 :]]
    assert words[0][0] == "export"
    assert [word[0] for word in words[1:]] == ["nnUNetv2_train", "nnUNetv2_predict"] * 2
    monkeypatch.setattr(sys, "argv", ["archspec", *again.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "-tr" not in capsys.readouterr().out
