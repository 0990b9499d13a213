"""Ranks, correction, needed cases and persons, held to values worked out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from archspec.nnunet.persons import read_persons
from archspec.scoring.statistics import cases_needed
from blocks.base import SpecError
from search.bench.arena import folds_of, reference
from search.bench.compare import corrected, mean_ranks
from search.bench.paper import escaped
from search.bench.result import Versus
from search.retrain.noise import DiceDifference
from search.space.references import Reference


def test_ranks_with_ties() -> None:
    blocks = [{"a": 0.9, "b": 0.8, "c": 0.8}, {"a": 0.5, "b": 0.7, "c": 0.7}]
    assert mean_ranks(blocks) == {"a": 2.0, "b": (2.5 + 1.5) / 2, "c": (2.5 + 1.5) / 2}
    assert mean_ranks([dict.fromkeys("abcd", 0.1)]) == dict.fromkeys("abcd", 2.5)


def test_p_values_of_all_datasets_are_corrected_together() -> None:
    """0.01 x 3, 0.02 x 2, then 0.03 x 1, which may not be below the one before; NaN is no test."""
    found = [
        Versus(name, DiceDifference("a", "b", 0.1, 0.0, 0.2, p), 9, None)
        for name, p in (("x", 0.03), ("y", 0.01), ("z", 0.02), ("w", math.nan))
    ]
    raw = [one.difference.p_holm for one in corrected(found)]
    assert raw[:3] == pytest.approx([0.04, 0.03, 0.04])
    assert math.isnan(raw[3])


def test_cases_needed_for_a_margin() -> None:
    """The formula of z values, with the margin in place of the mean that was seen."""
    a = np.array([0.82, 0.79, 0.91, 0.88, 0.70])
    b = np.array([0.80, 0.80, 0.85, 0.86, 0.71])
    sd, z = float(np.std(a - b, ddof=1)), float(norm.ppf(0.975))
    wanted = ((z + float(norm.ppf(0.8))) * sd / 0.005) ** 2 + z**2 / 2
    assert cases_needed(a, b, margin=0.005) == math.ceil(wanted)
    assert cases_needed(a, b, margin=float(np.mean(a - b))) == cases_needed(a, b)
    assert cases_needed(a, a, margin=0.005) is None


@pytest.mark.parametrize(
    ("text", "folds"),
    [("0-4", (0, 1, 2, 3, 4)), ("0,2", (0, 2)), ("3", (3,)), ("1, 0-1", (0, 1)), ("4-4", (4,))],
)
def test_folds(text: str, folds: tuple[int, ...]) -> None:
    assert folds_of(text) == folds


@pytest.mark.parametrize("text", ["", "a", "-1", "2-1", "0-", "1.5", "0-5000", "0-4-5", "0;1"])
def test_what_are_no_folds(text: str) -> None:
    with pytest.raises(SpecError, match="must be folds such as 0-4 or 0,2"):
        folds_of(text)


def test_fold_all_scores_nothing() -> None:
    with pytest.raises(SpecError, match="trains on every case, so that none is left to score"):
        folds_of("all")


def test_references() -> None:
    assert reference("unet") == Reference("spec", "unet")
    assert reference("{spec: my.yaml}") == Reference("spec", "my.yaml")
    assert reference("{plans: nnUNetPlans}") == Reference("plans", "nnUNetPlans")
    assert reference("{plans: P, width: 8}") == Reference("plans", "P", 8)
    for text in ("{}", "{plan: P}", "{plans: P, width: 0}", "{plans: P, width: a}", "{plans: ''}"):
        with pytest.raises(SpecError, match="must name plans of a dataset"):
            reference(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.csv", "case,person\nc1,p\nc2,p\nc3,q\n"),
        ("g.csv", "person,dataset,case\np,D,c1\nx,E,c1\np,D,c2\nq,,c3\n"),
        ("g.json", json.dumps({"c1": "p", "c2": "p", "c3": "q"})),
        ("g.json", json.dumps({"D": {"c1": "p", "c2": "p", "c3": "q"}, "E": {"c1": 7}})),
    ],
)
def test_persons_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    persons = read_persons(tmp_path / name, {"D": ["c1", "c2", "c3"]})
    assert [persons.of("D", case) for case in ("c1", "c2", "c3")] == ["p", "p", "q"]
    assert persons.unit == "person"
    with pytest.raises(SpecError, match=r"has no person for c4 and 1 more of D"):
        read_persons(tmp_path / name, {"D": ["c1", "c4", "c5"]})


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("g.csv", "case,person\nc1,p\nc2\n", "names no person for c2"),
        ("g.csv", "case,person\nc1,p\nc2, \n", "names no person for c2"),
        ("g.csv", "case,person\nc1,p\nc2,p\nc1,q\n", "names two persons for c1: p and q"),
        ("g.json", '{"c1": "p", "c2": null}', "names no person for c2"),
    ],
)
def test_nobody_and_two_persons_are_refused(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=told):
        read_persons(tmp_path / name, {"D": ["c1", "c2"]})


def test_blanks_around_a_name_do_not_count(tmp_path: Path) -> None:
    text = "case,person,dataset\nc1, p,D\nc2,p , D\n c1,x,E\n"
    (tmp_path / "g.csv").write_text(text, encoding="utf-8")
    assert read_persons(tmp_path / "g.csv", {"D": ["c1", "c2"]}).named == {
        "D": {"c1": "p", "c2": "p"}
    }


@pytest.mark.parametrize(
    ("name", "text"), [("g.csv", ""), ("g.csv", "a,b\n1,2\n"), ("g.json", "[]"), ("g.json", "{}")]
)
def test_what_tells_no_persons(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match="must be a CSV file with columns case,person"):
        read_persons(tmp_path / name, {"D": ["c1"]})


def test_text_is_escaped_for_latex() -> None:
    assert escaped("a_b & 95 % {x} \\") == r"a\_b \& 95 \% \{x\} \textbackslash{}"


def test_a_difference_that_needs_too_many_cases() -> None:
    sure = DiceDifference("a", "b", 0.1, 0.05, 0.2, 0.001, 0.002)
    assert Versus("x", sure, 9, 1234).needed_text == "1,234"
    assert Versus("x", sure, 9, 10**6).needed_text == ">99,999"
    assert Versus("x", replace(sure, p_holm=math.nan), 1, 12).needed_text == "-"
