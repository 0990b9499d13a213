"""Comparing two folders: pairs, signs, what counts as more than noise."""

import math
from pathlib import Path

import numpy as np
import pytest

from archspec.scoring.labels import DatasetLabels
from archspec.scoring.pairs import compare
from archspec.scoring.scores import Evaluation, Scores, evaluate_folder
from archspec.scoring.statistics import paired_bootstrap


def scored(root: Path, folder: str = "a") -> Evaluation:
    labels = DatasetLabels.read(root / "dataset.json")
    return evaluate_folder(root / folder, root / "labels", labels, tolerance=1.0)


def test_comparison_is_paired_by_case(made: Path) -> None:
    a, b = scored(made), scored(made, "b")
    found = compare(a, b, ["organ", "lesion"], seed=5)
    organ = found.differences["dice"]["organ"]
    values = [one.values("dice", "organ") for one in (a, b)]
    interval = paired_bootstrap(*values, 5)
    assert (organ.difference, organ.low, organ.high) == pytest.approx(interval)
    gains = np.subtract(*values)
    counts = [int((np.sign(gains) == sign).sum()) for sign in (1, 0, -1)]
    assert [organ.wins, organ.ties, organ.losses] == counts
    assert organ.pairs == 20
    assert found.differences["dice"]["lesion"].pairs == 17
    assert organ.exceeds_noise and organ.excludes_zero and organ.p_holm >= organ.p
    assert found.terciles["dice"]["organ"]["small"].pairs == 7

    mirrored = compare(b, a, ["organ", "lesion"], seed=5)
    for metric, rows in found.differences.items():
        for name, one in rows.items():
            other = mirrored.differences[metric][name]
            assert other.difference == pytest.approx(-one.difference)
            assert (other.wins, other.losses) == (one.losses, one.wins)
            assert (other.p, other.cases_needed) == (one.p, one.cases_needed)


def test_wins_of_distances_are_the_smaller_ones() -> None:
    def made(hd95: float) -> Evaluation:
        cases = tuple(f"case_{k}" for k in range(8))
        scores = [Scores(0.8, hd95 + k / 7, 0.8, 0.8, 1.0 + k, 1.0) for k in range(8)]
        return Evaluation(Path("x"), cases, (), 3, 1.0, {"one": scores})

    found = compare(made(2.0), made(3.0), ["one"], seed=0).differences
    hd95, dice = found["hd95_mm"]["one"], found["dice"]["one"]
    assert (hd95.difference, hd95.wins, hd95.losses) == (pytest.approx(-1), 8, 0)
    assert (dice.ties, dice.p, dice.exceeds_noise) == (8, 1.0, False)


def gained(dice: list[float]) -> tuple[Evaluation, Evaluation]:
    """Return two evaluations of one class whose Dice differs by what is given."""
    cases = tuple(f"case_{k}" for k in range(len(dice)))
    scores = [
        [Scores(0.5 + d, 1, 1, 1, 1.0, 1.0) for d in side] for side in (dice, [0.0] * len(dice))
    ]
    a, b = (Evaluation(Path("x"), cases, (), 3, 1.0, {"one": side}) for side in scores)
    return a, b


def test_an_interval_without_zero_is_not_enough() -> None:
    """One large loss among small gains: ranks see a gain, the mean does not, and reversed."""
    small = [0.01 + k / 1000 for k in range(14)]
    for dice, excludes, significant in (
        ([*small, 0.3], True, True),
        ([*small, -0.3], False, True),
        ([0.001, 0.3, 0.31, 0.32, 0.33, -0.002, -0.003], True, False),
    ):
        one = compare(*gained(dice), ["one"], seed=0).differences["dice"]["one"]
        assert (one.excludes_zero, one.p_holm < 0.05) == (excludes, significant), dice
        assert one.exceeds_noise == (excludes and significant)


def test_too_few_pairs_have_no_interval() -> None:
    for pairs in (1, 5, 6):
        gains = [(k + 1) / 50 for k in range(pairs)]
        one = compare(*gained(gains), ["one"], seed=0).differences["dice"]["one"]
        assert (one.low is None, one.exceeds_noise) == (pairs < 6, pairs == 6)
        assert one.difference == pytest.approx(np.mean(gains))


def test_all_classes_is_the_mean_by_case_over_what_both_have() -> None:
    def made(first: list[float], second: list[float]) -> Evaluation:
        scores = {
            name: [Scores(dice, 1, dice, 1, 1.0, 1.0) for dice in values]
            for name, values in (("x", first), ("y", second))
        }
        return Evaluation(Path("x"), ("p", "q", "r"), (), 3, 1.0, scores)

    a = made([0.9, 0.8, math.nan], [0.5, math.nan, math.nan])
    b = made([0.7, 0.7, math.nan], [0.4, 0.9, math.nan])
    overall = compare(a, b, ["x", "y"], seed=0).differences["dice"]["mean"]
    assert overall.pairs == 2
    assert (overall.a, overall.b) == pytest.approx(((0.7 + 0.8) / 2, (0.55 + 0.7) / 2))
