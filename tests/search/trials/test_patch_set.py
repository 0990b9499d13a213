"""A patch set stands in for nnU-Net: its patches, loss and scores, where nnU-Net is hidden."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor, nn

import archspec
from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.study.run import open_run
from search.trials.batches import Loading, load_batches
from search.trials.host import TrainingHost
from search.trials.patch_set import PatchSet, pack

SHARE, SEED = 0.25, 3
STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
SCRIPT = Path(__file__).parents[3] / "benchmarks" / "pack_patches.py"

HIDE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ImportError(f"{name} is hidden by the test")

HIDDEN = set("nnunetv2 batchgenerators batchgeneratorsv2 SimpleITK blosc2 acvl_utils".split())
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def dataset(dataset_environment: dict[str, str]) -> PreprocessedDataset:
    return find_dataset("902")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed")


@pytest.fixture
def patches(
    packed: Path, dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
) -> PreprocessedDataset:
    """Return the packed dataset; all tests read one."""
    if not (packed / dataset.name).exists():
        host = TrainingHost(seed=SEED)
        pack(dataset, packed, num_patches=7, batch_size=2, test_share=SHARE, host=host)
    monkeypatch.setenv("nnUNet_preprocessed", str(packed))
    return find_dataset("902")


@pytest.fixture
def stored(patches: PreprocessedDataset, held_out: tuple[str, ...]) -> PatchSet:
    return PatchSet(patches, fold=0, batch_size=2, held_out=held_out)


@pytest.fixture
def held_out(dataset: PreprocessedDataset) -> tuple[str, ...]:
    from archspec.nnunet.splits import split_cases

    return split_cases(dataset, fold=0, test_share=SHARE, seed=SEED).test


@pytest.fixture
def nnunet(dataset: PreprocessedDataset, held_out: tuple[str, ...]) -> Any:
    from search.trials.nnunet_data import TrialData

    return TrialData(dataset, fold=0, batch_size=2, held_out=held_out)


def test_patches_are_those_of_nnunet_s_loader(stored: PatchSet, nnunet: Any) -> None:
    """Loaded ahead by processes they are the same: nnU-Net's loader keeps nothing in between."""
    steps = range(4)
    for loading in (Loading(), Loading(2, timeout=120)):
        source = nnunet.batches(STRIDES, deep_supervision=False)
        drawn = list(load_batches(source, steps, seed=SEED, loading=loading))
        images = torch.cat([images for images, _ in drawn])
        targets = torch.cat([target for _, target in drawn if isinstance(target, Tensor)])
        assert len(images) == 8, "whole batches"
        assert np.array_equal(stored._stored["images"], images.numpy().astype(np.float16))
        assert np.array_equal(stored._stored["targets"], targets.numpy())
        assert len({image.numpy().tobytes() for image in images}) == 8


def test_trials_draw_stored_patches(stored: PatchSet) -> None:
    batches = stored.batches(STRIDES, deep_supervision=False)
    first, again = (next(load_batches(batches, range(1), seed=0, loading=Loading())) for _ in "12")
    assert torch.equal(first[0], again[0])
    assert isinstance(first[1], Tensor) and first[1].dtype == torch.int16
    pairs = list(zip(stored._stored["images"], stored._stored["targets"], strict=True))
    for image, target in zip(*first, strict=True):
        assert any(
            np.array_equal(image.numpy(), i) and np.array_equal(target.numpy(), t) for i, t in pairs
        )


def test_targets_of_coarse_outputs_are_nnunet_s(stored: PatchSet) -> None:
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
        DownsampleSegForDSTransform,
    )

    _, targets = next(stored.batches(STRIDES, deep_supervision=True))
    assert isinstance(targets, list) and len(targets) == 3
    transform = DownsampleSegForDSTransform([[1, 1, 1], [0.5] * 3, [0.25] * 3])
    for index, full in enumerate(targets[0]):
        expected = transform._apply_to_segmentation(full)
        assert all(torch.equal(t[index], e) for t, e in zip(targets, expected, strict=True))


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("kind", ["dice_ce", "dice", "ce"])
def test_the_loss_has_the_gradient_of_nnunet_s(
    stored: PatchSet, nnunet: Any, kind: str, deep_supervision: bool
) -> None:
    _, target = next(stored.batches(STRIDES, deep_supervision=deep_supervision))
    classes = len(nnunet.labels.all_labels)
    shapes = [t.shape for t in (target if isinstance(target, list) else [target])]
    torch.manual_seed(0)
    logits = [torch.randn(s[0], classes, *s[2:], requires_grad=True) for s in shapes]
    gradients = []
    for data in (stored, nnunet):
        loss = data.loss(STRIDES, deep_supervision=deep_supervision, kind=kind)
        value = loss(logits if deep_supervision else logits[0], target)
        gradients.append(torch.autograd.grad(value, logits, allow_unused=True))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None or not theirs.any()), "no weight for the coarsest"
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-8)


def test_scores_are_nnunet_s(stored: PatchSet, nnunet: Any, patches: PreprocessedDataset) -> None:
    """In windows smaller than the cases, so that they overlap."""
    half = [size // 2 for size in patches.patch_size]
    tree = {
        "name": "tiny",
        "patch_size": half,
        "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}]},
        "decoder": {"kind": "sum"},
    }
    torch.manual_seed(0)
    net = archspec.build(tree, in_channels=1, num_classes=patches.num_classes, patch_size=half)
    stored._dataset = replace(patches, settings={**patches.settings, "patch_size": half})
    nnunet.configuration.configuration["patch_size"] = half
    device = torch.device("cpu")
    assert stored.test_cases == nnunet.test_cases and stored.test_cases
    ours = stored.score_cases(net, device, stored.test_cases)
    theirs = nnunet.score_cases(net, device, nnunet.test_cases)
    assert list(ours) == list(theirs)
    for data in (stored, nnunet):
        one = next(iter(data.predicted(net, device, data.test_cases)))
        assert one.image.shape[1:] == one.reference.shape == one.prediction.shape
        assert data.scores_of(one) == pytest.approx(ours[one.case], abs=2e-3, nan_ok=True)
    for case, scores in theirs.items():
        assert ours[case] == pytest.approx(scores, abs=2e-3, nan_ok=True)
    assert stored.score(net, device) == pytest.approx(nnunet.score(net, device), abs=2e-3)


def test_other_cases_than_the_packed_ones_are_refused(
    patches: PreprocessedDataset, held_out: tuple[str, ...]
) -> None:
    with pytest.raises(SpecError, match="packed with fold 0, but asked for 1"):
        PatchSet(patches, fold=1, batch_size=2, held_out=held_out)
    with pytest.raises(SpecError, match=r"packed with test \['case_"):
        PatchSet(patches, fold=0, batch_size=2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "regions and ignored labels"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, "regions and ignored labels"),
        ({"patch_size": [32, 32]}, "only 3-D"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    dataset: PreprocessedDataset, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    if "labels" in change:
        dataset = replace(dataset, dataset_json={**dataset.dataset_json, **change})
    else:
        dataset = replace(dataset, settings={**dataset.settings, **change})
    with pytest.raises(SpecError, match=why):
        pack(dataset, tmp_path, num_patches=2, batch_size=2)
    assert not list(tmp_path.iterdir())


def test_a_search_runs_on_it_without_nnunet(
    dataset: PreprocessedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command as elsewhere, in a Python in which nnU-Net cannot be imported."""
    space = {
        "name": "tiny",
        "patch_size": list(dataset.patch_size),
        "encoder": {
            "defaults": {"mixer": {"kind": "conv"}, "downsample": {"stride": 4, "kernel_size": 5}},
            "stages": [{"width": {"choice": [2, 3, 4]}}, {"width": 4}],
        },
        "decoder": {"kind": "sum"},
        "search": {"steps": 4, "rungs": 2, "eta": 2, "test_share": SHARE},
    }
    (tmp_path / "space.yaml").write_text(dump(space), encoding="utf-8")
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    line = [str(SCRIPT), "902", str(tmp_path / "packed"), "--space", str(tmp_path / "space.yaml")]
    monkeypatch.setattr(sys, "argv", [*line, "--patches", "6"])
    main: Callable[[], int] = runpy.run_path(str(SCRIPT))["main"]
    assert main() == 0
    assert main() == 2, "nothing is overwritten"

    environment = {
        **os.environ,
        "nnUNet_preprocessed": str(tmp_path / "packed"),
        "PYTHONPATH": str(tmp_path / "hide"),
    }
    line = [sys.executable, "-m", "archspec", "search", str(tmp_path / "space.yaml")]
    line += ["--data", "902", "--trials", "2", "--device", "cpu", "--out", str(tmp_path / "run")]
    line += ["--confirm-seeds", "0"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    study, _ = open_run(tmp_path / "run")
    trained = [t for t in study.trials if "started" in t.user_attrs]
    assert [t.state for t in trained] == [TrialState.COMPLETE] * 2
    assert all(len(t.user_attrs["rungs"]) == 2 for t in trained)
    assert " % busy" in done.stdout
    hidden = [sys.executable, "-c", "import nnunetv2"]
    assert subprocess.run(hidden, env=environment, capture_output=True).returncode == 1


def test_a_loss_needs_the_parts_that_its_recipe_names(stored: PatchSet) -> None:
    _, target = next(stored.batches(STRIDES, deep_supervision=False))
    assert isinstance(target, Tensor)
    right = 40.0 * nn.functional.one_hot(target[:, 0].long()).movedim(-1, 1)
    for kind in ("dice_ce", "dice", "ce"):
        loss = stored.loss(STRIDES, deep_supervision=False, kind=kind)
        assert float(loss(right, target)) == pytest.approx(0, abs=1e-3)
        assert float(loss(-right, target)) > 0.5
