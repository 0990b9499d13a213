"""A small spec file, what refuses a command, and datasets: a fake preprocessed one, a real one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

import archspec
from blocks.base import SpecError

MY_MIXER = Path(__file__).parents[2] / "examples" / "my_mixer"
NAME = "Dataset901_Blobs"
SHAPE = (16, 24, 24)
SPACING = (1.5, 1.0, 1.0)  # mm, along (D, H, W)
LABELS = {"background": 0, "left": 1, "right": 2}

_TINY = """\
name: tiny
patch_size: [16, 16, 16]
encoder:
  stages:
    - {width: 4, mixer: {kind: conv}}
    - {width: 4, mixer: {kind: mamba, d_state: 4}}
decoder: {kind: sum}
"""

_CONFIGURATION: dict[str, Any] = {
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "spacing": [1.5, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "force_separate_z": None},
    "batch_dice": False,
}


def _architecture(ndim: int) -> dict[str, Any]:
    """Return nnU-Net's plain U-Net of two stages."""
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [32, 64],
            "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
            "kernel_sizes": [[3] * ndim] * 2,
            "strides": [[1] * ndim, [2] * ndim],
            "n_conv_per_stage": [2, 2],
            "n_conv_per_stage_decoder": [2],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _stock_plans() -> dict[str, Any]:
    """Return plans with the configurations, keys and links that nnU-Net 2.8.1 writes."""
    full = {**_CONFIGURATION, "data_identifier": "nnUNetPlans_3d_fullres", "patch_size": [16] * 3}
    flat = {**_CONFIGURATION, "data_identifier": "nnUNetPlans_2d", "patch_size": [16, 24]}
    full["architecture"], flat["architecture"] = _architecture(3), _architecture(2)
    low = {**full, "data_identifier": "nnUNetPlans_3d_lowres", "next_stage": "3d_cascade_fullres"}
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.5, 1.0, 1.0],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": {**flat, "spacing": [1.0, 1.0]},
            "3d_fullres": full,
            "3d_lowres": low,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
            "small_batch": {"inherits_from": "3d_fullres", "batch_size": 1},
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"max": 0.30000000000000004, "mean": 1e-07, "std": 1234.5678901234567}
        },
    }


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Return the file of a small valid spec, for tests to change."""
    path = tmp_path / "tiny.yaml"
    path.write_text(_TINY, encoding="utf-8")
    return path


@pytest.fixture
def refused(cli: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Return a function that checks that a command says in one line what is wrong; gives it."""

    def check(arguments: tuple[object, ...], *words: str) -> str:
        code, out, err = cli(*arguments)
        assert (code, out) == (2, ""), (code, out, err)
        assert err.startswith("archspec: ") and err.count("\n") == 1, err
        for word in words:
            assert word in err
        return err

    return check


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that looks preprocessed to anything that reads only JSON."""
    folder = tmp_path / "preprocessed" / NAME
    (folder / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    (folder / "nnUNetPlans_2d").mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(_stock_plans(), indent=4))
    dataset_json = {"channel_names": {"0": "MR"}, "labels": LABELS, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return folder


@pytest.fixture
def add_case(preprocessed: Path) -> Callable[[str, NDArray[np.int16]], None]:
    """Return a function that adds a case (D, H, W), whose image is its label plus one."""
    dataset = pytest.importorskip("nnunetv2.training.dataloading.nnunet_dataset")

    def add(name: str, label: NDArray[np.int16]) -> None:
        for part in ("nnUNetPlans_3d_fullres", "nnUNetPlans_2d"):
            path = str(preprocessed / part / name)
            shape = (1, *label.shape)
            sizes = {"chunks": shape, "blocks": shape}
            image = label[None].astype(np.float32) + 1
            dataset.nnUNetDatasetBlosc2.save_case(image, label[None], {}, path, **sizes)

    return add


@pytest.fixture
def rewrite() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Return a function that changes a JSON file in place."""

    def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
        tree = json.loads(path.read_text())
        edit(tree)
        path.write_text(json.dumps(tree))

    return change


def _write_raw(folder: Path, *, num_cases: int) -> None:
    """Write cases with a bright and a dark ball on noise, in nnU-Net's raw format."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    affine = np.diag([*reversed(SPACING), 1.0])
    affine[:3, 3] = (-10.0, 20.0, 5.0)
    for index in range(num_cases):
        rng = np.random.default_rng(index)
        image = rng.normal(size=SHAPE)
        label = np.zeros(SHAPE, dtype=np.uint8)
        for value, side in ((1, 6), (2, 17)):
            centre = np.array([8, 12, side]) + rng.integers(-1, 2, size=3)
            offset = np.indices(SHAPE) - centre[:, None, None, None]
            ball = (offset**2).sum(axis=0) <= 4**2
            label[ball] = value
            image[ball] += 6 if value == 1 else -6
        for path, volume in (
            (folder / "imagesTr" / f"case_{index}_0000.nii.gz", image.astype(np.float32)),
            (folder / "labelsTr" / f"case_{index}.nii.gz", label),
        ):
            # nnU-Net's reader gives (D, H, W) for a file whose axes are (W, H, D).
            nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine), path)
    description = {
        "channel_names": {"0": "MR"},
        "labels": LABELS,
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.fixture(scope="module")
def raw_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a raw dataset of six small cases; its name is its folder's."""
    folder = tmp_path_factory.mktemp("raw") / NAME
    _write_raw(folder, num_cases=6)
    return folder


@pytest.fixture
def refused_export(preprocessed: Path) -> Callable[..., str]:
    """Return a function that exports to dataset 901, and gives the one line that refuses it.

    Nothing below the folder of preprocessed datasets may have been written.
    """

    def refuse(*arguments: Any, **options: Any) -> str:
        def files() -> dict[Path, bytes]:
            return {p: p.read_bytes() for p in preprocessed.parent.rglob("*") if p.is_file()}

        before = files()
        with pytest.raises(SpecError) as caught:
            archspec.export_nnunet(*arguments, **{"dataset": 901, **options})
        message = str(caught.value)
        assert "\n" not in message
        assert files() == before
        return message

    return refuse


@pytest.fixture(scope="session")
def my_mixer(made_once: Callable[..., Path]) -> Path:
    """Return a folder with the wheel of examples/my_mixer, and a package without its module."""

    def install(folder: Path) -> None:
        source = folder / "source"  # setuptools writes beside what it builds
        shutil.copytree(MY_MIXER, source)
        line = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        line += ["--no-build-isolation", "--target", str(folder / "site"), str(source)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        info = folder / "site" / "archspec_broken-0.3.dist-info"
        info.mkdir()
        metadata = "Metadata-Version: 2.1\nName: archspec-broken\nVersion: 0.3\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text("[archspec.mixers]\ngone = gone:Gone\n")

    return made_once("my_mixer", install) / "site"
