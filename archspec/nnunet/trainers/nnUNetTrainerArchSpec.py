"""nnU-Net's trainer, following the recipe of the spec that the plans hold.

nnU-Net finds it by `export nnUNet_extTrainer=<this folder>` and `-tr nnUNetTrainerArchSpec`. It
imports every file of this folder by itself, so no other belongs here. Verified with nnU-Net 2.8.1.
"""  # noqa: N999

from contextlib import nullcontext
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from archspec.nnunet.loss import build_loss
from archspec.spec.load import load
from archspec.spec.plugins import check_packages
from archspec.spec.training import TrainingSpec
from archspec.training.recipe import build_optimizer, clip_gradients, set_rate
from blocks.base import SpecError


class nnUNetTrainerArchSpec(nnUNetTrainer):  # type: ignore[misc]  # noqa: N801
    """Train with the optimizer, rates, length, clipping and loss of the spec's `training`.

    Everything else is nnU-Net's: data, augmentation, mixed precision, validation, checkpoints.
    Checkpoints name nnU-Net's own trainer, so they predict wherever archspec-seg is installed.

    Raises:
        SpecError: the plans hold no spec; nothing was written.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        # Before nnU-Net makes a folder for the results.
        recipe = recipe_of(plans, configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.recipe = recipe
        self.initial_lr = recipe.lr
        self.weight_decay = recipe.weight_decay
        if recipe.epochs is not None:
            self.num_epochs = recipe.epochs
        if recipe.iterations is not None:
            self.num_iterations_per_epoch = recipe.iterations
            # nnU-Net validates 50 batches after 250.
            self.num_val_iterations_per_epoch = max(1, recipe.iterations // 5)
        self.print_to_log_file(
            f"archspec recipe: {_summary(recipe)}; {self.num_epochs} epochs of "
            f"{self.num_iterations_per_epoch} iterations",
            add_timestamp=False,
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, "_StepRate"]:
        optimizer = build_optimizer(self.network, self.recipe)
        rates = _StepRate(
            optimizer, self.recipe, epochs=self.num_epochs, iterations=self.num_iterations_per_epoch
        )
        return optimizer, rates

    def _build_loss(self) -> nn.Module:
        return build_loss(self, self.recipe.loss)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take one step as nnU-Net does, but with the recipe's clipping and this step's rate."""
        data, target = batch["data"].to(self.device, non_blocking=True), batch["target"]
        if isinstance(target, list):
            target = [part.to(self.device, non_blocking=True) for part in target]
        else:
            target = target.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            loss = self.loss(self.network(data), target)
        if self.grad_scaler is None:
            loss.backward()
            clip_gradients(self.network, self.recipe)
            self.optimizer.step()
        else:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)  # clipping means the true norm
            clip_gradients(self.network, self.recipe)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        self.lr_scheduler.advance()
        return {"loss": loss.detach().cpu().numpy()}

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint under the name of its own trainer.

        It records the class of the object that writes: here a stock trainer with our attributes.
        """
        stock = object.__new__(nnUNetTrainer)
        vars(stock).update(vars(self))
        stock.save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Go on from a checkpoint, under the recipe that the plans hold now.

        Raises:
            SpecError: the checkpoint's optimizer is another one, or decays other parameters.
        """
        try:
            super().load_checkpoint(filename_or_checkpoint)
        finally:  # it takes the recipe first, and PyTorch stops where groups do not fit
            self._check_same_optimizer()
        fresh = build_optimizer(self.network, self.recipe).param_groups
        for group, ours in zip(self.optimizer.param_groups, fresh, strict=True):
            group.update({key: value for key, value in ours.items() if key != "params"})

    def _check_same_optimizer(self) -> None:
        recipe = recipe_of(self.my_init_kwargs["plans"], self.configuration_name)
        for field, saved, now in (
            ("optimizer", recipe.optimizer, self.recipe.optimizer),
            ("decay", recipe.decay, self.recipe.decay),
        ):
            if saved != now:
                raise SpecError(
                    f"the checkpoint was trained with {saved}, the plans now say {now}",
                    field=f"training.{field}",
                    suggestion=f"train without --c, or export {saved} again",
                )


def recipe_of(plans: dict[str, Any], configuration: str) -> TrainingSpec:
    """Return the recipe of the spec in the plans.

    Raises:
        SpecError: the plans hold no spec, or one that this archspec cannot read, or a package of
            its components is missing.
    """
    settings = PlansManager(plans).get_configuration(configuration).configuration
    arch_kwargs = settings.get("architecture", {}).get("arch_kwargs", {})
    if "spec" not in arch_kwargs:
        raise SpecError(
            f"{configuration!r} of {plans.get('plans_name')!r} holds no spec, so there is no "
            "recipe for nnUNetTrainerArchSpec",
            field="plans",
            suggestion="use plans that archspec export wrote, or another -tr",
        )
    check_packages(arch_kwargs.get("packages", {}))
    version = arch_kwargs.get("schema_version", 1)
    return load({**arch_kwargs["spec"], "schema_version": version}).training


def _summary(recipe: TrainingSpec) -> str:
    sgd = recipe.optimizer == "sgd"
    return (
        f"{recipe.optimizer}, lr {recipe.lr}, weight decay {recipe.weight_decay}"
        f"{' of matrices alone' if recipe.decay == 'matrices' else ''}, "
        f"{f'momentum {recipe.momentum}' if sgd else f'betas {recipe.betas}'}; "
        f"{recipe.schedule}, warm-up {recipe.warmup} of all steps; clip {recipe.clip}; "
        f"loss {recipe.loss}"
    )


class _StepRate:
    """Stand where nnU-Net keeps its scheduler: nnU-Net sets the epoch, every step advances it."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        recipe: TrainingSpec,
        *,
        epochs: int,
        iterations: int,
    ) -> None:
        self._optimizer, self._recipe = optimizer, recipe
        self._iterations, self._steps = iterations, epochs * iterations
        self.step(0)

    def step(self, epoch: int) -> None:
        self._done = epoch * self._iterations
        set_rate(self._optimizer, self._recipe, self._done, self._steps)

    def advance(self) -> None:
        self._done += 1
        if self._done < self._steps:
            set_rate(self._optimizer, self._recipe, self._done, self._steps)
