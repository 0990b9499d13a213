"""A network learns one patch by heart, or the report says what kept it from that."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from archspec import plan
from archspec.network.build import build_plan
from archspec.network.plan import Plan
from archspec.overfit.cap import resolution_cap
from archspec.overfit.gradients import where_not_finite
from archspec.overfit.patch import FixedPatch, Target
from archspec.overfit.train import nnunet_loss, overfit
from archspec.spec.schema import ArchSpec
from blocks.decoders.mlp import MLPDecoderSpec
from blocks.decoders.sum import SumDecoderSpec
from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.tom import TomMixerSpec

pytest.importorskip("nnunetv2")

SpecFactory = Callable[..., ArchSpec]

LABELS = {"background": 0, "left": 1, "right": 2}


def two_blocks(size: int = 16) -> NDArray[np.int16]:
    label = np.zeros((size,) * 3, np.int16)
    label[4:8, 4:12, 3:7], label[5:12, 4:9, 9:14] = 1, 2
    return label


def patch_of(label: NDArray[np.int16], labels: Any = LABELS) -> FixedPatch:
    image, target = torch.from_numpy(label)[None].float(), Target.of(label, labels)
    return FixedPatch(image, target, "d", "x", (0,) * 3, label.shape)


@pytest.fixture
def planned(small_spec: SpecFactory) -> Plan:
    spec = small_spec(
        3,
        mixer=TomMixerSpec(d_state=4),
        decoder=SumDecoderSpec(head="transpose"),
        strides=(2, 2, 2),
        heads=2,
        num_classes=3,
    )
    return plan(spec, patch_size=(16, 16, 16))


def test_seeds(planned: Plan) -> None:
    patch = patch_of(two_blocks())
    losses: list[list[float]] = []
    for seed in (0, 0, 1):
        losses.append([])
        keep = losses[-1].append
        overfit(planned, patch, steps=3, seed=seed, on_step=lambda s, _, keep=keep: keep(s.loss))
    assert losses[0] == losses[1] != losses[2]


def test_convolutions_are_timed_while_it_trains(
    planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[torch.device] = []

    @contextmanager
    def timed(device: torch.device) -> Iterator[None]:
        inside.append(device)
        yield
        inside.clear()

    monkeypatch.setattr("archspec.overfit.train.timed_convolutions", timed)
    seen: list[torch.device] = []
    overfit(planned, patch_of(two_blocks()), steps=1, on_step=lambda *_: seen.extend(inside))
    assert seen == [torch.device("cpu")]
    assert inside == []


def test_gradients_are_those_before_clipping(
    planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only step is the first and the last."""
    monkeypatch.setattr("archspec.overfit.train.CLIP", 1e-3)
    done = overfit(planned, patch_of(two_blocks()), steps=1)
    for path, norms in done.first.items():
        assert done.last[path] == pytest.approx(norms, rel=1e-4)
    assert done.dead == []


@pytest.mark.long
def test_half_resolution_reaches_its_own_cap(small_spec: SpecFactory) -> None:
    decoder = MLPDecoderSpec(width=32)
    spec = small_spec(3, mixer=ConvMixerSpec(), decoder=decoder, strides=(2, 2), num_classes=3)
    label = two_blocks()
    stages = [stage.model_copy(update={"width": 32}) for stage in spec.encoder.stages]
    encoder = spec.encoder.model_copy(update={"stages": tuple(stages)})
    wide = plan(spec.model_copy(update={"encoder": encoder}), patch_size=(16, 16, 16))
    done = overfit(wide, patch_of(label), steps=400)
    assert done.cap.grid == (8, 8, 8)
    assert done.reached
    assert done.first == done.last == {}


def test_a_head_that_the_loss_leaves_out_is_no_fault(planned: Plan) -> None:
    """The coarser of two heads has no weight in nnU-Net's loss: without gradient by design."""
    label = two_blocks()
    label[0] = 3
    patch = patch_of(label, {**LABELS, "ignore": 3})
    done = overfit(planned, patch, steps=2)
    assert (done.failure, done.silent) == (None, ())
    found = done.to_json()
    assert found["unweighted_head"] == "decoder.seg_layers.1"
    assert found["parameters_without_gradient"] == []
    assert "gradient:" not in done.text()


def test_other_parameters_without_gradient_are_named(
    planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(wanted: Plan) -> nn.Module:
        net = build_plan(wanted)
        net.get_submodule("stages.1.blocks.0.mixer").register_forward_hook(
            lambda *found: found[-1].detach()
        )
        return net

    monkeypatch.setattr("archspec.overfit.train.build_plan", cut)
    patch = patch_of(two_blocks())
    done = overfit(planned, patch, steps=1)
    assert done.silent and all(name.startswith("stages.1.blocks.0.") for name in done.silent)
    assert f"without gradient: {done.silent[0]}, " in done.text()


@pytest.mark.parametrize("broken", ["weights", "output", "gradient"])
def test_not_finite(planned: Plan, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def sabotaged(wanted: Plan) -> nn.Module:
        net = build_plan(wanted)
        module = net.get_submodule("stages.1.blocks.0")
        if broken == "weights":
            with torch.no_grad():
                next(module.mixer.parameters()).fill_(torch.nan)
        if broken == "output":
            module.register_forward_hook(lambda *found: found[-1] / 0)
        if broken == "gradient":
            module.register_forward_hook(lambda *found: (found[-1] * 0).sqrt())
        return net

    monkeypatch.setattr("archspec.overfit.train.build_plan", sabotaged)
    done = overfit(planned, patch_of(two_blocks()), steps=5)
    assert not done.reached
    assert done.failure is not None and "\n" not in done.failure
    assert done.failure.startswith("step 1: ")
    expected = {
        "weights": "the weights stages.1.blocks.0.mixer.",
        "output": "stages.1.blocks.0 (",
        "gradient": "the gradient of ",
    }
    assert expected[broken] in done.failure
    assert "NaN" not in json.dumps(done.to_json())
    assert done.text() == f"small failed at {done.failure}"


def test_inner_module_is_named(planned: Plan) -> None:
    net = build_plan(planned)
    net.get_submodule("stages.0.downsample").register_forward_hook(
        lambda *found: found[-1] * torch.inf
    )
    assert where_not_finite(net, torch.randn(1, 1, 16, 16, 16)).startswith("stages.0.downsample (")


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        {"background": 0, "left": 1, "ignore": 2},
        {"background": 0, "whole": [1, 2], "right": 2},
        {"background": 0, "whole": [1], "both": [1, 1], "ignore": 2},
    ],
    ids=["classes", "ignored", "regions", "regions_ignored"],
)
def test_loss_is_nnunets(small_spec: SpecFactory, labels: Any, heads: int) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    label = two_blocks()
    target = Target.of(label, labels)
    foreground = [name for name in labels if name not in ("background", "ignore")]
    manager = LabelManager(labels, foreground)
    spec = small_spec(3, strides=(1, 2, 2), heads=heads, decoder=None)
    shaped = plan(spec, num_classes=len(target.wanted), patch_size=(16, 16, 16))
    stand_in: Any = SimpleNamespace(
        label_manager=manager,
        configuration_manager=SimpleNamespace(batch_dice=False),
        is_ddp=False,
        enable_deep_supervision=heads > 1,
        _do_i_compile=lambda: False,
        _get_deep_supervision_scales=lambda: [[1.0] * 3, [0.5] * 3],
    )
    theirs = nnUNetTrainer._build_loss(stand_in)
    outputs = [torch.randn(1, shaped.num_classes, *grid) for grid in shaped.output_grids]
    wanted = torch.from_numpy(label)[None, None].float()
    if manager.has_regions:
        regions: list[Any] = [*manager.foreground_regions]
        if manager.ignore_label is not None:
            regions.append(manager.ignore_label)
        masks = [np.isin(label, region) for region in regions]
        wanted = torch.from_numpy(np.stack(masks))[None].float()
    targets = [
        nn.functional.interpolate(wanted, g, mode="nearest-exact") for g in shaped.output_grids
    ]
    expected = theirs(outputs, targets) if heads > 1 else theirs(outputs[0], targets[0])
    torch.testing.assert_close(nnunet_loss(shaped, target, 1)(outputs), expected)


def test_cap_is_that_of_the_patch(small_spec: SpecFactory) -> None:
    """Half resolution, interpolated: the cap that the report states is what the function gives."""
    spec = small_spec(3, mixer=ConvMixerSpec(), strides=(2, 2), num_classes=3)
    patch = patch_of(two_blocks())
    done = overfit(plan(spec, patch_size=(16, 16, 16)), patch, steps=1)
    assert done.cap == resolution_cap(patch.target, (8, 8, 8))
    assert done.first == done.last == {}
