"""The recipe's losses against nnU-Net's own, on the targets that nnU-Net's transforms make."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.nnunet.loss import build_loss, loss_without_trainer, output_weights

pytest.importorskip("nnunetv2")

SCALES = [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]
LABELS: dict[str, dict[str, Any]] = {
    "classes": {"background": 0, "left": 1, "right": 2},
    "ignore": {"background": 0, "left": 1, "right": 2, "ignore": 3},
    "regions": {"background": 0, "whole": [1, 2], "right": 2},
    "regions-ignore": {"background": 0, "whole": [1, 2], "right": 2, "ignore": 3},
}
ORDER = {"regions": [1, 2], "regions-ignore": [1, 2]}


def stand_in(name: str, *, deep_supervision: bool = True) -> Any:
    """Return what nnU-Net's `_build_loss` reads of a trainer."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    return SimpleNamespace(
        label_manager=LabelManager(LABELS[name], ORDER.get(name)),
        configuration_manager=SimpleNamespace(batch_dice=False),
        is_ddp=False,
        enable_deep_supervision=deep_supervision,
        _do_i_compile=lambda: False,
        _get_deep_supervision_scales=lambda: SCALES,
    )


def example(trainer: Any, *, only: int | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Return logits that need gradients and nnU-Net's targets, both fine to coarse."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    labels = trainer.label_manager
    top = 4 if labels.ignore_label is not None else 3
    transform = nnUNetTrainer.get_validation_transforms(
        SCALES,
        foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else None,
        ignore_label=labels.ignore_label,
    )
    cases = [
        torch.randint(top, (1, 8, 8, 8)) if only is None else torch.full((1, 8, 8, 8), only)
        for _ in range(2)
    ]
    made = [transform(image=case.float(), segmentation=case)["segmentation"] for case in cases]
    targets = [torch.stack(parts) for parts in zip(*made, strict=True)]
    heads = labels.num_segmentation_heads
    logits = [torch.randn(2, heads, *t.shape[2:], requires_grad=True) for t in targets]
    return logits, targets


def value(trainer: Any, kind: str, logits: Any, targets: Any) -> Tensor:
    found: Tensor = build_loss(trainer, kind)(logits, targets)
    return found


@pytest.mark.parametrize("name", LABELS)
def test_parts_sum_to_the_loss_of_nnunet(name: str) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = stand_in(name)
    logits, targets = example(trainer)
    parts = {kind: value(trainer, kind, logits, targets) for kind in ("dice_ce", "dice", "ce")}
    torch.testing.assert_close(
        parts["dice_ce"], nnUNetTrainer._build_loss(trainer)(logits, targets)
    )
    torch.testing.assert_close(parts["dice"] + parts["ce"], parts["dice_ce"])
    assert parts["ce"] > 0 > parts["dice"]


@pytest.mark.parametrize("kind", ["dice_ce", "dice", "ce"])
@pytest.mark.parametrize("name", LABELS)
def test_gradients_but_for_the_coarsest_output(name: str, kind: str) -> None:
    """nnU-Net gives the last output no weight, whatever the loss."""
    trainer = stand_in(name)
    logits, targets = example(trainer)
    value(trainer, kind, logits, targets).backward()  # type: ignore[no-untyped-call]
    assert [out.grad is not None and bool(out.grad.any()) for out in logits] == [True, True, False]


def test_cross_entropy_without_deep_supervision() -> None:
    trainer = stand_in("classes", deep_supervision=False)
    logits, targets = example(trainer)
    expected = torch.nn.functional.cross_entropy(logits[0], targets[0][:, 0].long())
    torch.testing.assert_close(value(trainer, "ce", logits[0], targets[0]), expected)


@pytest.mark.parametrize("kind", ["dice_ce", "dice", "ce"])
@pytest.mark.parametrize("name", ["ignore", "regions-ignore"])
def test_a_patch_without_labels(name: str, kind: str) -> None:
    """nnU-Net's cross-entropy is the number 0 there, from which nothing can go back."""
    trainer = stand_in(name)
    logits, targets = example(trainer, only=3)
    loss = value(trainer, kind, logits, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert logits[0].grad is not None
    assert logits[0].grad.isfinite().all()


@pytest.mark.parametrize("kind", ["dice_ce", "dice", "ce"])
def test_ignored_voxels_do_not_matter(kind: str) -> None:
    trainer = stand_in("ignore")
    logits, targets = example(trainer)
    before = value(trainer, kind, logits, targets)
    changed = [torch.where(t == 3, out + 5, out) for out, t in zip(logits, targets, strict=True)]
    torch.testing.assert_close(value(trainer, kind, changed, targets), before)


@pytest.mark.parametrize("kind", ["dice_ce", "dice", "ce"])
def test_trials_train_with_the_loss_of_the_recipe(kind: str) -> None:
    from search.trials.nnunet_data import TrialData

    trainer = stand_in("classes")
    logits, targets = example(trainer)
    data: Any = SimpleNamespace(
        labels=trainer.label_manager, configuration=trainer.configuration_manager
    )
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    loss = TrialData.loss(data, strides, deep_supervision=True, kind=kind)
    torch.testing.assert_close(loss(logits, targets), value(trainer, kind, logits, targets))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_weights_of_the_outputs_are_nnunets(count: int) -> None:
    loss: Any = loss_without_trainer(
        has_regions=False, ignore_label=None, batch_dice=False, num_outputs=count
    )
    assert output_weights(count) == pytest.approx(loss.weight_factors)
    assert output_weights(1) == [1]
