"""nnU-Net's trainer under a spec's recipe: its own loop, checkpoints and resuming, on fake data."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import archspec.nnunet.trainers
from archspec.nnunet.export import export_nnunet
from archspec.spec.training import TrainingSpec
from archspec.training.recipe import rate
from blocks.base import ComponentSpec, SpecError

pytest.importorskip("nnunetv2")

NAME = "nnUNetTrainerArchSpec"
FOLDER = Path(archspec.nnunet.trainers.__file__).parent
FORMER = FOLDER.parents[1] / "nnunet_trainers"
"""Where the trainer was before; a user's nnUNet_extTrainer may name it."""
SPEC: dict[str, Any] = {
    "name": "trained",
    "patch_size": (16, 16, 16),
    "encoder": {
        "defaults": {"width": 4, "downsample": {"kernel_size": 3, "stride": 2}},
        "stages": [
            {"mixer": {"kind": "conv"}},
            {"mixer": {"kind": "mamba", "d_state": 2}},
            {"mixer": {"kind": "attention"}},
        ],
    },
    "decoder": {"kind": "sum", "head": "interpolate"},
    "deep_supervision": {"heads": 2},
}
NNUNET = {"optimizer": "sgd", "lr": 1e-2, "weight_decay": 3e-5, "warmup": 0.0}
SHORT = {"epochs": 3, "iterations": 3}

MakeTrainer = Callable[..., Any]


class Batches:
    """Random images and nnU-Net's targets for them, the same in every run of an epoch."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.count = trainer, 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> dict[str, Any]:
        trainer, self.count = self.trainer, self.count + 1
        torch.manual_seed(1000 * trainer.current_epoch + self.count % trainer.batches_per_epoch)
        labels = trainer.label_manager
        transform = trainer.get_validation_transforms(
            trainer._get_deep_supervision_scales(),
            foreground_labels=labels.foreground_labels,
            regions=labels.foreground_regions if labels.has_regions else None,
            ignore_label=labels.ignore_label,
        )
        patch = trainer.configuration_manager.patch_size
        case = torch.randint(len(labels.all_labels), (1, *patch))
        target = transform(image=case.float(), segmentation=case)["segmentation"]
        image = case[None].float() + 0.1 * torch.randn(2, 1, *patch)
        return {"data": image, "target": [torch.stack([part, part]) for part in target]}


@pytest.fixture
def make_trainer(
    preprocessed: Path, monkeypatch: pytest.MonkeyPatch, hollow_case: Callable[[Path], None]
) -> MakeTrainer:
    """Return a function that exports the spec and gives nnU-Net's trainer of it, on fake data.

    The trainer is the class that nnU-Net finds, unless `stock` is asked for.
    """
    from nnunetv2.training.logging.nnunet_logger import MetaLogger
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    hollow_case(preprocessed / "nnUNetPlans_3d_fullres" / "case_0")
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    found = recursive_find_python_class(str(FOLDER), NAME, None, str(FOLDER))
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda *_: None)  # seconds per epoch

    def make(
        training: dict[str, Any],
        *,
        stock: bool = False,
        labels: dict[str, Any] | None = None,
        device: str = "cpu",
        **fields: Any,
    ) -> Any:
        description = json.loads((preprocessed / "dataset.json").read_text())
        if labels is not None:
            description |= {"labels": labels, "regions_class_order": [1, 2]}
            (preprocessed / "dataset.json").write_text(json.dumps(description))
        spec = SPEC | fields | {"training": training}
        path = export_nnunet(spec, 901, force=True).path
        plans = json.loads(path.read_text()) | {"continue_training": False}
        torch.manual_seed(0)
        trainer = (nnUNetTrainer if stock else found)(
            plans, "3d_fullres", 0, description, torch.device(device)
        )
        trainer.get_dataloaders = lambda: (Batches(trainer), Batches(trainer))
        trainer.plot_network_architecture = lambda: None
        trainer.save_every = 1
        trainer.batches_per_epoch = trainer.num_iterations_per_epoch
        return trainer

    return make


def weights(trainer: Any) -> list[Tensor]:
    return [p.detach().clone() for p in trainer.network.parameters()]


def checkpoint(trainer: Any, name: str) -> Any:
    return torch.load(Path(trainer.output_folder) / name, weights_only=False)


def check_finite(trainer: Any) -> None:
    assert torch.tensor(trainer.logger.get_value("train_losses", step=None)).isfinite().all()
    assert all(p.isfinite().all() for p in trainer.network.parameters())


def test_nnunet_needs_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its variable nnU-Net names it; with it, it finds the trainer, now and as before."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    with pytest.raises(RuntimeError, match="nnUNet_extTrainer"):
        find(NAME)
    for folder in (FOLDER, FORMER):
        monkeypatch.setenv("nnUNet_extTrainer", str(folder))
        assert find(NAME).__name__ == NAME


def test_the_folder_holds_the_trainer_only() -> None:
    assert sorted(p.name for p in FOLDER.glob("*.py")) == ["__init__.py", f"{NAME}.py"]


def test_plans_without_a_spec(preprocessed: Path, make_trainer: MakeTrainer) -> None:
    trainer = type(make_trainer(SHORT))
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    before = sorted(preprocessed.parents[1].rglob("*"))
    with pytest.raises(SpecError, match="'3d_fullres' of 'nnUNetPlans' holds no spec") as error:
        trainer(plans | {"continue_training": False}, "3d_fullres", 0, {}, torch.device("cpu"))
    assert "\n" not in str(error.value)
    assert sorted(preprocessed.parents[1].rglob("*")) == before


def test_defaults_are_those_of_nnunet(make_trainer: MakeTrainer) -> None:
    ours, stock = make_trainer(NNUNET), make_trainer(NNUNET, stock=True)
    for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
        assert vars(ours)[name] == vars(stock)[name], name


def test_training_follows_the_plans(make_trainer: MakeTrainer) -> None:
    """Optimizer, rates, length and log are the recipe's; the loop is nnU-Net's."""
    recipe = {"lr": 3e-4, "betas": (0.9, 0.98), "schedule": "cosine", "warmup": 0.25}
    trainer = make_trainer(recipe | SHORT)
    rates, step = [], trainer.train_step
    trainer.train_step = lambda batch: (
        rates.append(trainer.optimizer.param_groups[0]["lr"]) or step(batch)
    )
    trainer.run_training()
    spec = TrainingSpec.model_validate(recipe)
    assert rates == pytest.approx([rate(spec, n, 9) for n in range(9)])
    group = trainer.optimizer.param_groups[0]
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.98), 0.01)
    assert trainer.num_val_iterations_per_epoch == 1
    log = Path(trainer.log_file).read_text()
    for text in ("adamw, lr 0.0003", "betas (0.9, 0.98)", "cosine", "3 epochs of 3 iterations"):
        assert text in log, text
    assert log.count("Current learning rate") == 3
    assert checkpoint(trainer, "checkpoint_final.pth")["current_epoch"] == 3


def test_steps_are_those_of_nnunet(make_trainer: MakeTrainer) -> None:
    """Under nnU-Net's recipe, three steps give the stock trainer's weights, bit for bit."""
    after = []
    for stock in (True, False):
        trainer = make_trainer(NNUNET | {"schedule": "constant"}, stock=stock)
        trainer.initialize()
        trainer.set_deep_supervision_enabled(True)
        batches = Batches(trainer)
        for _ in range(3):
            trainer.train_step(next(batches))
        after.append(weights(trainer))
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))


def test_checkpoints_name_the_stock_trainer(make_trainer: MakeTrainer) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer = make_trainer(SHORT)
    trainer.run_training()
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        assert checkpoint(trainer, name)["trainer_name"] == "nnUNetTrainer"
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    assert "nnUNet_extTrainer" not in os.environ
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, use_folds=(0,))
    trainer.set_deep_supervision_enabled(False)
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(predictor.network.eval()(x), trainer.network.eval()(x))


def test_an_interrupted_run_goes_on(make_trainer: MakeTrainer) -> None:
    """With --c, epochs, optimizer state and rate go on: the weights are those of one run."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    recipe = SHORT | {"schedule": "cosine", "warmup": 0.25}
    trainer = make_trainer(recipe)
    trainer.run_training()
    whole = weights(trainer)
    (Path(trainer.output_folder) / "checkpoint_final.pth").unlink()

    cut = make_trainer(recipe)

    def interrupted(batch: Any) -> Any:
        if cut.current_epoch == 2:
            raise KeyboardInterrupt
        return type(cut).train_step(cut, batch)

    cut.train_step = interrupted
    with pytest.raises(KeyboardInterrupt):
        cut.run_training()

    resumed = make_trainer(recipe)
    maybe_load_checkpoint(resumed, continue_training=True, validation_only=False)
    assert resumed.current_epoch == 2
    resumed.run_training()
    rates = [run.logger.get_value("lrs", step=None) for run in (trainer, resumed)]
    assert rates[0] == rates[1] and len(rates[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole, weights(resumed), strict=True))


def test_resuming_follows_the_plans_of_now(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(SHORT)
    trainer.run_training()
    path = f"{trainer.output_folder}/checkpoint_final.pth"
    changed = make_trainer(SHORT | {"epochs": 4, "weight_decay": 0.5, "betas": (0.5, 0.5)})
    changed.load_checkpoint(path)
    (group,) = changed.optimizer.param_groups
    assert (group["weight_decay"], group["betas"]) == (0.5, (0.5, 0.5))
    assert changed.optimizer.state, "the moments are gone"
    changed.run_training()
    assert checkpoint(changed, "checkpoint_final.pth")["current_epoch"] == 4
    with pytest.raises(SpecError, match="trained with adamw, the plans now say sgd"):
        make_trainer(SHORT | NNUNET).load_checkpoint(path)
    with pytest.raises(
        SpecError, match=r"training\.decay: .* with all, the plans now say matrices"
    ):
        make_trainer(SHORT | {"decay": "matrices"}).load_checkpoint(path)


def test_what_decays_is_the_recipes(make_trainer: MakeTrainer) -> None:
    """And set rates leave it alone: a scan's `A_log` never shrinks."""
    trainer = make_trainer({**SHORT, "decay": "matrices", "weight_decay": 0.25})
    trainer.initialize()
    kept, shrunk = trainer.optimizer.param_groups
    assert (kept["weight_decay"], shrunk["weight_decay"]) == (0.0, 0.25)
    assert kept["lr"] == shrunk["lr"] > 0
    names = {id(p): name for name, p in trainer.network.named_parameters()}
    assert any(names[id(p)].endswith("A_log") for p in kept["params"])
    assert "0.25 of matrices alone" in Path(trainer.log_file).read_text()


@pytest.mark.parametrize("loss", ["dice_ce", "ce"])
@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "whole": [1, 2], "right": 2},
        {"background": 0, "left": 1, "right": 2, "ignore": 3},
        {"background": 0, "whole": [1, 2], "right": 2, "ignore": 3},
    ],
)
def test_regions_and_ignored_voxels(
    labels: dict[str, Any], loss: str, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer({"epochs": 1, "iterations": 3, "loss": loss, "lr": 1e-2}, labels=labels)
    trainer.run_training()
    check_finite(trainer)


@pytest.mark.parametrize("heads", [1, 2])
def test_every_parameter_gets_a_gradient(heads: int, make_trainer: MakeTrainer) -> None:
    """DDP crashes at one without, so nnU-Net weighs the coarsest output by a millionth there."""
    trainer = make_trainer(SHORT, deep_supervision={"heads": heads})
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    trainer.is_ddp = True
    trainer.loss = trainer._build_loss()
    trainer.is_ddp = False
    trainer.train_step(next(Batches(trainer)))
    assert not [n for n, p in trainer.network.named_parameters() if p.grad is None]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", ["t", "f"])
def test_half_precision_on_a_gpu(
    mixer: ComponentSpec, compiled: str, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 steps under nnU-Net's fp16 autocast and scaler, with and without torch.compile."""
    from torch._dynamo import OptimizedModule

    monkeypatch.setenv("nnUNet_compile", compiled)
    stage = {"width": 8, "mixer": mixer.model_dump(mode="json")}
    recipe = {"epochs": 1, "iterations": 200, "lr": 1e-3}
    trainer = make_trainer(recipe, device="cuda", encoder={"stages": [stage, stage]})
    trainer.initialize()
    assert isinstance(trainer.network, OptimizedModule) is (compiled == "t")
    trainer.run_training()
    check_finite(trainer)
    assert trainer.grad_scaler.get_scale() >= 1
