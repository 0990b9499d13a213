"""What `archspec evaluate` refuses, in one line that names the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., None]
Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]

MISTAKES: dict[str, tuple[Callable[[Path, Any], object], tuple[object, ...], tuple[str, ...]]] = {
    "missing": (
        lambda *_: None,
        ("few", "labels"),
        ("few/case_04.nii.gz", "--partial", "16 of 20"),
    ),
    "no reference": (
        lambda root, _: (root / "labels" / "case_05.nii.gz").unlink(),
        ("a", "labels"),
        ("labels/case_05.nii.gz", "no reference"),
    ),
    "no masks": (lambda root, _: (root / "none").mkdir(), ("none", "labels"), ("none", ".nii.gz")),
    "no folder": (lambda *_: None, ("nowhere", "labels"), ("nowhere: no such folder",)),
    "other cases": (
        lambda *_: None,
        ("a", "labels", "--against", "few"),
        ("few/case_04.nii.gz", "same cases"),
    ),
    "itself": (lambda *_: None, ("a", "labels", "--against", "labels/../a"), ("--against",)),
    "unknown label": (
        lambda root, write: write(
            root / "a" / "case_03.nii.gz", np.full((40, 40, 16), 7, np.uint8)
        ),
        ("a", "labels"),
        ("a/case_03.nii.gz", "label 7", "0, 1, 2"),
    ),
    "probabilities": (
        lambda root, write: write(
            root / "a" / "case_03.nii.gz", np.full((40, 40, 16), 0.5, np.float32)
        ),
        ("a", "labels"),
        ("a/case_03.nii.gz", "integers", "0.5"),
    ),
    "negative": (
        lambda root, write: write(
            root / "a" / "case_03.nii.gz", np.full((40, 40, 16), -1, np.int16)
        ),
        ("a", "labels"),
        ("a/case_03.nii.gz", "-1"),
    ),
    "shape": (
        lambda root, write: write(root / "a" / "case_03.nii.gz", np.zeros((40, 40, 15), np.uint8)),
        ("a", "labels"),
        ("a/case_03.nii.gz", "(40, 40, 15)", "(40, 40, 16)"),
    ),
    "spacing": (
        lambda root, write: write(
            root / "a" / "case_03.nii.gz", np.zeros((40, 40, 16), np.uint8), np.eye(4)
        ),
        ("a", "labels"),
        ("a/case_03.nii.gz", "mm"),
    ),
    "broken": (
        lambda root, _: (root / "a" / "case_03.nii.gz").write_bytes(b"no image"),
        ("a", "labels"),
        ("a/case_03.nii.gz", "cannot be read"),
    ),
    "time series": (
        lambda root, write: write(root / "a" / "case_03.nii.gz", np.zeros((4, 4, 4, 2), np.uint8)),
        ("a", "labels"),
        ("a/case_03.nii.gz", "axes"),
    ),
    "no labels": (
        lambda root, _: (root / "dataset.json").write_text("{}"),
        ("a", "labels"),
        ("dataset.json", "labels"),
    ),
    "old labels": (
        lambda root, _: (root / "dataset.json").write_text('{"labels": {"1": "organ"}}'),
        ("a", "labels"),
        ("dataset.json", "labels"),
    ),
    "not JSON": (
        lambda root, _: (root / "dataset.json").write_text("{"),
        ("a", "labels"),
        ("dataset.json", "JSON"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(refused: Refused, masks: Any, dataset: Path, mistake: str) -> None:
    spoil, arguments, words = MISTAKES[mistake]
    spoil(dataset, masks.write)
    before = sorted(dataset.rglob("*"))
    refused(arguments, *words)
    assert sorted(dataset.rglob("*")) == before


def test_ignored_voxels_belong_to_references_only(
    cli: Cli, refused: Refused, masks: Any, dataset: Path, rewrite: Rewrite
) -> None:
    labels = {"background": 0, "organ": 1, "ignore": 2}
    rewrite(dataset / "dataset.json", lambda tree: tree.update(labels=labels, archspec={}))
    refused(("a", "labels"), "a/case_00.nii.gz", "label 2", "(0, 1)")
    for path in dataset.glob("a/*.nii.gz"):
        masks.write(path, np.minimum(masks.read(path), 1))
    assert cli("a", "labels")[0] == 0


def test_rounding_of_a_header_is_no_mistake(
    cli: Cli, refused: Refused, masks: Any, dataset: Path
) -> None:
    """Other tools store origins in float32; a hundredth of a voxel is nothing."""
    path = dataset / "few" / "case_00.nii.gz"
    affine = np.diag([*masks.spacing, 1.0])
    affine[:3, 3] = 0.005
    masks.write(path, masks.read(path), affine)
    assert cli("few", "labels", "--partial")[0] == 0
    affine[:3, 3] = 0.5
    masks.write(path, masks.read(path), affine)
    refused(("few", "labels", "--partial"), "few/case_00.nii.gz", "0.5 mm")
