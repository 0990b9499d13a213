"""Models to take away: stock nnU-Net installs each from a copied folder, and predicts with it."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

pytest.importorskip("nnunetv2")

MODELS = Path(__file__).parents[1] / "models"
ARCHIVES = sorted(MODELS.glob("*/*.zip"))
CARDS = sorted(MODELS.glob("*/README.md"))
_ONLY_TO_GO_ON = {"optimizer_state", "grad_scaler_state", "logging"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Write noise with the size of a case of Hippocampus; return its folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).normal(100, 30, (34, 52, 36)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), folder / "noise_0000.nii.gz")
    return folder


def _is_mask(file: Path) -> bool:
    mask = np.asarray(nibabel.load(file).dataobj)
    return mask.shape == (34, 52, 36) and set(np.unique(mask)) <= {0, 1, 2}


def test_there_are_models_and_they_are_small() -> None:
    assert len(ARCHIVES) == 2
    assert sum(file.stat().st_size for file in ARCHIVES) <= 5e6


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda file: file.stem)
def test_a_copied_model_predicts(archive: Path, image: Path, tmp_path: Path) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with zipfile.ZipFile(shutil.copy(archive, tmp_path)) as copied:
        copied.extractall(tmp_path / "results")
    (folder,) = (tmp_path / "results").glob("*/*")
    checkpoint = torch.load(folder / "fold_all" / "checkpoint_final.pth", weights_only=False)
    assert not _ONLY_TO_GO_ON & set(checkpoint)
    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), verbose=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), ("all",))
    predictor.predict_from_files_sequential(
        [[str(image / "noise_0000.nii.gz")]], [str(tmp_path / "noise")]
    )
    assert _is_mask(tmp_path / "noise.nii.gz")


@pytest.mark.long
@pytest.mark.parametrize("card", CARDS, ids=lambda file: file.parent.name)
def test_the_commands_of_the_card_predict(card: Path, image: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(card.parent, tmp_path / "copied")
    (first, *_) = re.findall(r"```bash\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)
    assert first.count("nnUNetv2_install_pretrained_model_from_zip") == len(ARCHIVES)
    told = first.replace("IMAGES", str(image)).replace("MASKS", str(tmp_path / "masks"))
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": scripts, "nnUNet_def_n_proc": "1"}
    command = ["bash", "-euo", "pipefail", "-c", told]
    done = subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert _is_mask(tmp_path / "masks" / "noise.nii.gz")
