"""The stock chain: plan, export, train, move the model, predict; all with nnU-Net's own commands.

One tiny training on the CPU, of fewer iterations than the 250 + 50 that nnU-Net fixes; and one of a
few steps by the spec's recipe, in this process.
"""

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from archspec.network.build import build
from archspec.nnunet.export import Export, export_nnunet
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.load import load
from blocks.base import SpecError

pytest.importorskip("nnunetv2")

pytestmark = pytest.mark.smoke

TRAINER = "nnUNetTrainer_1epoch"
SHORTER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
make = nnUNetTrainer.__init__
def shorter(self, *args, **kwargs):
    make(self, *args, **kwargs)
    self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 80, 4
nnUNetTrainer.__init__ = shorter
"""
RECIPE = {"lr": 2e-3, "betas": [0.9, 0.98], "epochs": 2, "iterations": 4}
# On the CPU nnU-Net asks torch for a thread per core, whatever OMP_NUM_THREADS says. On shared
# cores they would wait for each other at full speed: 0.8 s a step instead of 0.1 s.
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SPEC: dict[str, Any] = {
    "name": "chain",
    "patch_size": [16, 16, 16],
    "encoder": {
        "defaults": {"block": {"kind": "residual", "norm": "layer"}},
        "stages": [
            {"width": 4, "downsample": {"kernel_size": 3, "stride": 1}, "mixer": {"kind": "conv"}},
            {"width": 4, "downsample": {"kernel_size": 3, "stride": 2}, "mixer": {"kind": "conv"}},
            {
                "width": 8,
                "downsample": {"kernel_size": 3, "stride": 2},
                "mixer": {"kind": "mamba", "d_state": 4, "directions": 2},
                "ffn": {"kind": "mlp", "ratio": 2},
            },
            {
                "width": 8,
                "downsample": {"kernel_size": 3, "stride": 2},
                "mixer": {"kind": "mamba", "d_state": 4},
            },
        ],
    },
    "decoder": {"kind": "sum", "norm": "layer", "head": "conv"},
    "deep_supervision": {"heads": 3},
}


@dataclass(frozen=True)
class Chain:
    """What the commands left behind."""

    raw: Path
    export: Export
    data_before: dict[str, int]
    data_after: dict[str, int]
    model: Path
    by_recipe: Path
    masks: Path


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.iterdir())}


def train_by_recipe(patch: pytest.MonkeyPatch) -> Path:
    """Train as export says, with its environment line, but for nnU-Net's final validation."""
    from nnunetv2.run.run_training import get_trainer_from_args

    exported = export_nnunet(SPEC | {"training": RECIPE}, 901, plans_name="chain_by_recipe")
    line, command = exported.environment[0], shlex.split(exported.commands[0])
    variable, folder = line.removeprefix("export ").split("=")
    patch.setenv(variable, *shlex.split(folder))
    trainer = get_trainer_from_args(
        *(command[1], command[2], int(command[3]), command[command.index("-tr") + 1]),
        plans_identifier=exported.plans_name,
        device=torch.device("cpu"),
    )
    trainer.run_training()
    return Path(trainer.output_folder_base)


@pytest.fixture(scope="module")
def chain(
    raw_dataset: Path,
    tmp_path_factory: pytest.TempPathFactory,
    nnunet_command: Callable[..., None],
) -> Chain:
    root = tmp_path_factory.mktemp("chain")
    variables = {
        "nnUNet_raw": str(raw_dataset.parent),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
        "nnUNet_def_n_proc": "1",
        **THREADS,
    }
    for folder in ("preprocessed", "results"):
        (root / folder).mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    # nnU-Net's planner crashes with 0 workers, while its training is fastest without any.
    nnunet_command(
        "nnUNetv2_plan_and_preprocess",
        *("-d", "901", "-c", "3d_fullres", "-np", "1", "-npfp", "1", "--verify_dataset_integrity"),
        env=kept | variables | {"nnUNet_n_proc_DA": "1"},
    )
    data = root / "preprocessed" / raw_dataset.name / "nnUNetPlans_3d_fullres"
    before = modified(data)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (variables | {"nnUNet_n_proc_DA": "0"}).items():
            patch.setenv(name, value)
        export = export_nnunet(SPEC, 901, recipe="nnunet")
        recipe_model = train_by_recipe(patch)
    nnunet_command(
        *export.commands[0].split(),
        *("-tr", TRAINER, "-device", "cpu"),
        env=kept | variables | {"nnUNet_n_proc_DA": "0"},
        before=SHORTER,
    )
    after = modified(data)
    trained = root / "results" / raw_dataset.name / f"{TRAINER}__{export.plans_name}__3d_fullres"
    model, images, masks = root / "elsewhere" / "model", root / "images", root / "masks"
    shutil.copytree(trained, model)
    by_recipe = shutil.copytree(recipe_model, root / "elsewhere" / "by_recipe")
    for folder in ("results", "preprocessed"):
        (root / folder).rename(root / f"hidden_{folder}")
    images.mkdir()
    shutil.copy(raw_dataset / "imagesTr" / "case_0_0000.nii.gz", images)
    nnunet_command(
        *("nnUNetv2_predict_from_modelfolder", "-i", str(images), "-o", str(masks)),
        *("-m", str(model), "-f", "0", "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"),
        env=kept | THREADS,
    )
    return Chain(raw_dataset, export, before, after, model, by_recipe, masks)


def test_training_learns(chain: Chain) -> None:
    """After 80 steps the bright and the dark ball are told apart, so the loss was never NaN."""
    summary = json.loads((chain.model / "fold_0" / "validation" / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] > 0.5


def test_training_leaves_preprocessed_data_alone(chain: Chain) -> None:
    assert chain.data_before == {
        name: time for name, time in chain.data_after.items() if name in chain.data_before
    }


def test_mask_fits_its_image(chain: Chain) -> None:
    mask = nibabel.load(chain.masks / "case_0.nii.gz")
    image = nibabel.load(chain.raw / "imagesTr" / "case_0_0000.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    values = np.asarray(mask.dataobj)
    assert set(np.unique(values)) == {0, 1, 2}
    truth = np.asarray(nibabel.load(chain.raw / "labelsTr" / "case_0.nii.gz").dataobj)
    assert (values == truth).mean() > 0.9


def test_model_holds_the_spec(chain: Chain) -> None:
    plans = json.loads((chain.model / "plans.json").read_text())
    arch_kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert load(arch_kwargs["spec"]) == load(SPEC)


def test_the_recipe_is_in_the_log(chain: Chain) -> None:
    log = next((chain.by_recipe / "fold_0").glob("training_log_*.txt")).read_text()
    assert "archspec recipe: adamw, lr 0.002, weight decay 0.01, betas (0.9, 0.98)" in log
    assert "2 epochs of 4 iterations" in log
    assert log.count("Current learning rate") == 2


@pytest.mark.parametrize("trained", ["stock", "recipe"])
def test_rebuilt_network_gives_the_trained_logits(trained: str, chain: Chain) -> None:
    """Whichever trainer it was, nnU-Net's own rebuilds the network: no variable names ours."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = chain.model if trained == "stock" else chain.by_recipe
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,))
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    patch = tuple(predictor.configuration_manager.patch_size)
    net = build(SPEC, in_channels=1, num_classes=3, patch_size=patch)
    net.load_state_dict(checkpoint["network_weights"])
    x = torch.randn(2, 1, *patch, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rebuilt = predictor.network.eval()(x)
        expected = net.eval()(x)
    assert type(predictor.network) is ArchSpecNet
    assert rebuilt.shape == (2, 3, *patch)
    torch.testing.assert_close(rebuilt, expected)


def test_results_block_another_export(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second spec under a trained name would break `--c`, so it needs `force`."""
    root = chain.masks.parent
    monkeypatch.setenv("nnUNet_preprocessed", str(root / "hidden_preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(root / "hidden_results"))
    with pytest.raises(SpecError, match=f"{TRAINER}__{chain.export.plans_name}__3d_fullres"):
        export_nnunet(SPEC, 901)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_nnunet_loss_is_finite(heads: int, raw_dataset: Path) -> None:
    """nnU-Net's own scales, weights and targets agree with the outputs, for one head too."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
        DownsampleSegForDSTransform,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    spec = load(SPEC, overrides=[f"deep_supervision.heads={heads}"])
    strides = [[1, 1, 1], [1, 1, 2], [1, 1, 2]]
    if heads > 1:
        strides = [[1, 1, 1], *[[2, 2, 2]] * heads][: heads + 1]
    architecture = {
        "network_class_name": "archspec.nnunet.ArchSpecNet",
        "arch_kwargs": {
            "spec": spec.tree(),
            "patch_size": [16, 24, 24],
            "strides": strides,
            "schema_version": 1,
        },
        "_kw_requires_import": [],
    }
    net = get_network_from_plans(*architecture.values(), 1, 3, deep_supervision=True)
    trainer = object.__new__(nnUNetTrainer)
    trainer.configuration_manager = ConfigurationManager(
        {"architecture": architecture, "batch_dice": False}
    )
    trainer.label_manager = LabelManager({"background": 0, "left": 1, "right": 2}, None)
    trainer.enable_deep_supervision, trainer.is_ddp = True, False
    trainer._do_i_compile = lambda: False
    scales = trainer._get_deep_supervision_scales()
    outputs = net(torch.randn(2, 1, 16, 24, 24))
    label = torch.randint(0, 3, (1, 16, 24, 24))
    targets = [
        torch.stack([t, t])
        for t in DownsampleSegForDSTransform(scales)(segmentation=label)["segmentation"]
    ]
    assert [o.shape[2:] for o in outputs] == [t.shape[2:] for t in targets]
    loss = trainer._build_loss()(outputs, targets)
    assert torch.isfinite(loss)
