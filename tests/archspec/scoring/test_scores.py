"""Scoring a folder: what a figure is over which voxels and cases."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archspec.scoring.labels import DatasetLabels
from archspec.scoring.scores import (
    METRICS,
    Evaluation,
    Scores,
    evaluate_folder,
    terciles,
)
from archspec.scoring.summary import folder_scores, folders_csv
from archspec.scoring.surface import surface_scores

OneCase = Callable[..., dict[str, Scores]]


def scored(root: Path, folder: str = "a", **options: Any) -> Evaluation:
    labels = DatasetLabels.read(root / "dataset.json")
    return evaluate_folder(root / folder, root / "labels", labels, **{"tolerance": 1.0, **options})


@pytest.fixture
def one_case(tmp_path: Path, masks: Any) -> OneCase:
    """Return a function that scores one case, by class."""

    def score(
        prediction: Any, reference: Any, labels: dict[str, Any], **options: Any
    ) -> dict[str, Scores]:
        masks.write(tmp_path / "a" / "case.nii.gz", prediction)
        masks.write(tmp_path / "labels" / "case.nii.gz", reference)
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        return {name: values[0] for name, values in scored(tmp_path, **options).scores.items()}

    return score


def plain(scores: Scores) -> tuple[float, ...]:
    return (*(scores.value(m) for m in METRICS), scores.reference_size, scores.prediction_size)


def test_scores_are_those_of_the_whole_masks(made: Path, masks: Any) -> None:
    """Cropping changes nothing, and the spacing comes from the file."""
    found = scored(made)
    for k, case in enumerate(found.cases):
        a, b = (masks.read(made / folder / f"{case}.nii.gz") for folder in ("a", "labels"))
        for name, values in {"organ": [1], "lesion": [2], "either": [1, 2]}.items():
            p, r = np.isin(a, values), np.isin(b, values)
            surface = surface_scores(p, r, masks.spacing, tolerance=1.0)
            size = p.sum() + r.sum()
            dice = 2 * (p & r).sum() / size if size else math.nan
            wanted = (dice, surface.hd95, surface.surface_dice, surface.boundary_precision)
            sizes = (r.sum() * 1.6, p.sum() * 1.6)
            got = plain(found.scores[name][k])
            assert got == pytest.approx((*wanted, *sizes), nan_ok=True, rel=1e-5)


def test_counts_of_missed_invented_and_absent(tmp_path: Path, masks: Any) -> None:
    here, nothing = np.zeros((8, 8, 8), np.uint8), np.zeros((8, 8, 8), np.uint8)
    here[2:5, 2:5, 2:5] = 1
    for name, prediction, reference in (
        ("both", here, here),
        ("missed", nothing, here),
        ("invented", here, nothing),
        ("absent", nothing, nothing),
    ):
        masks.write(tmp_path / "a" / f"{name}.nii.gz", prediction)
        masks.write(tmp_path / "labels" / f"{name}.nii.gz", reference)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "one": 1}}')
    found = folder_scores(scored(tmp_path), ["one"]).to_json()
    summary = found["per_class"]["one"]
    counts = {key: summary[key] for key in ("cases", "hd95_cases", "missed", "invented", "absent")}
    assert counts == {"cases": 3, "hd95_cases": 1, "missed": 1, "invented": 1, "absent": 1}
    assert [summary[metric] for metric in METRICS] == pytest.approx([1 / 3, 0, 1 / 3, 0.5])
    cases = {case: one["one"] for case, one in found["per_case"].items()}
    assert [cases["missed"][m] for m in METRICS] == [0, None, 0, None]
    assert [cases["invented"][m] for m in METRICS] == [0, None, 0, 0]
    assert [cases["absent"][m] for m in METRICS] == [None] * 4


def test_regions_are_unions(one_case: OneCase) -> None:
    reference, prediction = np.zeros((2, 10, 10, 10), np.uint8)
    reference[2:6, 2:8, 2:8], reference[6:8, 2:8, 2:8] = 1, 2
    prediction[2:5, 2:8, 2:8], prediction[5:8, 2:8, 2:8] = 1, 2
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    found = one_case(prediction, reference, labels)
    assert found["whole"].dice == found["whole"].surface_dice == 1
    assert found["core"].dice == pytest.approx(2 * 2 / (2 + 3))
    assert found["core"].hd95_mm == pytest.approx(0.8)


def test_ignored_voxels_count_nowhere(one_case: OneCase) -> None:
    reference, prediction = np.zeros((2, 12, 10, 10), np.uint8)
    reference[2:6, 2:8, 2:8], reference[6:] = 1, 3
    prediction[2:10, 2:8, 2:8] = 1
    labels = {"background": 0, "one": 1, "ignore": 3}
    one = one_case(prediction, reference, labels)["one"]
    assert (one.dice, one.surface_dice, one.hd95_mm) == (1, 1, 0)
    assert one.reference_size == one.prediction_size == pytest.approx(4 * 36 * 1.6)
    seen = one_case(prediction, np.where(reference == 3, 0, reference).astype(np.uint8), labels)
    assert seen["one"].dice == pytest.approx(2 * 4 / 12)


def test_dice_is_nnunet_s(one_case: OneCase, tmp_path: Path) -> None:
    """Regions and ignored voxels, as nnU-Net's own evaluation counts them."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    rng = np.random.default_rng(0)
    reference = rng.integers(0, 4, (9, 8, 7), dtype=np.uint8)
    prediction = rng.integers(0, 3, (9, 8, 7), dtype=np.uint8)
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    found = one_case(prediction, reference, labels)
    files = [str(tmp_path / folder / "case.nii.gz") for folder in ("labels", "a")]
    theirs = compute_metrics(*files, SimpleITKIO(), [(1, 2), 2], ignore_label=3)["metrics"]
    assert found["whole"].dice == pytest.approx(theirs[1, 2]["Dice"])
    assert found["core"].dice == pytest.approx(theirs[2]["Dice"])
    assert found["core"].reference_size == pytest.approx(theirs[2]["n_ref"] * 1.6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_is_measured_in_plane(one_case: OneCase, masks: Any, axis: int) -> None:
    """Distances, areas and surfaces are those of the plane, whatever the slice's thickness is."""
    shape = tuple(1 if k == axis else 24 for k in range(3))
    centre = tuple(0 if k == axis else 12 for k in range(3))
    reference = masks.ball(shape, centre, 6).astype(np.uint8)
    moving = next(k for k in range(3) if k != axis)
    found = one_case(np.roll(reference, 2, axis=moving), reference, {"one": 1})["one"]
    plane = tuple(size for k, size in enumerate(masks.spacing) if k != axis)
    flat = np.squeeze(reference, axis) > 0
    wanted = surface_scores(np.roll(flat, 2, axis=0), flat, plane, tolerance=1.0)
    assert (found.hd95_mm, found.surface_dice) == (wanted.hd95, wanted.surface_dice)
    assert 0 < found.hd95_mm <= 2 * plane[0] + 1e-5
    assert found.reference_size == pytest.approx(flat.sum() * math.prod(plane))


def test_a_tolerance_of_whole_voxels_takes_surfaces_at_that_distance(one_case: OneCase) -> None:
    """The header stores 0.8 mm in float32; two voxels are 1.6 mm all the same."""
    reference = np.zeros((16, 12, 8), np.uint8)
    reference[4:8, 4:8, 2:6] = 1
    one = one_case(np.roll(reference, 2, axis=0), reference, {"one": 1}, tolerance=1.6)["one"]
    assert (one.surface_dice, one.boundary_precision) == (1, 1)


def test_terciles() -> None:
    def of(size: float) -> Scores:
        return Scores(0, 0, 0, 0, size, 0)

    assert terciles([of(size) for size in (5, 1, 9, 0, 3, 7, 2, 8, 4, 6)]) == [
        [1, 6, 4],
        [8, 0, 9],
        [5, 7, 2],
    ]
    assert terciles([of(size) for size in range(1, 9)]) is None
    assert terciles([of(4.0)] * 12) is None
    assert terciles([of(0.0)] * 12) is None


def test_summary_by_size_is_the_mean_of_its_cases(made: Path) -> None:
    evaluation = scored(made)
    found = folder_scores(evaluation, ["organ", "lesion"]).to_json()
    parts = found["terciles"]["organ"]
    sizes = sorted(one["organ"]["reference_size"] for one in found["per_case"].values())
    assert [parts[key]["cases"] for key in ("small", "medium", "large")] == [7, 7, 6]
    assert (parts["small"]["smallest"], parts["small"]["largest"]) == (sizes[0], sizes[6])
    for metric in METRICS:
        means = [one["organ"][metric] for one in found["per_case"].values()]
        weighted = sum(part[metric] * part["cases"] for part in parts.values())
        assert weighted == pytest.approx(sum(means))
    for metric in METRICS:
        classes = [found["per_class"][name][metric] for name in ("organ", "lesion")]
        assert found["mean"][metric] == pytest.approx(sum(classes) / 2)


def test_csv_holds_every_case_and_class(made: Path) -> None:
    evaluations = [scored(made), scored(made, "b")]
    found = [folder_scores(one, ("organ", "lesion")) for one in evaluations]
    rows = list(csv.DictReader(io.StringIO(folders_csv(found))))
    assert len(rows) == 2 * 20 * 3
    for row in rows:
        one = evaluations[row["predictions"].endswith("b")]
        scores = one.scores[row["class"]][one.cases.index(row["case"])]
        for metric in METRICS:
            text = row[metric]
            assert scores.value(metric) == pytest.approx(
                float(text) if text else math.nan, nan_ok=True
            )


def test_partial_leaves_missing_cases_out(made: Path, tmp_path: Path) -> None:
    whole = scored(made)
    some = tmp_path / "some"
    some.mkdir()
    for name in ("case_01.nii.gz", "case_04.nii.gz"):
        (some / name).write_bytes((made / "a" / name).read_bytes())
    labels = DatasetLabels.read(made / "dataset.json")
    found = evaluate_folder(some, made / "labels", labels, tolerance=1.0, partial=True)
    assert found.cases == ("case_01", "case_04")
    assert len(found.missing) == 18
    assert found.scores["organ"] == [whole.scores["organ"][k] for k in (1, 4)]
