"""Controls of the mixer benchmark: trained networks that must succeed, and that must not.

A fake would show here: far evidence that leaks into the neighbourhood, a norm that shows local
networks the whole volume, or a host that cannot use what it is given. Test cases come in pairs that
differ in the landmark's side alone, so that whoever does not see it is right in exactly half.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from optuna.trial import FixedTrial
from torch import Tensor, nn

from archspec.network.build import build
from archspec.phantom.painting import Side
from archspec.phantom.reach import ReachTask
from archspec.spec.schema import ArchSpec
from archspec.training.recipe import build_optimizer, clip_gradients, set_rate
from search.space.space import load_space

VOLUME = (16, 32, 144)
DISTANCE = 96
TRAIN_CASES, TEST_PAIRS = 80, 16
TWINS = (2, 3)


@dataclass(frozen=True)
class Cases:
    images: Tensor
    labels: Tensor


def cases(task: ReachTask, seeds: range, *, pairs: bool) -> Cases:
    """Render cases, normalised as nnU-Net does; as pairs, every scene with both sides."""
    volumes = []
    for seed in seeds:
        scene = task.draw(np.random.default_rng([7, seed]))
        sides: tuple[Side, ...] = (-1, 1) if pairs else (scene.landmark_side,)
        for side in sides:
            noise = np.random.default_rng([8, seed])
            volumes.append(task.render(replace(scene, landmark_side=side), noise))
    images = torch.from_numpy(np.stack([volume.image for volume in volumes]))
    grey = images[:, :1]
    axes = (1, 2, 3, 4)
    grey = (grey - grey.mean(axes, keepdim=True)) / grey.std(axes, keepdim=True)
    labels = torch.from_numpy(np.stack([volume.label for volume in volumes])).long()
    return Cases(torch.cat([grey, images[:, 1:]], dim=1), labels)


def host(first: str, second: str, lr: float = 4e-3) -> ArchSpec:
    """Return the host of the space `mixers` with these mixers."""
    space = load_space("mixers", overrides=(f"patch_size={list(VOLUME)}",))
    params = {"encoder.stages.0.mixer": first, "encoder.stages.1.mixer": second}
    rope = {"encoder.stages.1.mixer[attention].rope": "none"}
    return space.suggest(FixedTrial({**params, **rope, "training.lr": lr}))


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross-entropy and soft Dice of the classes, as nnU-Net adds them."""
    p, wanted = logits.softmax(1), F.one_hot(labels, 4).movedim(-1, 1)
    axes = (0, 2, 3, 4)
    overlap = (2 * (p * wanted).sum(axes) + 1e-5) / ((p + wanted).sum(axes) + 1e-5)
    return F.cross_entropy(logits, labels) - overlap[1:].mean()


def trained(spec: ArchSpec, data: Cases, steps: int) -> nn.Module:
    """Train on two mirrored cases a step, by the spec's recipe."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = build(spec, in_channels=data.images.shape[1])
    optimizer = build_optimizer(net, spec.training)
    for step in range(steps):
        chosen = torch.from_numpy(rng.choice(len(data.images), 2, replace=False))
        axes = [axis for axis in (1, 2, 3) if rng.random() < 0.5]
        images = data.images[chosen].flip([axis + 1 for axis in axes])
        set_rate(optimizer, spec.training, step, steps)
        optimizer.zero_grad()
        loss_of(net(images), data.labels[chosen].flip(axes)).backward()
        clip_gradients(net, spec.training)
        optimizer.step()
    return net.eval()


@torch.no_grad()
def scores(net: nn.Module, data: Cases) -> tuple[float, float]:
    """Return the side accuracy over voxels found to be of a twin, and the share that were found."""
    right, found, wanted = 0, 0, 0
    for image, label in zip(data.images, data.labels, strict=True):
        prediction = net(image[None]).argmax(1)[0]
        twins = torch.isin(label, torch.tensor(TWINS))
        both = twins & torch.isin(prediction, torch.tensor(TWINS))
        right += int((prediction[both] == label[both]).sum())
        found, wanted = found + int(both.sum()), wanted + int(twins.sum())
    return right / max(found, 1), found / wanted


def run(spec: ArchSpec, task: ReachTask, steps: int) -> tuple[float, float]:
    data = cases(task, range(TRAIN_CASES), pairs=False)
    unseen = cases(task, range(TRAIN_CASES, TRAIN_CASES + TEST_PAIRS), pairs=True)
    return scores(trained(spec, data, steps), unseen)


def task(**knobs: Any) -> ReachTask:
    return ReachTask(distance=DISTANCE, volume=VOLUME, **knobs)


@pytest.mark.long
def test_an_oracle_succeeds_without_any_context() -> None:
    side, found = run(host("identity", "identity"), task(control="oracle"), steps=150)
    assert side >= 0.97 and found > 0.5


@pytest.mark.long
@pytest.mark.parametrize("kind", ["identity", "conv", "mamba", "tom", "attention"])
def test_with_the_landmark_erased_every_mixer_is_at_chance(kind: str) -> None:
    side, found = run(host(kind, kind), task(control="erased"), steps=200)
    assert found > 0.5, "the twins themselves are found"
    assert side == pytest.approx(0.5, abs=0.05)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["identity", "conv"])
def test_short_range_networks_are_at_chance_on_reach(kind: str) -> None:
    side, found = run(host(kind, kind), task(), steps=300)
    assert found > 0.5
    assert side == pytest.approx(0.5, abs=0.05)


@pytest.mark.long
def test_the_host_solves_reach_with_a_mixer_that_sees_far() -> None:
    side, found = run(host("tom", "attention"), task(), steps=500)
    assert side >= 0.9 and found > 0.5
