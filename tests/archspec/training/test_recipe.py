"""The recipe: what every field does, and the optimizer, rate and clipping that follow from it."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch import nn

from archspec.costs.memory import OPTIMIZER_STATES
from archspec.network.build import build
from archspec.spec.hashing import arch_hash, trial_hash
from archspec.spec.load import load
from archspec.spec.training import Optimizer, TrainingSpec
from archspec.training.recipe import build_optimizer, clip_gradients, rate, set_rate
from blocks.base import ComponentSpec, SpecError

TRAINER_FIELDS = {"epochs", "iterations", "loss"}
"""What nnU-Net's trainer does with them is tested with it."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def train(recipe: TrainingSpec, steps: int = 20) -> list[torch.Tensor]:
    """Return the weights after each step, with gradients far above the usual norms."""
    model = net()
    optimizer = build_optimizer(model, recipe)
    history = []
    for step in range(steps):
        set_rate(optimizer, recipe, step, steps)
        optimizer.zero_grad()
        (model(torch.full((4, 3), 10.0 + step)).square().sum() / (step + 1)).backward()
        clip_gradients(model, recipe)
        optimizer.step()
        history.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
    return history


def tree(**training: Any) -> dict[str, Any]:
    return {
        "name": "recipe",
        "patch_size": (8, 8, 8),
        "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}]},
        "decoder": {"kind": "sum"},
        "training": training,
    }


Variants = Callable[[ComponentSpec], dict[str, list[ComponentSpec]]]


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_every_value_matters(optimizer: str, variants: Variants) -> None:
    """Each value that the class takes trains otherwise, for every optimizer."""
    base = TrainingSpec.model_validate({"optimizer": optimizer, "warmup": 0.3})
    reference = train(base)
    settings = dict(variants(base))
    betas = [(0.5, 0.9)] if optimizer != "sgd" else []
    settings["betas"] = [base.model_copy(update={"betas": pair}) for pair in betas]
    for field, changed in settings.items():
        if field in TRAINER_FIELDS:
            continue
        refused = field == ("betas" if optimizer == "sgd" else "momentum")
        assert bool(changed) is not refused, f"{field}: {changed}"
        for recipe in changed:
            assert isinstance(recipe, TrainingSpec)
            found = train(recipe)
            same = all(torch.equal(a, b) for a, b in zip(found, reference, strict=True))
            assert not same, f"{field}: {recipe!r}"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"optimizer": "sgd", "betas": (0.5, 0.9)}, "training.betas: must be left out with optim"),
        ({"optimizer": "adam", "momentum": 0.9}, "training.momentum: must be left out with optimi"),
        ({"optimizer": "lion"}, "training.optimizer: 'lion' is not allowed; allowed: adamw, adam"),
        ({"betas": (0.9,)}, "training.betas"),
        ({"clip": 0}, "training.clip"),
        ({"clip": "off"}, "training.clip"),
        ({"epochs": 0}, "training.epochs"),
        ({"iterations": 2.5}, "training.iterations"),
        ({"decay": "norms"}, "training.decay: 'norms' is not allowed; allowed: all, matrices"),
        ({"loss": "focal"}, "training.loss: 'focal' is not allowed; allowed: dice_ce, dice, ce"),
    ],
)
def test_mistakes(training: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        load(tree(**training))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("word", ["none", None])
def test_no_clipping(word: str | None) -> None:
    spec = load(tree(clip=word))
    assert spec.training.clip is None
    assert load(spec.tree()) == spec
    model = net()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    clip_gradients(model, spec.training)
    assert all(bool((p.grad == 1e6).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_null_leaves_out_what_an_optimizer_has_not(optimizer: str) -> None:
    spec = load(tree(optimizer=optimizer, betas=None, momentum=None))
    assert spec.training == load(tree(optimizer=optimizer)).training
    assert load(spec.tree()) == spec


def test_plans_of_before_load() -> None:
    """A recipe without the newer fields is the same one, and defaults are written out in plans."""
    old = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 3e-5, "schedule": "poly", "warmup": 0.0}
    spec = load(tree(**old, clip=12.0))
    assert load(spec.tree()) == spec
    assert spec.training.momentum == 0.99
    assert spec.training.loss == "dice_ce"


def test_sgd_is_that_of_nnunet() -> None:
    found = build_optimizer(net(), TrainingSpec(optimizer="sgd", lr=1e-2, weight_decay=3e-5))
    stock = torch.optim.SGD(
        net().parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True
    )
    assert type(found) is type(stock)
    assert found.defaults == stock.defaults


def decayed(net: nn.Module, recipe: TrainingSpec) -> set[str]:
    """Return the names of the parameters that a step without gradients shrinks."""
    groups = build_optimizer(net, recipe).param_groups
    shrinking = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    return {name for name, parameter in net.named_parameters() if id(parameter) in shrinking}


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_matrices_are_weights_of_layers(spec_name: str, optimizer: Optimizer) -> None:
    """Of all networks: those of convolutions and linear layers, and nothing else."""
    with torch.device("meta"):
        net = build(spec_name)
    recipe = TrainingSpec.model_validate({"optimizer": optimizer, "decay": "matrices"})
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    wanted = {f"{at}.weight" for at, module in net.named_modules() if isinstance(module, layers)}
    assert decayed(net, recipe) == wanted
    everything = {name for name, _ in net.named_parameters()}
    assert wanted < everything
    assert decayed(net, recipe.model_copy(update={"decay": "all"})) == everything


def test_what_decays_counts_for_trials_only() -> None:
    found = [load(tree(**extra)) for extra in ({}, {"decay": "all"}, {"decay": "matrices"})]
    assert len({arch_hash(spec) for spec in found}) == 1
    assert trial_hash(found[0]) == trial_hash(found[1]) != trial_hash(found[2])


def test_poly_is_that_of_nnunet() -> None:
    """At the first step of every epoch, for nnU-Net's 1000 epochs of 250 iterations."""
    scheduler = pytest.importorskip("nnunetv2.training.lr_scheduler.polylr").PolyLRScheduler
    recipe = TrainingSpec(optimizer="sgd", lr=1e-2, warmup=0.0)
    optimizer = build_optimizer(net(), recipe)
    stock = scheduler(optimizer, 1e-2, 1000)
    for epoch in (0, 1, 499, 999):
        stock.step(epoch)
        expected = optimizer.param_groups[0]["lr"]
        assert math.isclose(rate(recipe, epoch * 250, 1000 * 250), expected, rel_tol=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "poly", "cosine"])
def test_rate(schedule: str) -> None:
    recipe = TrainingSpec.model_validate({"schedule": schedule, "lr": 2.0, "warmup": 0.1})
    rates = [rate(recipe, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    if schedule == "constant":
        assert set(rates[10:]) == {2.0}
    else:
        assert all(a > b for a, b in pairwise(rates[10:]))
        assert 0 < rates[-1] < 0.05


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_memory_knows_the_optimizers_states(optimizer: Optimizer) -> None:
    recipe = TrainingSpec.model_validate({"optimizer": optimizer})
    model = net()
    found = build_optimizer(model, recipe)
    assert type(found).__name__.lower() == optimizer
    model(torch.ones(1, 3)).sum().backward()
    found.step()
    for parameter, state in found.state.items():
        tensors = [v for v in state.values() if v is not None and v.shape == parameter.shape]
        assert len(tensors) == OPTIMIZER_STATES[optimizer]
