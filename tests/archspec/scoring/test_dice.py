"""Dice of label maps, and what a dataset.json says about them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archspec.scoring.dice import dice, mean
from archspec.scoring.labels import DatasetLabels
from blocks.base import SpecError
from search.trials.cases import scores_of_all


def labels(tmp_path: Path, **keys: Any) -> DatasetLabels:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(keys), encoding="utf-8")
    return DatasetLabels.read(path)


@pytest.mark.parametrize(
    ("values", "score"), [((1,), 4 / 6), ((2,), 0), ((1, 2), 6 / 7), ((3,), math.nan)]
)
def test_dice(values: tuple[int, ...], score: float) -> None:
    prediction, reference = np.array([1, 1, 0, 2, 0]), np.array([1, 1, 1, 1, 0])
    assert dice(prediction, reference, values) == pytest.approx(score, nan_ok=True)


def test_means_leave_out_what_neither_holds() -> None:
    nothing, one = np.zeros(4, int), np.array([1, 1, 0, 0])
    cases = [("a", one, one), ("b", nothing, one), ("c", nothing, nothing)]
    found = scores_of_all(iter(cases), {"labels": {"background": 0, "one": 1, "none": 2}})
    assert found == {"mean": 0.5, "one": 0.5, "none": pytest.approx(math.nan, nan_ok=True)}
    assert math.isnan(mean([math.nan]))


def test_labels_regions_groups_and_ignore(tmp_path: Path) -> None:
    found = labels(
        tmp_path,
        labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "ignore": 4},
        archspec={"groups": {"both": ["whole", "core"]}},
        file_ending=".mha",
    )
    assert found.classes == {"whole": (1, 2, 3), "core": (2, 3)}
    assert found.groups == {"both": (1, 2, 3)}
    assert (found.ignore, found.file_ending) == (4, ".mha")
    assert list(found.scored) == ["whole", "core", "both"]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"labels": {"background": 0}},
        {"labels": {"1": "liver"}},
        {"labels": {"liver": -1}},
        {"labels": ["liver"]},
        {"labels": {"liver": 1}, "archspec": {"groups": {"both": ["liver", "spleen"]}}},
        {"labels": {"liver": 1, "ignore": "2a"}},
    ],
)
def test_a_dataset_json_without_usable_labels(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"dataset\.json: labels must"):
        labels(tmp_path, **keys)
