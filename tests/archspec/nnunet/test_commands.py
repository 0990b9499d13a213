"""What to run after an export, for either recipe."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import archspec
from archspec.cli.export import folded
from archspec.nnunet.export import export_nnunet
from archspec.spec.yaml_file import dump

Cli = Callable[..., tuple[int, str, str]]

SPEC = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}] * 2},
    "decoder": {"kind": "sum"},
    "training": {"optimizer": "adamw", "lr": 3e-4, "schedule": "cosine"},
}
FOLDER = Path(archspec.__file__).parent / "nnunet" / "trainers"


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
    assert note == (
        "recipe: the spec's (adamw, lr 0.0003, cosine), by nnUNetTrainerArchSpec; training needs "
        "nnUNet_extTrainer for it, predicting does not"
    )


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
    cli: Cli, preprocessed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option of the command line reaches the plans; what to run next is printed last."""
    (tmp_path / "net.yaml").write_text(dump(SPEC), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    line = (
        "export net.yaml --dataset 901 --configuration 3d_fullres --configuration 3d_lowres "
        "--plans-name mine --patch 24,16,20 --batch 3 --fit-memory 24GB --stages-from-dataset"
    )
    code, out, err = cli(*line.split())
    assert (code, err) == (0, "")
    plans = json.loads((preprocessed / "mine.json").read_text())
    for name in ("3d_fullres", "3d_lowres"):
        assert plans["configurations"][name]["patch_size"] == [24, 16, 20]
        assert plans["configurations"][name]["batch_size"] == 3
    notes, _, last = out.partition("run next:\n")
    wrote, *notes_lines = notes.splitlines()
    assert wrote == f"wrote {preprocessed / 'mine.json'}"
    assert all(line.startswith(("note: ", "  ")) for line in notes_lines)
    assert all(len(line) <= 80 or len(line.split()) == 1 for line in notes_lines)  # a path alone
    joined = " ".join(notes.split())
    assert joined.count("--fit-memory: nothing changed") == 2
    assert joined.count("--stages-from-dataset: spacing") == 2
    environment, *commands = last.splitlines()
    assert environment.split()[0] == "export"
    assert all(len(line) <= 80 for line in commands)
    exported = export_nnunet(
        SPEC, 901, configuration=["3d_fullres", "3d_lowres"], plans_name="mine", force=True
    )
    typed = "\n".join(commands).replace("\\\n", "").splitlines()
    assert [" ".join(one.split()) for one in typed] == list(exported.commands)
    code, out, _ = cli(*line.split()[:4], "--plans-name", "mine", "--force", "--recipe", "nnunet")
    assert code == 0 and "-tr" not in out


def test_a_command_folds_before_its_options() -> None:
    long = f"nnUNetv2_train Dataset901_Blobs 3d_fullres 0 -p {'a' * 30} -tr 'one two'"
    assert folded(long).splitlines() == [
        "  nnUNetv2_train Dataset901_Blobs 3d_fullres 0 \\",
        f"    -p {'a' * 30} -tr 'one two'",
    ]
    assert shlex.split(folded(long).replace("\\\n", "")) == shlex.split(long)
