"""Patch and batch size of an export: the dataset's, what was asked for, or what fits (6)."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archspec import plan
from archspec.costs.fit import memory_size
from archspec.costs.memory import training_memory
from archspec.nnunet.export import Export, export_nnunet
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError

Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Refuse = Callable[..., str]


def spec(*, strides: Any = (2, 2), ndim: int = 3, **fields: Any) -> ArchSpec:
    stages = [{"width": 8, "mixer": {"kind": "conv"}, "downsample": {"stride": s}} for s in strides]
    return load(
        {
            "name": "sizes",
            "patch_size": [16] * ndim,
            "num_classes": 3,
            "encoder": {"stages": stages},
            "decoder": {"kind": "sum"},
            **fields,
        }
    )


def settings(export: Export) -> dict[str, Any]:
    (found,) = json.loads(export.path.read_text())["configurations"].values()
    return dict(found)


def starting(export: Export, text: str) -> str:
    (note,) = (note for note in export.notes if note.startswith(text))
    return note


def test_dataset_decides(preprocessed: Path) -> None:
    export = export_nnunet(spec(), 901)
    assert not [
        n for n in export.notes if n.startswith(("patch_size", "batch_size", "`fit_memory`"))
    ]
    assert settings(export)["batch_size"] == 2
    other = export_nnunet(spec(patch_size=[32, 16, 16]), 901, plans_name="other")
    said = "patch_size: spec says [32, 16, 16], the dataset has [16, 16, 16]; "
    assert starting(other, "patch_size").startswith(said)


def test_patch_and_batch(preprocessed: Path) -> None:
    """6: another patch is written, for network and data alike, and the data are the same."""
    export = export_nnunet(spec(), 901, patch_size=(8, 24, 20), batch_size=5)
    found = settings(export)
    assert found["patch_size"] == found["architecture"]["arch_kwargs"]["patch_size"] == [8, 24, 20]
    assert found["batch_size"] == 5
    base = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    kept = base["configurations"]["3d_fullres"]
    for key in ("patch_size", "batch_size", "architecture"):
        del kept[key], found[key]
    assert json.dumps(found) == json.dumps(kept) and "data_identifier" in kept
    said = "patch_size: [8, 24, 20] instead of the dataset's [16, 16, 16]; same data"
    assert starting(export, "patch_size") == said
    assert starting(export, "batch_size") == "batch_size: 5 instead of the dataset's 2"


def test_batch_of_one_is_warned_of(preprocessed: Path) -> None:
    """nnU-Net draws foreground for the last third of a batch, rounded: for none of one.

    Source: nnunetv2/training/dataloading/data_loader.py (2.8.1), `_oversample_last_XX_percent`.
    """
    assert any("of 1" in note for note in export_nnunet(spec(), 901, batch_size=1).notes)


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ((16, 16), "patch_size=(16, 16): 3d_fullres has 3 axes"),
        ((16, 16, 0), "but is (16, 16, 0)"),
    ],
)
@pytest.mark.parametrize("stages_from_dataset", [False, True])
def test_patch_refused(
    refused_export: Refuse, patch: tuple[int, ...], said: str, stages_from_dataset: bool
) -> None:
    message = refused_export(spec(), patch_size=patch, stages_from_dataset=stages_from_dataset)
    assert message.startswith(("patch_size: ", "patch_size="))
    assert message.endswith(said)


@pytest.mark.parametrize(
    ("patch", "padded"), [((40, 40, 38), (40, 40, 40)), ((3, 18, 16), (4, 20, 16))]
)
def test_a_patch_that_does_not_divide_is_padded(
    preprocessed: Path, patch: tuple[int, ...], padded: tuple[int, ...]
) -> None:
    """6: plans keep the patch, the network pads it, and nnU-Net's contract holds."""
    export = export_nnunet(spec(), 901, patch_size=patch)
    assert settings(export)["patch_size"] == list(patch)
    told = [note for note in export.notes if "padded to" in note]
    assert len(told) == 1 and f"{list(patch)}, padded to {list(padded)} inside" in told[0]
    more = math.prod(padded) / math.prod(patch)
    assert ("`stages_from_dataset`" in told[0]) is (more >= 1.5)


def test_exact_names_the_axis_and_what_would_fit(refused_export: Refuse) -> None:
    """6: what nnU-Net planned does not suit the network; a patch that does is named."""
    message = refused_export(spec(strides=(3, 2)), patch_size="exact")
    assert "16 voxels along D must divide by 6" in message
    nearest = "nearest: `patch_size` 12,12,12 or `patch_size` 18,18,18"
    assert message.endswith(f"{nearest}, or strides that fit: `stages_from_dataset`")


def test_heads_whose_grid_does_not_divide_are_left_out(preprocessed: Path) -> None:
    deep = spec(strides=(1, 2, 2), deep_supervision={"heads": 2})
    export = export_nnunet(deep, 901, patch_size=(16, 16, 17))
    assert any("1 of 2 heads left out" in note for note in export.notes)
    kwargs = settings(export)["architecture"]["arch_kwargs"]
    assert len(kwargs["strides"]) == 3, "as for one head"


def test_refusals_that_are_not_about_division(refused_export: Refuse) -> None:
    wrong = spec(decoder={"kind": "sum", "head": "conv"})
    assert refused_export(wrong).startswith("decoder.head: 'conv' needs")
    assert refused_export(spec(), batch_size=0) == "batch_size: must be at least 1, but is 0"


def needed(batch: int, patch: tuple[int, ...] = (16, 16, 16), **fields: Any) -> int:
    planned = plan(spec(**fields), in_channels=1, num_classes=3, patch_size=patch)
    return training_memory(planned, batch=batch, amp=True).total


def test_memory_that_is_enough(preprocessed: Path) -> None:
    export = export_nnunet(spec(), 901, fit_memory="24GB")
    assert settings(export)["batch_size"] == 2 and settings(export)["patch_size"] == [16] * 3
    assert starting(export, "`fit_memory`").startswith("`fit_memory`: nothing changed; training")


def test_batch_is_made_smaller_first(preprocessed: Path) -> None:
    available = needed(5) + 1
    export = export_nnunet(spec(), 901, batch_size=8, fit_memory=f"{available / 1e6:.6f}MB")
    assert settings(export)["batch_size"] == 5 and settings(export)["patch_size"] == [16] * 3
    note = starting(export, "`fit_memory`")
    gib = f"{available / 2**30:.2f}"
    assert note == (
        f"`fit_memory`: batch_size 8 -> 5; training under AMP needs about {gib} GiB of {gib}"
    )


def test_then_the_patch_but_never_below_a_batch_of_two(preprocessed: Path) -> None:
    available = needed(2) - 1
    export = export_nnunet(spec(), 901, batch_size=4, fit_memory=f"{available / 1e6:.6f}MB")
    found = settings(export)
    assert found["batch_size"] == 2
    patch = found["patch_size"]
    assert patch == found["architecture"]["arch_kwargs"]["patch_size"] == [12, 12, 12]
    assert needed(2, tuple(patch)) <= available
    said = "`fit_memory`: batch_size 4 -> 2, patch_size [16, 16, 16] -> [12, 12, 12]; training"
    assert starting(export, "`fit_memory`").startswith(said)


def test_a_batch_of_one_that_was_asked_for_stays(preprocessed: Path) -> None:
    available = needed(1) - 1
    export = export_nnunet(spec(), 901, batch_size=1, fit_memory=f"{available / 1e6:.6f}MB")
    assert settings(export)["batch_size"] == 1
    assert settings(export)["patch_size"] == [12, 12, 12]


def test_recipe_decides_the_optimizer(preprocessed: Path) -> None:
    """AdamW keeps two tensors for every parameter, nnU-Net's SGD one."""
    with_sgd = needed(2, training={"optimizer": "sgd"})
    assert with_sgd < needed(2)
    size = f"{(with_sgd + 1) / 1e6:.6f}MB"
    ours = export_nnunet(spec(), 901, fit_memory=size)
    stock = export_nnunet(spec(), 901, fit_memory=size, recipe="nnunet", plans_name="stock")
    assert settings(ours)["patch_size"] != [16] * 3 == settings(stock)["patch_size"]
    inlined = settings(stock)["architecture"]["arch_kwargs"]["spec"]
    assert inlined["training"]["optimizer"] == "adamw"


def test_nothing_fits(refused_export: Refuse) -> None:
    message = refused_export(spec(), batch_size=8, fit_memory="0.01MB")
    assert message.startswith("fit_memory: sizes, batch 2, AMP: about")
    assert message.endswith("nothing smaller fits; the batch is not made smaller than 2")


@pytest.mark.parametrize("text", ["24", "lots", "-1GB", "0GB"])
def test_memory_malformed(refused_export: Refuse, text: str) -> None:
    assert refused_export(spec(), fit_memory=text).startswith(f"fit_memory={text!r}: must be")
    with pytest.raises(SpecError, match="gpu_memory="):
        memory_size(text)


def test_two_axes(preprocessed: Path) -> None:
    export = export_nnunet(spec(ndim=2), 901, patch_size=(8, 12), fit_memory="1GB")
    assert settings(export)["patch_size"] == [8, 12]
