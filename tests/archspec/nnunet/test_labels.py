"""Labels, regions and the ignore label, counted as nnU-Net counts them (8 of the list)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from archspec.nnunet.export import export_nnunet
from archspec.nnunet.labels import check_labels, num_foreground_labels, num_segmentation_heads
from blocks.base import SpecError

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Refuse = Callable[..., str]

# Labels, regions_class_order, outputs, and inputs of a cascade's second stage.
LABELS: dict[str, tuple[dict[str, Any], list[int] | None, int, int]] = {
    "labels": ({"background": 0, "a": 1, "b": 2}, None, 3, 2),
    "ignored": ({"background": 0, "a": 1, "ignore": 2}, None, 2, 1),
    "single_lists": ({"background": 0, "a": [1], "b": [2]}, None, 3, 2),
    "regions": ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "c": 3}, [1, 2, 3], 3, 3),
    "regions_ignored": ({"background": 0, "whole": [1, 2], "c": [2], "ignore": 3}, [1, 2], 2, 2),
    "whole_floats": ({"background": 0.0, "a": 1.0, "b": 2}, None, 3, 2),
    "regions_with_a_gap": ({"background": 0, "w": [1, 2, 4], "e": 4}, [2, 4], 2, 3),
    "region_of_zeros": ({"background": 0, "whole": [1, 2], "zero": [0, 0]}, [1], 1, 2),
}
SPEC = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}] * 2},
    "decoder": {"kind": "sum"},
}


@pytest.mark.parametrize("case", LABELS)
def test_counts(case: str) -> None:
    labels, order, heads, foreground = LABELS[case]
    check_labels(labels, order)
    assert num_segmentation_heads(labels) == heads
    assert num_foreground_labels(labels) == foreground


@pytest.mark.parametrize("case", LABELS)
def test_counts_as_nnunet_does(case: str) -> None:
    handling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
    labels, order, heads, foreground = LABELS[case]
    manager = handling.LabelManager(labels, order)
    assert manager.num_segmentation_heads == heads
    assert len(manager.foreground_labels) == foreground


WRONG: dict[str, tuple[dict[str, Any], list[int] | None, str]] = {
    "no_background": ({"a": 1}, None, "background must be 0, but is None"),
    "background_elsewhere": ({"background": 1, "a": 0}, None, "background must be 0"),
    "ignore_between": ({"background": 0, "ignore": 1, "a": 2}, None, "ignore must be 3"),
    "ignore_far": ({"background": 0, "a": 1, "ignore": 255}, None, "ignore must be 2"),
    "ignore_list": ({"background": 0, "a": 1, "ignore": [2]}, None, "ignore must be 2"),
    "no_order": ({"background": 0, "whole": [1, 2], "b": 2}, None, "must list 2 labels"),
    "short_order": ({"background": 0, "whole": [1, 2], "b": 2}, [1], "must list 2 labels"),
    "words": ({"background": 0, "a": "one"}, None, "must be integers"),
    "empty": ({}, None, "background must be 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused_as_nnunet_would(
    preprocessed: Path, rewrite: Rewrite, refused_export: Refuse, case: str
) -> None:
    """nnU-Net stops at each of them too, but when a training starts."""
    handling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
    labels, order, said = WRONG[case]
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        handling.LabelManager(labels, order)
    with pytest.raises(SpecError, match=said):
        check_labels(labels, order)
    file = preprocessed / "dataset.json"
    rewrite(file, lambda tree: tree.update(labels=labels, regions_class_order=order))
    message = refused_export(SPEC)
    assert message.startswith(f"{file}: ") and said in message


UNTRAINABLE: dict[str, tuple[dict[str, Any], list[int] | None, str]] = {
    "gap": ({"background": 0, "a": 1, "b": 3}, None, "0 to 2 without a gap, but are 0, 1, 3;"),
    "far": ({"background": 0, "a": 1, "b": 255}, None, "without a gap, but are 0, 1, 255;"),
    "no_one": ({"background": 0, "a": 2}, None, "0 to 1 without a gap, but are 0, 2;"),
    "gap_in_lists": ({"background": 0, "a": [1], "b": [3]}, None, "without a gap"),
    "gap_below_ignore": ({"background": 0, "a": 1, "b": 3, "ignore": 4}, None, "without a gap"),
    "negative": ({"background": 0, "a": -1}, None, "from 0 on: 'a' is -1"),
    "half": ({"background": 0, "a": 1, "b": 2.5}, None, "must be integers"),
    "nan": ({"background": 0, "a": float("nan")}, None, "'a' is nan"),
    "infinite": ({"background": 0, "a": float("inf")}, None, "'a' is inf"),
    "text": ({"background": 0, "a": "1"}, None, "'a' is '1'"),
    "truth": ({"background": 0, "a": True}, None, "'a' is True"),
    "nothing": ({"background": 0, "a": None}, None, "'a' is None"),
    "half_region": ({"background": 0, "w": [1, 2.5], "b": 1}, [1, 2], "'w' is [1, 2.5]"),
    "negative_region": ({"background": 0, "w": [-1, 1], "b": 1}, [1, 2], "'w' is [-1, 1]"),
    "nested_region": ({"background": 0, "w": [[1, 2]]}, [1], "'w' is [[1, 2]]"),
    "no_foreground": ({"background": 0}, None, "none above the background"),
    "ignore_alone": ({"background": 0, "ignore": 1}, None, "none above the background"),
    "regions_of_nothing": ({"background": 0, "zero": [0, 0]}, [], "none above the background"),
    "empty_list": ({"background": 0, "a": 1, "b": []}, None, "'b' names no label"),
    "an_order_that_is_none": ({"background": 0, "a": [1, 2], "b": 2}, 7, "must list 2 labels"),
    "an_order_of_words": ({"background": 0, "a": [1, 2], "b": 2}, ["a", "b"], "must list 2 labels"),
    "float_ignore": ({"background": 0, "a": 1, "ignore": 2.0}, None, "ignore must be 2"),
}
"""Most of them nnU-Net plans, preprocesses, and starts to train on."""


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_refused_before_nnunet_would(
    preprocessed: Path, rewrite: Rewrite, refused_export: Refuse, case: str
) -> None:
    labels, order, said = UNTRAINABLE[case]
    file = preprocessed / "dataset.json"
    rewrite(file, lambda tree: tree.update(labels=labels, regions_class_order=order))
    message = refused_export(SPEC)
    assert message.startswith(f"{file}: ") and said in message


@pytest.mark.parametrize("case", LABELS)
def test_the_dataset_wins(preprocessed: Path, rewrite: Rewrite, case: str) -> None:
    """8: channels and classes are the dataset's, and one line says so where the spec differs."""
    labels, order, heads, _ = LABELS[case]
    names = {"0": "T1", "1": "T2"}
    change = {"labels": labels, "regions_class_order": order, "channel_names": names}
    rewrite(preprocessed / "dataset.json", lambda tree: tree.update(change))
    export = export_nnunet({**SPEC, "in_channels": 1, "num_classes": 2}, 901)
    (channels,) = (note for note in export.notes if note.startswith("in_channels: "))
    assert "the dataset has 2;" in channels
    classes = [note for note in export.notes if note.startswith("num_classes: ")]
    assert len(classes) == (heads != 2)
    assert all(f"the dataset has {heads};" in note for note in classes)
    settings = json.loads(export.path.read_text())["configurations"]["3d_fullres"]
    assert settings["architecture"]["arch_kwargs"]["spec"]["num_classes"] == 2


@pytest.mark.long
@pytest.mark.parametrize("configuration", ["3d_fullres", "3d_cascade_fullres"])
@pytest.mark.parametrize("case", ["labels", "ignored", "regions", "regions_ignored"])
def test_nnunet_trains_on_them(
    preprocessed: Path, rewrite: Rewrite, case: str, configuration: str
) -> None:
    """8 and 18: nnU-Net's own targets and loss take the outputs; every parameter learns.

    In a cascade the labels of the first stage come as channels behind the image's.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    labels, order, heads, _ = LABELS[case]
    change = {"labels": labels, "regions_class_order": order}
    rewrite(preprocessed / "dataset.json", lambda tree: tree.update(change))
    names = list(dict.fromkeys(("3d_lowres", configuration)))
    spec = {**SPEC, "deep_supervision": {"heads": 1}}
    plans = json.loads(export_nnunet(spec, 901, configuration=names).path.read_text())
    dataset_json = json.loads((preprocessed / "dataset.json").read_text())

    trainer = object.__new__(nnUNetTrainer)
    trainer.plans_manager = PlansManager(plans)
    trainer.configuration_manager = trainer.plans_manager.get_configuration(configuration)
    trainer.label_manager = trainer.plans_manager.get_label_manager(dataset_json)
    trainer.enable_deep_supervision, trainer.is_ddp = True, False
    trainer._do_i_compile = lambda: False
    manager = trainer.label_manager
    cascaded = configuration != "3d_fullres"
    channels = determine_num_input_channels(
        trainer.plans_manager, trainer.configuration_manager, dataset_json
    )
    assert manager.num_segmentation_heads == heads
    net = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, channels, heads, True
    )
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        is_cascaded=cascaded,
        foreground_labels=manager.foreground_labels,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )
    highest = max(manager.all_labels) + (manager.ignore_label is not None)
    cases = []
    for _ in range(2):
        truth = torch.randint(0, highest + 1, (1, 16, 16, 16))
        predicted = torch.randint(0, max(manager.all_labels) + 1, (1, 16, 16, 16))
        segmentation = torch.cat([truth, predicted]) if cascaded else truth
        image = torch.randn(1, 16, 16, 16)
        cases.append(transforms(image=image, segmentation=segmentation.short()))
    outputs = net(torch.stack([case["image"] for case in cases]))
    targets = [
        torch.stack(level) for level in zip(*(case["segmentation"] for case in cases), strict=True)
    ]
    loss = trainer._build_loss()(outputs, targets)
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in gradients)
