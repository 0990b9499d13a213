"""Data that no training would survive are refused before one starts, by name."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archspec.nnunet.check_data import check_data, check_files, listed
from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from blocks.base import SpecError

CASES = [f"case_{number}" for number in range(6)]
AGAIN = "nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 3d_fullres"

Damage = Callable[[Path], object]


@pytest.fixture
def folder(preprocessed: Path, hollow_case: Callable[[Path], None]) -> Path:
    """Return the folder of six cases that look whole."""
    data = preprocessed / "nnUNetPlans_3d_fullres"
    for case in CASES:
        hollow_case(data / case)
    return data


@pytest.fixture
def dataset(folder: Path) -> PreprocessedDataset:
    return find_dataset(901)


@pytest.fixture
def split(folder: Path) -> Callable[[Any], None]:
    """Return a function that writes the file of the folds."""

    def write(folds: Any) -> None:
        text = folds if isinstance(folds, str) else json.dumps(folds)
        (folder.parent / "splits_final.json").write_text(text, encoding="utf-8")

    return write


def lines(dataset: PreprocessedDataset, **options: Any) -> list[str]:
    """Return what is wrong, a line for each."""
    with pytest.raises(SpecError) as caught:
        check_data(dataset, **options)
    return str(caught.value).splitlines()


def with_locations(path: Path, locations: Any) -> None:
    path.write_bytes(pickle.dumps({"class_locations": locations}))


def test_whole_data_pass(dataset: PreprocessedDataset, split: Callable[[Any], None]) -> None:
    for fold in (None, 0, 4):
        check_data(dataset, fold=fold)
    split([{"train": CASES[:4], "val": CASES[4:]}, {"train": CASES[2:], "val": CASES[:2]}])
    for fold in (None, 0, 1, -1):
        check_data(dataset, fold=fold)


FOLDS: dict[str, tuple[Any, list[str]]] = {
    "gone from train": (
        [{"train": [*CASES[:3], "gone_1"], "val": CASES[3:]}],
        ["names gone_1, not among the 6 preprocessed cases of 3d_fullres; take out what is gone"],
    ),
    "gone from val": ([{"train": CASES[:3], "val": ["gone_2"]}], ["names gone_2, not among"]),
    "many gone": (
        [{"train": ["d", "b", "c", "a", "e"], "val": CASES[3:]}],
        ["names a, b, c and 2 more, not among the 6 "],
    ),
    "trains and validates": (
        [{"train": CASES[:4], "val": CASES[3:]}],
        ["fold 0 both trains and validates on case_3; "],
    ),
    "no train": ([{"train": [], "val": CASES}], ["fold 0 has no case in 'train'"]),
    "no val": ([{"train": CASES, "val": []}], ["fold 0 has no case in 'val'"]),
    "twice in train": (
        [{"train": [*CASES[:3], "case_1"], "val": CASES[3:]}],
        ["fold 0 names case_1 more than once in 'train'"],
    ),
    "twice in val": (
        [{"train": CASES[:3], "val": ["case_4", "case_4"]}],
        ["fold 0 names case_4 more than once in 'val'"],
    ),
    "several": (
        [{"train": ["case_0", "gone"], "val": ["case_0"]}],
        ["names gone, not", "fold 0 both trains and validates on case_0"],
    ),
    "no list": ({"train": CASES, "val": []}, ["must be a list of folds"]),
    "no folds": ([], ["must be a list of folds, and hold one"]),
    "no val key": ([{"train": CASES}], ["fold 0 needs a list of cases in 'val'"]),
    "numbers": ([{"train": [0, 1], "val": [2]}], ["fold 0 needs a list of cases in 'train'"]),
    "a name": ([{"train": "case_0", "val": ["case_1"]}], ["fold 0 needs a list of cases in 'tr"]),
    "no fold": ([CASES], ["fold 0 needs a list of cases in 'train'"]),
    "no JSON": ("[{", ["cannot be read as JSON"]),
    "empty": ("", ["cannot be read as JSON"]),
}


@pytest.mark.parametrize("kind", FOLDS)
@pytest.mark.parametrize("fold", [0, None])
def test_folds(
    dataset: PreprocessedDataset, split: Callable[[Any], None], kind: str, fold: int | None
) -> None:
    folds, wanted = FOLDS[kind]
    split(folds)
    found = lines(dataset, fold=fold)
    for said, line in zip(wanted, found, strict=True):
        assert line.startswith(f"{dataset.folder / 'splits_final.json'}: {said}")
        assert ("names gone" not in line) or line.endswith(f"or run {AGAIN}")


def test_only_the_fold_that_is_asked_for_counts(
    dataset: PreprocessedDataset, split: Callable[[Any], None], folder: Path
) -> None:
    split([{"train": CASES[:2], "val": ["case_2"]}, {"train": ["gone"], "val": ["case_5"]}])
    (folder / "case_5.pkl").unlink()
    check_data(dataset, fold=0)
    assert len(lines(dataset, fold=1)) == len(lines(dataset)) == 2
    for fold in (2, -3):
        (line,) = lines(dataset, fold=fold)
        assert line.endswith("Dataset901_Blobs has folds 0 to 1") and str(fold) in line


def test_too_few_cases_for_nnunet_to_split(dataset: PreprocessedDataset, folder: Path) -> None:
    assert lines(dataset, fold=5) == ["fold=5: Dataset901_Blobs has folds 0 to 4"]
    for path in [path for path in folder.iterdir() if path.name[5] in "01"]:
        path.unlink()
    assert "4 cases, but a split into 5 folds needs 5" in lines(dataset, fold=0)[0]
    check_data(dataset)  # a training of all cases needs no split


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


FILES: dict[str, tuple[Damage, list[tuple[str, str]]]] = {
    "no properties": (lambda d: (d / "case_2.pkl").unlink(), [("case_2.pkl", "is missing")]),
    "no image": (lambda d: (d / "case_2.b2nd").unlink(), [("case_2.b2nd", "is missing")]),
    "no labels": (lambda d: (d / "case_2_seg.b2nd").unlink(), [("case_2_seg.b2nd", "is missing")]),
    "properties alone": (
        lambda d: [(d / f"case_2{part}.b2nd").unlink() for part in ("", "_seg")],
        [("case_2.b2nd", "is missing"), ("case_2_seg.b2nd", "is missing")],
    ),
    "empty image": (lambda d: cut(d / "case_2.b2nd", 0), [("case_2.b2nd", "is empty")]),
    "empty labels": (lambda d: cut(d / "case_2_seg.b2nd", 0), [("case_2_seg.b2nd", "is empty")]),
    "empty properties": (lambda d: cut(d / "case_2.pkl", 0), [("case_2.pkl", "is empty")]),
    "cut image": (
        lambda d: (d / "case_2.b2nd").write_bytes(
            (d / "case_1.b2nd").read_bytes()[:16] + (7000).to_bytes(8, "big")
        ),
        [("case_2.b2nd", "is cut off: 24 of 7,000 bytes")],
    ),
    "cut head": (lambda d: cut(d / "case_2.b2nd", 20), [("case_2.b2nd", "is no Blosc2 file")]),
    "zeros": (
        lambda d: (d / "case_2.b2nd").write_bytes(bytes(2000)),
        [("case_2.b2nd", "is no Blosc2 file")],
    ),
    "cut properties": (lambda d: cut(d / "case_2.pkl", 3), [("case_2.pkl", "is cut off")]),
    "two cases": (
        lambda d: [(d / f"case_{n}.pkl").unlink() for n in (4, 1)],
        [("case_1.pkl", "is missing"), ("case_4.pkl", "is missing")],
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_files(dataset: PreprocessedDataset, folder: Path, kind: str) -> None:
    damage, wanted = FILES[kind]
    damage(folder)
    assert lines(dataset, fold=0) == [
        f"{folder / name}: {fault}; preprocess again: {AGAIN}" for name, fault in wanted
    ]
    check_files(dataset, ["case_0", "case_3"])


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_long_properties_that_are_cut_off(
    dataset: PreprocessedDataset, folder: Path, kept: float
) -> None:
    """Even where what is left ends as a pickle does."""
    path = folder / "case_2.pkl"
    whole = pickle.dumps({"class_locations": {1: [(n, n) for n in range(3000)]}})
    path.write_bytes(whole)
    check_data(dataset)
    path.write_bytes(whole[: int(kept * len(whole))] + pickle.STOP)
    assert lines(dataset) == [f"{path}: is cut off; preprocess again: {AGAIN}"]


def test_files_that_real_nnunet_writes(
    preprocessed: Path, add_case: Callable[[str, Any], None]
) -> None:
    """Whole at any size; each byte that is lost shows."""
    rng = np.random.default_rng(0)
    for size in (1, 3, 40):
        add_case(f"case_{size}", rng.integers(0, 3, (size, 7, 9)).astype(np.int16))
    dataset = find_dataset(901)
    check_data(dataset)
    for name in ("case_40.b2nd", "case_1_seg.b2nd"):
        path = dataset.data_folder / name
        whole = path.read_bytes()
        for size in (len(whole) - 1, len(whole) // 2, 200):
            path.write_bytes(whole[:size])
            assert lines(dataset) == [
                f"{path}: is cut off: {size:,} of {len(whole):,} bytes; preprocess again: {AGAIN}"
            ]
        path.write_bytes(whole)


def test_arrays_of_older_releases(preprocessed: Path) -> None:
    """nnU-Net before 2.6 wrote .npz, and unpacked them beside."""
    folder = preprocessed / "nnUNetPlans_3d_fullres"
    for case in CASES:
        np.savez_compressed(folder / f"{case}.npz", data=np.ones((1, 9)), seg=np.ones((1, 9)))
        (folder / f"{case}.pkl").write_bytes(pickle.dumps({}))
    np.save(folder / "case_0.npy", np.ones((1, 9)))
    np.save(folder / "case_0_seg.npy", np.ones((1, 9)))
    dataset = find_dataset(901)
    check_data(dataset, fold=0)
    cut(folder / "case_0_seg.npy", 180)
    cut(folder / "case_1.npz", 100)
    np.savez_compressed(folder / "case_2.npz", data=np.ones(3))
    (folder / "case_3.npz").unlink()
    found = [line.partition(";")[0] for line in lines(dataset, fold=0)]
    assert found == [
        f"{folder / 'case_0_seg.npy'}: cannot be read, or is cut off",
        f"{folder / 'case_1.npz'}: cannot be read, or is cut off",
        f"{folder / 'case_2.npz'}: has no seg.npy",
        f"{folder / 'case_3.npz'}: is missing",
    ]


def test_nothing_preprocessed(preprocessed: Path) -> None:
    dataset = find_dataset(901)
    assert lines(dataset) == [f"{dataset.data_folder}: holds no preprocessed cases; run {AGAIN}"]
    dataset.data_folder.rmdir()
    assert lines(dataset, fold=0) == lines(dataset)


def test_files_of_two_kinds(dataset: PreprocessedDataset, folder: Path) -> None:
    """At which nnU-Net stops with an assertion."""
    (folder / "notes.txt").touch()
    assert "files that end in .b2nd and .txt; take away" in lines(dataset)[0]


@pytest.mark.parametrize(
    ("locations", "found"),
    [
        ({1: [], 2: []}, False),
        ({}, False),
        ({1: [], 2: [(0, 1, 2, 3)]}, True),
        ({(1, 2): [(0, 1, 2, 3)], 2: []}, True),
        ({1: [], (-1, 0, 1): [(0, 1, 2, 3)]}, False),
        ({1: np.zeros((4, 4)), 2: []}, True),
    ],
)
def test_foreground(
    dataset: PreprocessedDataset,
    folder: Path,
    split: Callable[[Any], None],
    locations: dict[Any, Any],
    found: bool,
) -> None:
    """One case without any is as good as others; a part without any trains or scores nothing."""
    with_locations(folder / "case_5.pkl", locations)
    check_data(dataset, fold=0)
    split([{"train": CASES[:5], "val": CASES[5:]}])
    if found:
        check_data(dataset, fold=0)
    else:
        wanted = "no case has foreground in what fold 0 validates on: case_5; are the labels"
        assert wanted in lines(dataset, fold=0)[0]
    for case in CASES:
        with_locations(folder / f"{case}.pkl", locations)
    assert found or len(lines(dataset, fold=0)) == 2


def test_properties_that_cannot_be_read(
    dataset: PreprocessedDataset, folder: Path, split: Callable[[Any], None]
) -> None:
    split([{"train": CASES[1:], "val": CASES[:1]}])
    (folder / "case_0.pkl").write_bytes(b"nonsense.")
    assert lines(dataset, fold=0) == [f"{folder / 'case_0.pkl'}: cannot be read"]


def test_lists_are_short() -> None:
    assert [listed(CASES[:n]) for n in (1, 4, 5)] == [
        "case_0",
        "case_0, case_1, case_2, case_3",
        "case_0, case_1, case_2 and 2 more",
    ]


def test_export_checks_what_is_there(
    dataset: PreprocessedDataset,
    folder: Path,
    split: Callable[[Any], None],
    tiny: Path,
    refused: Callable[..., str],
    cli: Callable[..., tuple[int, str, str]],
) -> None:
    """Plans may be written before anything is preprocessed, and wherever the cases are whole."""
    command = ("export", tiny, "--dataset", "901", "--plans-name", "mine")
    assert cli(*command)[0] == 0
    split([{"train": CASES[:3], "val": ["gone"]}])
    refused((*command, "--force"), "splits_final.json: names gone")
    split([{"train": CASES[:3], "val": CASES[3:]}])
    cut(folder / "case_4.b2nd", 23)
    refused((*command, "--force"), "case_4.b2nd: is no Blosc2 file; preprocess again")


@pytest.mark.parametrize("verb", ["search", "ablate"])
def test_verbs_that_train_refuse_at_once(
    dataset: PreprocessedDataset,
    folder: Path,
    split: Callable[[Any], None],
    tiny: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    verb: str,
) -> None:
    space = "demo" if verb == "search" else tiny
    options = ("--data", 901, "--out", tmp_path / "out", "--device", "cpu")
    options += ("--trials", 1) if verb == "search" else ("--only", "*identity*")
    split([{"train": CASES[:3], "val": ["gone"]}])
    refused((verb, space, *options), "splits_final.json: names gone")
    (folder.parent / "splits_final.json").unlink()
    cut(folder / "case_2_seg.b2nd", 0)
    refused((verb, space, *options), "case_2_seg.b2nd: is empty")
    assert not (tmp_path / "out").exists()
