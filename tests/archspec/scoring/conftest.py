"""Small folders of masks for the tests of `evaluate`: references, and several predictions."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

SPACING = (0.8, 0.8, 2.5)
SHAPE = (40, 40, 16)
LABELS = {"background": 0, "organ": 1, "lesion": 2}

Labels = NDArray[np.uint8]


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    """Return the voxels within a radius in mm of a centre in voxels, at `SPACING`."""
    places = np.indices(shape).reshape(len(shape), -1).T
    apart = (places - np.array(centre)) * np.array(SPACING[: len(shape)])
    mask: NDArray[np.bool_] = ((apart**2).sum(axis=1) <= radius**2).reshape(shape)
    return mask


def structures(rng: np.random.Generator, *, lesion: bool) -> dict[int, tuple[Any, float]]:
    """Return centre (voxels) and radius (mm) per label."""
    radii = {1: rng.uniform(8, 12), 2: rng.uniform(2.5, 5)}
    found = {k: (np.array([20.0, 20.0, 8.0]) + rng.uniform(-1, 1, 3), r) for k, r in radii.items()}
    return found if lesion else {1: found[1]}


def drawn(found: Mapping[int, tuple[Any, float]], rng: np.random.Generator, error: float) -> Labels:
    """Return label maps with each structure moved and resized by about an error in mm."""
    labels = np.zeros(SHAPE, np.uint8)
    for value, (centre, radius) in found.items():
        moved = centre + error * rng.normal(size=3) / SPACING
        labels[ball(SHAPE, tuple(moved), radius + error * rng.normal() / 2)] = value
    return labels


def write(path: Path, labels: NDArray[Any], affine: NDArray[Any] | None = None) -> None:
    """Save a NIfTI file at `SPACING`, or with an affine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = np.diag([*SPACING, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(labels, placed), path)


def write_dataset(
    root: Path, num_cases: int, *, errors: Mapping[str, float], seed: int = 0, **keys: Any
) -> None:
    """Write `labels`, a folder of predictions per entry of `errors` (mm), and dataset.json."""
    for index in range(num_cases):
        name = f"case_{index:02d}.nii.gz"
        rng = np.random.default_rng([seed, index])
        found = structures(rng, lesion=index % 7 != 3)
        write(root / "labels" / name, drawn(found, rng, 0.0))
        for folder, error in errors.items():
            write(root / folder / name, drawn(found, rng, error))
    description = {"labels": LABELS, "file_ending": ".nii.gz", **keys}
    (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def read(path: Path) -> Labels:
    """Return the labels of a NIfTI file."""
    return np.array(nibabel.load(path).dataobj)


@pytest.fixture(scope="session")
def masks() -> SimpleNamespace:
    """Return the functions of this file, which a test module cannot import."""
    return SimpleNamespace(
        spacing=SPACING, ball=ball, write=write, read=read, dataset=write_dataset
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return twenty cases, predicted with small and larger errors, and four of them alone."""
    root = tmp_path_factory.mktemp("made")
    groups = {"groups": {"either": ["organ", "lesion"]}}
    write_dataset(root, 20, errors={"a": 0.6, "b": 0.8}, archspec=groups)
    (root / "few").mkdir()
    for index in range(4):
        name = f"case_{index:02d}.nii.gz"
        shutil.copy(root / "a" / name, root / "few" / name)
    return root


@pytest.fixture
def dataset(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy that a test may change, which is the working folder."""
    root = tmp_path / "data"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def cli(cli: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `archspec evaluate` here: (exit code, stdout, stderr)."""
    return partial(cli, "evaluate")
