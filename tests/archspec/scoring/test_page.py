"""`archspec evaluate`: its page word for word, its JSON's shape, its files."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archspec.scoring.scores import METRICS

GOLDEN = Path(__file__).parents[2] / "golden" / "text"
PAGES = {
    "evaluate": ["a", "labels", "--tolerance", "1"],
    "evaluate_against": ["a", "labels", "--against", "b", "--tolerance", "0.5"],
    "evaluate_few": ["few", "labels", "--partial"],
}
Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., None]
Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]

NUMBER = "number"
SCORES = dict.fromkeys(METRICS, NUMBER)
SIZES = {"reference_size": NUMBER, "prediction_size": NUMBER}
COUNTS = dict.fromkeys(("cases", "hd95_cases", "missed", "invented", "absent"), NUMBER)
INTERVAL = dict.fromkeys(("pairs", "a", "b", "difference", "low", "high"), NUMBER)
TESTED = dict.fromkeys(("p", "p_holm", "wins", "ties", "losses", "cases_needed"), NUMBER)
SCHEMA: dict[str, Any] = {
    "references": "text",
    "tolerance_mm": NUMBER,
    "seed": NUMBER,
    "cases": NUMBER,
    "missing": ["text"],
    "dimensions": NUMBER,
    "finest_spacing_mm": NUMBER,
    "classes": ["text"],
    "groups": ["text"],
    "conventions": ["text"],
    "evaluations": [
        {
            "predictions": "text",
            "mean": SCORES,
            "per_class": {"*": {**SCORES, **COUNTS}},
            "terciles": {
                "*": {"*": {"smallest": NUMBER, "largest": NUMBER, **SCORES, **COUNTS}},
            },
            "per_case": {"*": {"*": {**SCORES, **SIZES}}},
        }
    ],
    "comparison": {
        "level": NUMBER,
        "alpha": NUMBER,
        "power": NUMBER,
        "differences": {
            "*": {"*": {**INTERVAL, **TESTED, "excludes_zero": "truth", "exceeds_noise": "truth"}}
        },
        "terciles": {"*": {"*": {"*": {**INTERVAL, "excludes_zero": "truth"}}}},
    },
}
"""What scripts may rely on; `*` stands for names, and any value but a truth may be null."""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("dataset")
def test_golden_text(cli: Cli, page: str) -> None:
    code, text, err = cli(*PAGES[page])
    assert (code, err) == (0, "")
    path = GOLDEN / f"{page}.txt"
    if os.environ.get("ARCHSPEC_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    long = [line for line in text.splitlines() if len(line) > 80]
    assert not long, long


def test_only_dice_below_one_are_the_lowest(cli: Cli, dataset: Path) -> None:
    perfect = shutil.copytree(dataset / "labels", dataset / "perfect")
    code, text, _ = cli("perfect", "labels")
    assert code == 0 and "lowest" not in text
    shutil.copy(dataset / "a" / "case_04.nii.gz", perfect)
    (line,) = (line for line in cli("perfect", "labels")[1].splitlines() if "lowest" in line)
    assert line.count("case_") == line.count("case_04") == 3  # organ, lesion, and their union
    assert "1.000" not in line


def check(value: Any, schema: Any, path: str) -> None:
    """Check the shape of a value: the same keys, the same kinds."""
    if isinstance(schema, list):
        assert isinstance(value, list), path
        for item in value:
            check(item, schema[0], f"{path}[]")
    elif isinstance(schema, dict):
        if value is None:
            return
        if "*" not in schema:
            assert set(value) == set(schema), path
        for key, item in value.items():
            check(item, schema.get(key, schema.get("*")), f"{path}.{key}")
    elif schema == "truth":
        assert isinstance(value, bool), path
    else:
        kinds = {"text": str, NUMBER: (int, float)}
        assert value is None or isinstance(value, kinds[schema]), (path, value)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("dataset")
def test_json_keeps_its_shape(cli: Cli, page: str) -> None:
    code, text, _ = cli(*PAGES[page], "--json")
    assert code == 0
    found = json.loads(text, parse_constant=pytest.fail)  # NaN is no JSON
    check(found, SCHEMA, "found")
    against = "--against" in PAGES[page]
    assert (found["comparison"] is not None, len(found["evaluations"])) == (against, 1 + against)
    assert (found["classes"], found["groups"]) == (["organ", "lesion"], ["either"])
    assert len(found["missing"]) == (16 if page == "evaluate_few" else 0)
    assert found["cases"] == len(found["evaluations"][0]["per_case"]) == 20 - len(found["missing"])


def test_wide_pages_stay_within_80_columns(
    cli: Cli, masks: Any, dataset: Path, rewrite: Rewrite
) -> None:
    """Long names, huge voxels, a distant error: nothing breaks the page."""
    names = {"background": 0, "the_left_adrenal_gland_with_its_tumour": 1, "lesion": 2}
    rewrite(dataset / "dataset.json", lambda tree: tree.update(labels=names, archspec={}))
    for path in dataset.glob("*/*.nii.gz"):
        volume = masks.read(path)
        volume[:2, :2, :2] = 1 if path.parent.name == "b" else volume[:2, :2, :2]
        masks.write(path, volume, np.diag([25.0, 25.0, 90.0, 1.0]))
    deep = dataset / ("a_folder_with_a_long_name" * 4) / "of_predictions"
    shutil.copytree(dataset / "a", deep)
    code, text, _ = cli(deep, "labels", "--against", "b")
    assert code == 0
    assert "dm^3" in text and "/of_predictions\n" in text
    assert not [line for line in text.splitlines() if len(line) > 80]


def test_help_imports_no_metrics(cli: Cli) -> None:
    code, out, _ = cli("--help")
    text = re.sub(r"\s+", " ", out)
    assert code == 0 and "--against" in text and "--tolerance" in text


def test_csv_is_not_overwritten(cli: Cli, refused: Refused, dataset: Path) -> None:
    arguments = ("few", "labels", "--partial", "--csv", "scores.csv")
    assert cli(*arguments)[0] == 0
    first = (dataset / "scores.csv").read_text()
    assert first.startswith("predictions,case,class,dice,") and first.count("\n") == 1 + 4 * 3
    refused(arguments, "scores.csv", "--force")
    (dataset / "scores.csv").write_text("mine")
    assert cli(*arguments, "--force")[0] == 0
    assert (dataset / "scores.csv").read_text() == first
    refused(("a", "labels", "--csv", "no/where.csv"), "the folder no does not exist")


def test_dataset_json_among_the_predictions_is_found(
    cli: Cli, refused: Refused, dataset: Path
) -> None:
    """nnU-Net's predictor leaves one there."""
    (dataset / "dataset.json").rename(dataset / "few" / "dataset.json")
    assert cli("few", "labels", "--partial")[0] == 0
    (dataset / "few" / "dataset.json").rename(dataset / "other.json")
    assert cli("few", "labels", "--partial", "--dataset-json", "other.json")[0] == 0
    refused(("few", "labels", "--partial"), "--dataset-json")


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".png", ".tif", ".nii"])
def test_other_formats(cli: Cli, masks: Any, dataset: Path, rewrite: Rewrite, ending: str) -> None:
    """The same masks give the same scores; a .png has no spacing, so that its unit is the pixel."""
    import SimpleITK
    import tifffile
    from skimage import io

    before = json.loads(cli("few", "labels", "--partial", "--json")[1])
    rewrite(dataset / "dataset.json", lambda tree: tree.update(file_ending=ending))
    for path in [*dataset.glob("few/*.nii.gz"), *dataset.glob("labels/*.nii.gz")]:
        target = path.with_name(path.name.replace(".nii.gz", ending))
        if ending == ".png":
            io.imsave(target, masks.read(path)[:, :, 8], check_contrast=False)
        elif ending == ".tif":
            tifffile.imwrite(target, masks.read(path))
            target.with_suffix(".json").write_text(json.dumps({"spacing": masks.spacing}))
        else:
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(target))
    code, text, err = cli("few", "labels", "--partial", "--json")
    assert (code, err) == (0, "")
    found = json.loads(text)
    if ending == ".png":
        assert (found["dimensions"], found["finest_spacing_mm"]) == (2, 1)
        return
    for case, scores in before["evaluations"][0]["per_case"].items():
        for name, one in scores.items():
            other = found["evaluations"][0]["per_case"][case][name]
            assert [other[key] is None for key in one] == [value is None for value in one.values()]
            for key, value in one.items():
                assert value is None or other[key] == pytest.approx(value, rel=1e-4)
