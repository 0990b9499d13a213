"""Three parts of the cases: no case in two, and the validation part as nnU-Net has it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.splits import split_cases
from archspec.spec.yaml_file import dump
from blocks.base import SpecError

CASES = [f"case_{number:02d}" for number in range(20)]


@pytest.fixture
def folds(dataset: PreprocessedDataset) -> list[dict[str, list[str]]]:
    """Write a split file of four folds of 20 cases and return what it holds."""
    splits = [
        {"train": [c for c in CASES if c not in part], "val": part}
        for part in (CASES[start::4] for start in range(4))
    ]
    (dataset.folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    return splits


@pytest.mark.parametrize("fold", [0, 3, -1])
def test_without_a_share_the_fold_stays_as_it_is(
    dataset: PreprocessedDataset, folds: list[dict[str, list[str]]], fold: int
) -> None:
    split = split_cases(dataset, fold=fold)
    assert list(split.train) == folds[fold]["train"]
    assert list(split.validation) == folds[fold]["val"]
    assert split.test == ()


@pytest.mark.parametrize("fold", [0, 1, 2, 3])
@pytest.mark.parametrize(("share", "number"), [(0.2, 4), (0.5, 10), (0.01, 2)])
def test_test_cases_come_out_of_the_train_part(
    dataset: PreprocessedDataset,
    folds: list[dict[str, list[str]]],
    fold: int,
    share: float,
    number: int,
) -> None:
    split = split_cases(dataset, fold=fold, test_share=share, seed=1)
    assert list(split.validation) == folds[fold]["val"]
    assert len(split.test) == number
    assert set(split.train) | set(split.test) == set(folds[fold]["train"])
    assert len(split.train) + len(split.test) == len(folds[fold]["train"])


@pytest.mark.parametrize("seed", range(5))
def test_persons_are_held_out_whole(
    dataset: PreprocessedDataset, folds: list[dict[str, list[str]]], seed: int
) -> None:
    """Three cases each; the five that validate belong to five of the seven persons."""
    persons = {case: f"p{number // 3}" for number, case in enumerate(CASES)}
    split = split_cases(dataset, fold=0, test_share=0.2, seed=seed, persons=persons)
    assert split == split_cases(dataset, fold=0, test_share=0.2, seed=seed, persons=persons)
    assert list(split.validation) == folds[0]["val"] == CASES[::4]
    assert set(split.train) | set(split.test) == set(folds[0]["train"])
    parts = [{persons[case] for case in part} for part in (split.test, split.train)]
    assert not parts[0] & parts[1] and not parts[0] & {persons[case] for case in CASES[::4]}
    assert len(split.test) == 5, "of three cases and of two: no fewer than four"
    alone = {case: case for case in CASES}
    assert len(split_cases(dataset, fold=0, test_share=0.2, persons=alone).test) == 4


def test_too_few_whole_persons_are_refused(
    dataset: PreprocessedDataset, folds: list[dict[str, list[str]]]
) -> None:
    persons = {case: f"p{number // 3}" for number, case in enumerate(CASES)}
    with pytest.raises(SpecError, match=r"asks for 6 test cases of .* do not add up") as told:
        split_cases(dataset, fold=0, test_share=0.3, persons=persons)
    assert "\n" not in str(told.value)
    big = {case: "one" if case in folds[0]["train"][:12] else case for case in CASES}
    for seed in range(5):
        split = split_cases(dataset, fold=0, test_share=0.1, seed=seed, persons=big)
        assert len(split.test) == 2, "who has twelve cases is left out"
    with pytest.raises(SpecError, match="of two persons or more"):
        split_cases(
            dataset, fold=0, test_share=0.5, persons=dict.fromkeys(CASES[1:], "b") | {CASES[0]: "a"}
        )
    del big[CASES[1]]
    with pytest.raises(SpecError, match="groups: it is not known whose case_01 of Dataset901_X is"):
        split_cases(dataset, fold=0, test_share=0.1, persons=big)


def test_the_seed_alone_decides(
    dataset: PreprocessedDataset, folds: list[dict[str, list[str]]]
) -> None:
    drawn = [split_cases(dataset, fold=0, test_share=0.2, seed=seed) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({split.test for split in drawn}) == 3


def test_without_a_file_nnunets_own_folds_stand(dataset: PreprocessedDataset) -> None:
    splits = [split_cases(dataset, fold=fold) for fold in range(5)]
    assert sorted(case for split in splits for case in split.validation) == [
        f"case_{number}" for number in range(5)
    ]
    assert not (dataset.folder / "splits_final.json").exists()


@pytest.mark.parametrize(
    ("fold", "share", "message"),
    [
        (0, 0.6, "takes 3 of the 4 training cases of fold 0 of Dataset901_X, and 2 must be left"),
        (5, 0.2, "fold=5: Dataset901_X has folds 0 to 4"),
    ],
)
def test_too_few_cases_are_refused(
    dataset: PreprocessedDataset, fold: int, share: float, message: str
) -> None:
    with pytest.raises(SpecError, match=message) as error:
        split_cases(dataset, fold=fold, test_share=share)
    assert "\n" not in str(error.value)


def test_a_search_records_its_test_cases_and_keeps_them(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """A resumed run has the same test part, without being told; another one is refused."""
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    tree = {**space_tree, "search": {**space_tree["search"], "test_share": 0.4}}
    space.write_text(dump(tree), encoding="utf-8")
    fakes.run_fake(space, out, 1, fakes.FakePool())
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    dataset = fakes.fake_dataset(tmp_path / "preprocessed")
    expected = split_cases(dataset, fold=0, test_share=0.4, seed=0).test
    assert record["test_cases"] == list(expected)
    assert len(expected) == 2

    space.write_text(dump(space_tree), encoding="utf-8")
    fakes.run_fake(space, out, 2, fakes.FakePool())
    assert json.loads((out / "run.json").read_text(encoding="utf-8")) == record
    space.write_text(dump({**tree, "search": {**tree["search"], "test_share": 0}}))
    with pytest.raises(SpecError, match="test_cases differ from the run's"):
        fakes.run_fake(space, out, 3, fakes.FakePool())


def test_a_search_keeps_whose_the_cases_are(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    """Not told again, a resumed run has the same test part; told otherwise, it is refused."""
    space, out, file = tmp_path / "space.yaml", tmp_path / "run", tmp_path / "persons.csv"
    tree = {**space_tree, "search": {**space_tree["search"], "test_share": 0.4}}
    space.write_text(dump(tree), encoding="utf-8")
    persons = {f"case_{number}": f"p{number}" for number in range(5)}
    rows = "".join(f"{case},{person}\n" for case, person in persons.items())
    file.write_text(f"case,person\n{rows}".replace(",p1", ", p1 "), encoding="utf-8")
    fakes.run_fake(space, out, 1, fakes.FakePool(), groups=file)
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["persons"] == persons
    assert len({persons[case] for case in record["test_cases"]}) == 2
    fakes.run_fake(space, out, 2, fakes.FakePool())
    fakes.run_fake(space, out, 3, fakes.FakePool(), groups=file)
    assert json.loads((out / "run.json").read_text(encoding="utf-8")) == record
    file.write_text(f"case,person\n{rows}".replace("p2", "q"), encoding="utf-8")
    with pytest.raises(SpecError, match="persons differ from the run's"):
        fakes.run_fake(space, out, 4, fakes.FakePool(), groups=file)
    with pytest.raises(SpecError, match="fold, test_cases differ from the run's"):
        fakes.run_fake(space, out, 4, fakes.FakePool(), fold=1)
    for known in ({}, {**persons, record["test_cases"][0]: None}, {"case_0": "p0"}):
        damaged = json.dumps({**record, "persons": known})
        (out / "run.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(SpecError, match=r"run\.json: damaged: persons is not what"):
            fakes.run_fake(space, out, 4, fakes.FakePool())
    space.write_text(dump(space_tree), encoding="utf-8")
    with pytest.raises(SpecError, match=r"groups=.*persons\.csv.*none is asked for; give a `test"):
        fakes.run_fake(space, tmp_path / "other", 1, fakes.FakePool(), groups=file)
    assert not (tmp_path / "other").exists()


def test_a_run_of_a_release_without_a_test_part_goes_on(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(dump(space_tree), encoding="utf-8")
    fakes.run_fake(space, out, 1, fakes.FakePool())
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    del record["test_cases"], record["settings"]["test_share"]
    (out / "run.json").write_text(json.dumps(record), encoding="utf-8")
    study = fakes.run_fake(space, out, 2, fakes.FakePool())
    assert len(study.trials) >= 2
