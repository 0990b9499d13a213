"""Shrunk papers and the baseline through nnU-Net: train by their recipes, move the model, predict.

In one process: nnU-Net's trainer and predictor as its commands call them, but for the final
validation, which starts processes and is covered by test_chain.py.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import archspec.nnunet.trainers
import archspec.spec.bundled
from archspec.nnunet.dataset import dataset_id
from archspec.nnunet.export import export_nnunet
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.registry import slots

pytest.importorskip("nnunetv2")
pytestmark = pytest.mark.long

NAME = "nnUNetTrainerArchSpec"
PLAIN = {"background": 0, "left": 1, "right": 2}
REGIONS = {"background": 0, "whole": [1, 2], "right": 2}


def widths(*values: int) -> list[str]:
    return [f"encoder.stages.{i}.width={value}" for i, value in enumerate(values)]


SHRUNK = {
    # Grids of one voxel have nothing to normalise, so the last stage keeps its grid.
    "unet": [
        *widths(4, 4, 8, 8, 8, 8),
        *("encoder.stages.5.downsample.stride=1", "deep_supervision.heads=3"),
    ],
    "segmamba": [*widths(4, 4, 8, 8), "decoder.bottleneck_width=8", "encoder.defaults.depth=1"],
    "segresmamba": [
        *(*widths(8, 8, 16, 16), "encoder.stages.3.downsample={kernel_size: 3, stride: 1}"),
    ],
    "segmaformer": [
        *widths(6, 6, 12, 12),
        *("encoder.stages.3.downsample.stride=1", "decoder.width=16"),
    ],
}


def kinds(slot: str) -> list[str]:
    """Return the kinds of a slot of components."""
    return list(slots()[slot].kinds())


@dataclass(frozen=True)
class Data:
    """A preprocessed dataset, and the folders it is in."""

    root: Path
    name: str

    @property
    def number(self) -> int:
        number = dataset_id(self.name)
        assert number is not None
        return number

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / self.name

    @property
    def image(self) -> Path:
        return self.root / "raw" / self.name / "imagesTr" / "case_0_0000.nii.gz"

    def variables(self) -> dict[str, str]:
        folders = {f"nnUNet_{part}": str(self.root / part) for part in ("raw", "preprocessed")}
        return folders | {
            "nnUNet_results": str(self.root / "results"),
            "nnUNet_extTrainer": str(Path(archspec.nnunet.trainers.__file__).parent),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "0",
        }


def run(words: list[str], variables: dict[str, str], *, cwd: Path | None = None) -> str:
    """Run with only these nnU-Net variables set; return what it printed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    env = kept | threads | variables
    done = subprocess.run(
        words, env=env, cwd=cwd, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def make_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Data]:
    """Return a function that writes a bright and a dark ball per case, and preprocesses them."""
    root = tmp_path_factory.mktemp("data")

    def make(
        number: int,
        labels: dict[str, Any],
        *,
        shape: tuple[int, ...] = (32, 32, 32),
        spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
        configurations: tuple[str, ...] = ("3d_fullres",),
    ) -> Data:
        data = Data(root, f"Dataset{number}_Balls")
        raw = root / "raw" / data.name
        for part in ("imagesTr", "labelsTr"):
            (raw / part).mkdir(parents=True)
        for index in range(5):
            rng = np.random.default_rng(index)
            image, label = rng.normal(size=shape), np.zeros(shape, dtype=np.uint8)
            for value, side in ((1, -8), (2, 8)):
                centre = np.array(shape) // 2 + rng.integers(-2, 3, size=3)
                centre[2] += side
                offset = (np.indices(shape) - centre[:, None, None, None]).astype(float)
                offset *= np.array(spacing)[:, None, None, None]
                ball = (offset**2).sum(axis=0) <= 6**2
                label[ball] = value
                image[ball] += 6 if value == 1 else -6
            for path, volume in (
                (raw / "imagesTr" / f"case_{index}_0000.nii.gz", image.astype(np.float32)),
                (raw / "labelsTr" / f"case_{index}.nii.gz", label),
            ):
                affine = np.diag([*reversed(spacing), 1.0])
                nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine), path)
        description = {
            "channel_names": {"0": "MR"},
            "labels": labels,
            "regions_class_order": [1, 2],
            "numTraining": 5,
            "file_ending": ".nii.gz",
        }
        (raw / "dataset.json").write_text(json.dumps(description))
        for folder in ("preprocessed", "results"):
            (root / folder).mkdir(exist_ok=True)
        # nnU-Net's planner crashes with 0 workers.
        command = str(Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess")
        run(
            [command, "-d", str(number), "-c", *configurations, "-np", "1", "-npfp", "1"],
            data.variables() | {"nnUNet_n_proc_DA": "1"},
        )
        return data

    return make


@pytest.fixture(scope="module")
def plain(make_data: Callable[..., Data]) -> Data:
    return make_data(911, PLAIN, configurations=("3d_fullres", "2d"))


def train(
    data: Data,
    name: str,
    patch: pytest.MonkeyPatch,
    *,
    configuration: str = "3d_fullres",
    fold: int | str = 0,
    overrides: tuple[str, ...] = (),
    **export: Any,
) -> Any:
    """Export a shrunk network and train it for an epoch of four iterations; return the trainer."""
    for key, value in data.variables().items():
        patch.setenv(key, value)
    size = ["patch_size=[32, 32]"] if configuration == "2d" else []
    length = ["training.epochs=1", "training.iterations=4"]
    spec = load(name, overrides=[*SHRUNK[name], *size, *length, *overrides])
    before = {path: path.stat().st_mtime_ns for path in data.preprocessed.glob("nnUNetPlans_*/*")}
    trainer = train_spec(spec, data, f"{name}_{configuration}_{fold}", configuration, fold, export)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    losses = trainer.logger.get_value("train_losses", step=None)
    assert len(losses) == 1
    return trainer


def train_spec(
    spec: ArchSpec,
    data: Data,
    plans: str,
    configuration: str,
    fold: int | str = 0,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Export under a plans name of its own and train; return the trainer."""
    from nnunetv2.run.run_training import get_trainer_from_args

    export_nnunet(spec, data.number, configuration=configuration, plans_name=plans, **options)
    torch.manual_seed(0)
    trainer = get_trainer_from_args(
        data.name, configuration, fold, NAME, plans, device=torch.device("cpu")
    )
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", step=None)).all()
    return trainer


def predict(
    data: Data, model: Path, fold: int | str, patch: pytest.MonkeyPatch, out: Path
) -> set[int]:
    """Predict by the copied model alone, no YAML and no nnU-Net variable; return its labels."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    for key in [key for key in os.environ if key.startswith("nnUNet_")]:
        patch.delenv(key)
    patch.setattr(archspec.spec.bundled, "_folder", lambda _: pytest.fail("a YAML file was read"))
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(fold,))
    predictor.predict_from_files_sequential([[str(data.image)]], [str(out / "mask")])
    mask, image = nibabel.load(out / "mask.nii.gz"), nibabel.load(data.image)
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    return {int(value) for value in np.unique(np.asarray(mask.dataobj))}


def train_and_predict(data: Data, name: str, tmp_path: Path, **how: Any) -> set[int]:
    with pytest.MonkeyPatch.context() as patch:
        trainer = train(data, name, patch, **how)
        model = shutil.copytree(trainer.output_folder_base, tmp_path / "model")
        checkpoint = next(model.glob("fold_*/checkpoint_final.pth"))
        assert torch.load(checkpoint, weights_only=False)["trainer_name"] == "nnUNetTrainer"
        return predict(data, model, how.get("fold", 0), patch, tmp_path)


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("name", SHRUNK)
def test_networks(name: str, configuration: str, plain: Data, tmp_path: Path) -> None:
    labels = train_and_predict(plain, name, tmp_path, configuration=configuration)
    assert labels <= {0, 1, 2}


@pytest.mark.parametrize("fold", ["all", 7])
def test_folds(fold: int | str, plain: Data, tmp_path: Path) -> None:
    """All cases at once, and a fold past the splits, which nnU-Net draws at random."""
    assert train_and_predict(plain, "unet", tmp_path, fold=fold) <= {0, 1, 2}


def test_regions(make_data: Callable[..., Data], tmp_path: Path) -> None:
    data = make_data(912, REGIONS)
    assert train_and_predict(data, "segmaformer", tmp_path) <= {0, 1, 2}


def test_thick_slices(make_data: Callable[..., Data], tmp_path: Path) -> None:
    """At 5 x 1 x 1 mm the stages are fitted to the spacing: depth is halved later and less."""
    data = make_data(913, PLAIN, shape=(12, 48, 48), spacing=(5.0, 1.0, 1.0))
    labels = train_and_predict(
        data, "unet", tmp_path, stages_from_dataset=True, overrides=("deep_supervision.heads=2",)
    )
    assert labels <= {0, 1, 2}
    plans = json.loads((tmp_path / "model" / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    strides = np.array(architecture["arch_kwargs"]["strides"])
    assert strides[:, 0].prod() < strides[:, 1].prod()


@pytest.fixture(scope="module")
def planned(make_data: Callable[..., Data]) -> Callable[[str], Data]:
    """Return a function that makes data for which nnU-Net plans patches of usual awkward sizes."""
    shapes = {
        "volumes": ("3d_fullres", (35, 50, 35), (1.0, 1.0, 1.0)),
        "thick": ("3d_fullres", (8, 200, 160), (8.0, 0.8, 0.8)),
        "flat": ("2d", (1, 300, 340), (1.0, 1.0, 1.0)),
    }

    @cache
    def make(kind: str) -> Data:
        configuration, shape, spacing = shapes[kind]
        number = 914 + list(shapes).index(kind)
        return make_data(
            number, PLAIN, shape=shape, spacing=spacing, configurations=(configuration,)
        )

    return make


@pytest.mark.parametrize("kind", ["volumes", "thick", "flat"])
@pytest.mark.parametrize(
    ("mixing", "decoding"),
    [
        *((kind, "sum") for kind in kinds("mixer")),
        *(("conv", kind) for kind in kinds("decoder") if kind != "sum"),
    ],
)
def test_kinds_on_planned_patches(
    mixing: str, decoding: str, kind: str, planned: Callable[[str], Data], tmp_path: Path
) -> None:
    """Two epochs of two steps at nnU-Net's own patch, which in 3-D strides of 16 do not divide."""
    data, configuration = planned(kind), "2d" if kind == "flat" else "3d_fullres"
    plans = json.loads((data.preprocessed / "nnUNetPlans.json").read_text())
    patch_size = plans["configurations"][configuration]["patch_size"]
    stage = {"width": 8, "mixer": {"kind": mixing}, "downsample": {"stride": 2}}
    spec = load(
        {
            "name": "host",
            "patch_size": patch_size,
            "encoder": {
                "stages": [{**stage, "downsample": {"kernel_size": 7, "stride": 4}}, stage, stage]
            },
            "decoder": {"kind": decoding, **({"fue": True} if decoding == "concat" else {})},
            "deep_supervision": {"heads": 1 if decoding == "mlp" else 2},
            "training": {"epochs": 2, "iterations": 2},
        }
    )
    assert kind == "flat" or any(size % 16 for size in patch_size)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in data.variables().items():
            patch.setenv(key, value)
        trainer = train_spec(spec, data, f"{mixing}_{decoding}", configuration)
        model = Path(trainer.output_folder_base)
        assert predict(data, model, 0, patch, tmp_path) <= {0, 1, 2}


def test_zip_round_trip(plain: Data, tmp_path: Path) -> None:
    """A model that nnU-Net packed predicts where it unpacked it, without our trainer's variable."""
    from nnunetv2.model_sharing.model_export import export_pretrained_model
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    with pytest.MonkeyPatch.context() as patch:
        trainer = train(plain, "segmamba", patch, fold=1)
        name, file = trainer.plans_manager.plans_name, str(tmp_path / "model.zip")
        summary = Path(trainer.output_folder) / "validation" / "summary.json"
        summary.parent.mkdir()
        summary.write_text("{}")  # of the final validation, which is left out here
        export_pretrained_model(plain.name, file, ("3d_fullres",), NAME, name, (1,))
        patch.setenv("nnUNet_results", str(tmp_path / "installed"))
        install_model_from_zip_file(file)
        model = tmp_path / "installed" / plain.name / Path(trainer.output_folder_base).name
        assert predict(plain, model, 1, patch, tmp_path) <= {0, 1, 2}


def test_a_mixer_of_a_package_trains_and_predicts(
    plain: Data, my_mixer: Path, tmp_path: Path
) -> None:
    """By the commands that export prints, in processes that know the package by its entry point."""
    scripts, number = Path(sys.executable).parent, str(plain.number)
    variables = plain.variables() | {"PYTHONPATH": str(my_mixer)}
    net = Path(__file__).parents[3] / "examples" / "my_mixer" / "net.yaml"
    short = ("-s", "training.epochs=1", "-s", "training.iterations=2")
    run([str(scripts / "archspec"), "export", str(net), "--dataset", number, *short], variables)
    model = ["-tr", NAME, "-p", "archspec_strip-unet", "-device", "cpu"]
    train_it = [str(scripts / "nnUNetv2_train"), number, "3d_fullres", "0", *model]
    run(train_it, variables)
    images, out = plain.image.parent, tmp_path / "masks"
    folders = ["-i", str(images), "-o", str(out), "-d", number, "-c", "3d_fullres", "-f", "0"]
    one = ["--disable_tta", "-npp", "1", "-nps", "1"]
    run([str(scripts / "nnUNetv2_predict"), *folders, *model, *one], variables)
    assert len(list(out.glob("case_*.nii.gz"))) == 5
    without = {key: value for key, value in variables.items() if key != "PYTHONPATH"}
    with pytest.raises(AssertionError, match=r"archspec-my-mixer 0\.1\.0, which is not installed"):
        run(train_it, without)


UNGUARDED = """
import sys
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from archspec.nnunet.dataset import dataset_id
from archspec.nnunet.export import export_nnunet
with open("starts.txt", "a") as file:
    file.write("x")
training = {"epochs": 1, "iterations": 2}
stage = {"width": 4, "mixer": {"kind": "mamba"}, "downsample": {"kernel_size": 7, "stride": 4}}
spec = {"name": "unguarded", "patch_size": (32, 32, 32), "encoder": {"stages": [stage]}}
spec |= {"decoder": {"kind": "sum", "head": "interpolate"}, "training": training}
plans = export_nnunet(spec, sys.argv[1]).plans_name
trainer = get_trainer_from_args(
    sys.argv[1], "3d_fullres", 0, "nnUNetTrainerArchSpec", plans, device=torch.device("cpu")
)
trainer.run_training()
print("checkpoint in", trainer.output_folder)
"""


def test_a_script_without_a_guard(plain: Data, tmp_path: Path) -> None:
    """Export and training start no process that would run the script again."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    out = run([sys.executable, "script.py", plain.name], plain.variables(), cwd=tmp_path)
    assert (tmp_path / "starts.txt").read_text() == "x"
    assert (Path(out.split("checkpoint in ")[1].strip()) / "checkpoint_final.pth").is_file()
