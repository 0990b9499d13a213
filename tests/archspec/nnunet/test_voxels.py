"""Voxels that no network can use are said of their case, at its first read or by `doctor`."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from archspec.nnunet.examine import examine
from archspec.nnunet.voxels import CaseError, CheckedCases, FirstReads, faults

Save = Callable[..., None]
Cli = Callable[..., tuple[int, str, str]]

GRID = (6, 20, 20)


def case(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Return an image and labels 0 to 2 in its middle, -1 at its border."""
    rng = np.random.default_rng(seed)
    labels = np.full((1, *GRID), -1, np.int16)
    labels[0, 1:-1, 5:15, 5:15] = rng.integers(0, 3, (4, 10, 10))
    return rng.normal(size=(1, *GRID)).astype(np.float32), labels


@pytest.fixture
def dataset(preprocessed: Path) -> PreprocessedDataset:
    return find_dataset(901)


@pytest.fixture
def save(preprocessed: Path) -> Save:
    """Return a function that saves a case as nnU-Net does."""
    cases = pytest.importorskip("nnunetv2.training.dataloading.nnunet_dataset").nnUNetDatasetBlosc2
    sizes = {"chunks": (1, *GRID), "blocks": (1, *GRID)}

    def write(name: str, image: NDArray[Any], labels: NDArray[Any]) -> None:
        path = preprocessed / "nnUNetPlans_3d_fullres" / name
        for old in path.parent.glob(f"{name}*.b2nd"):  # Blosc2 writes over none
            old.unlink()
        cases.save_case(image, labels, {}, str(path), **sizes)

    return write


def at(value: float, *where: int) -> Callable[[Any, Any], Any]:
    """Return an edit that puts a value into the image; without a place, into all of it."""

    def edit(image: NDArray[Any], labels: NDArray[Any]) -> Any:
        image[where] = value
        return image, labels

    return edit


def labelled(value: float, kind: Any = np.int16) -> Callable[[Any, Any], Any]:
    def edit(image: NDArray[Any], labels: NDArray[Any]) -> Any:
        labels = labels.astype(kind)
        labels[0, 2, 3, :4] = value
        return image, labels

    return edit


EDITS: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "nothing": (lambda image, labels: (image, labels), []),
    "NaN": (at(np.nan, 0, 0, 0, 0), ["image holds NaN in 1 voxel"]),
    "inf": (at(np.inf, 0, 5, 19, slice(3)), ["image holds infinite values in 3 voxels"]),
    "-inf": (at(-np.inf, 0, 1), ["image holds infinite values in 400 voxels"]),
    "all NaN": (at(np.nan), ["image holds NaN in 2,400 voxels"]),
    "large": (at(3e38), []),
    "both infinities": (
        lambda image, labels: at(-np.inf, 0, 0, 0, 0)(*at(np.inf, 0, 0, 0, 1)(image, labels)),
        ["image holds infinite values in 2 voxels"],
    ),
    "halves": (lambda image, labels: (at(6e4)(image, labels)[0].astype(np.float16), labels), []),
    "whole numbers": (lambda image, labels: (image.astype(np.int16), labels), []),
    "float labels": (labelled(2, np.float32), []),
    "label 3": (labelled(3), ["labels hold 3 in 4 voxels, which dataset.json does not name"]),
    "label -2": (labelled(-2), ["labels hold -2 in 4 voxels, which dataset.json does not name"]),
    "label 1.5": (labelled(1.5, np.float32), ["labels hold 1.5 in 4 voxels, which"]),
    "label NaN": (labelled(np.nan, np.float32), ["labels hold nan in 4 voxels, which"]),
    "two channels": (
        lambda image, labels: (np.concatenate([image, image]), labels),
        ["image has 2 channels, dataset.json names 1"],
    ),
    "other grid": (
        lambda image, labels: (image[:, :-1], labels),
        ["image is of (5, 20, 20) voxels, its labels of (6, 20, 20)"],
    ),
}


@pytest.mark.parametrize("kind", EDITS)
def test_faults(dataset: PreprocessedDataset, kind: str) -> None:
    edit, wanted = EDITS[kind]
    found = faults(dataset, *edit(*case()))
    assert len(found) == len(wanted)
    assert all(one.startswith(said) for one, said in zip(found, wanted, strict=True)), found


def test_channels_and_labels_are_the_dataset_s(dataset: PreprocessedDataset) -> None:
    image, labels = case()
    labels[0, 2, 3, 3] = 4
    names = {"background": 0, "whole": [1, 2], "b": 2, "ignore": 3}
    description = {"channel_names": {"0": "CT", "1": "PET"}, "labels": names}
    found = faults(
        replace(dataset, dataset_json=description),
        np.concatenate([image, at(np.nan)(image, 0)[0]]),
        labels,
    )
    assert found == [
        "image holds NaN in 2,400 voxels of channel 0",
        "image holds NaN in 2,400 voxels of channel 1",
        "labels hold 4 in 1 voxel, which dataset.json does not name",
    ]
    labels[0, 2, 3, 3] = 3
    assert not faults(
        replace(dataset, dataset_json=description), np.stack([case()[0][0]] * 2), labels
    )


class Counted:
    """Cases that count how often one is looked at whole."""

    def __init__(self, bad: str = "") -> None:
        self.identifiers = ["a", "b"]
        self.bad, self.looks = bad, 0

    def load_case(self, identifier: str) -> Any:
        image, labels = case()
        if identifier == self.bad:
            image[0, 0, 0, 0] = np.nan
        return image, Lazy(labels, self), None, {}


class Lazy:
    """Labels that say when they are read."""

    def __init__(self, labels: Any, cases: Counted) -> None:
        self.labels, self.shape, self.cases = labels, labels.shape, cases

    def __getitem__(self, key: Any) -> Any:
        self.cases.looks += 1
        return self.labels[key]


def test_each_case_is_looked_at_once(dataset: PreprocessedDataset) -> None:
    """Whoever reads it, and also where a process was forked off before."""
    cases = Counted()
    reads = FirstReads(dataset, cases.identifiers)
    for _ in range(2):
        for name in ("a", "a"):
            CheckedCases(cases, reads).load_case(name)
    assert cases.looks == 1
    child = os.fork()
    if child == 0:
        CheckedCases(cases, reads).load_case("b")
        os._exit(0 if cases.looks == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    CheckedCases(cases, reads).load_case("b")
    assert cases.looks == 1, "the other process has looked at it"


def test_a_bad_case_is_refused_at_every_read(dataset: PreprocessedDataset) -> None:
    cases = CheckedCases(Counted(bad="b"), FirstReads(dataset, ["a", "b"]))
    for _ in range(2):
        with pytest.raises(CaseError, match=r"^case b: image holds NaN in 1 voxel; mend .* -d 901"):
            cases.load_case("b")
    cases.load_case("a")


def test_overfit_names_the_case(save: Save, tiny: Path, refused: Callable[..., str]) -> None:
    """Also where the patch does not hold the NaN."""
    image, labels = case()
    image[0, 0, 0, 0] = np.nan
    save("case_7", image, labels)
    command = ("overfit", tiny, "--data", "901", "--patch", "4,8,8", "--steps", "1")
    for chosen in ((), ("--case", "case_7")):
        refused((*command, *chosen), "archspec: case case_7: image holds NaN in 1 voxel; mend")


@pytest.fixture
def examined(save: Save, preprocessed: Path, cli: Cli) -> Callable[..., tuple[int, str, str]]:
    """Return a function that saves cases a to f, with these instead, and runs doctor on them."""

    def run(*options: object, **instead: Any) -> tuple[int, str, str]:
        for seed, name in enumerate("abcdef"):
            save(name, *instead.get(name, case(seed)))
        return cli("doctor", "--data", "901", *options)

    return run


def test_doctor_reads_a_clean_dataset(examined: Callable[..., Any]) -> None:
    code, out, err = examined()
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "Dataset901_Blobs, 3d_fullres: 6 cases read",
        "all finite, all labels known, no copies across training and validation",
    ]


def test_doctor_names_every_bad_case(examined: Callable[..., Any]) -> None:
    image, labels = case(9)
    image[0, 0, 0, :2] = np.nan, np.inf
    nothing = (case(8)[0], np.zeros_like(labels))
    code, out, _ = examined(b=(image, labels), d=labelled(7)(*case(3)), e=nothing)
    assert code == 2
    assert out.splitlines()[1:] == [
        "case b: image holds NaN in 1 voxel",
        "case b: image holds infinite values in 1 voxel",
        "case d: labels hold 7 in 4 voxels, which dataset.json does not name",
        "note: no foreground in e",
    ]
    code, out, _ = examined("--json", b=(image, labels))
    assert code == 2 and list(json.loads(out)["faults"]) == ["b"]


@pytest.mark.parametrize("folds", [None, [{"train": list("abcd"), "val": ["e", "f"]}]])
def test_doctor_finds_copies_across_training_and_validation(
    examined: Callable[..., Any], preprocessed: Path, folds: Any
) -> None:
    if folds is not None:
        (preprocessed / "splits_final.json").write_text(json.dumps(folds))
    twin = (case(0)[0], case(5)[1])
    code, out, _ = examined(f=twin)
    assert code == 1
    (line,) = out.splitlines()[1:]
    assert line.startswith("cases a, f have equal images, but in fold ")
    parted = json.loads(examined("--json", f=twin)[1])["copies"][0]["folds"]
    numbers = ", ".join(map(str, parted))
    assert f"in fold {numbers} one of them trains and another validates" in line
    assert parted == [0] if folds else len(parted) == 2, "each validates in a fold of its own"


def test_copies_in_one_part_are_no_trouble(
    examined: Callable[..., Any], preprocessed: Path, dataset: PreprocessedDataset
) -> None:
    folds = [{"train": list("abcd"), "val": ["e", "f"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(folds))
    assert examined(b=case(0))[0] == 0
    assert not examine(dataset).copies


def test_doctor_says_what_cannot_be_opened(
    examined: Callable[..., Any], preprocessed: Path, refused: Callable[..., str]
) -> None:
    assert examined()[0] == 0
    (preprocessed / "nnUNetPlans_3d_fullres" / "c.pkl").unlink()
    refused(("doctor", "--data", "901"), "c.pkl: is missing; preprocess again")
    refused(("doctor", "--data", "901", "--configuration", "2d"), "holds no preprocessed cases")
    refused(("doctor", "--data", "902"), "902 is not in")
