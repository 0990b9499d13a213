"""`describe` and `validate` at the sizes of a dataset, as export and search would take them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import archspec

Cli = Callable[..., tuple[int, str, str]]
Rewrite = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def thick(preprocessed: Path, rewrite: Rewrite) -> Path:
    """Return a dataset of thick slices."""
    change = {"spacing": [8.0, 0.5, 0.5], "patch_size": [8, 64, 48]}
    rewrite(
        preprocessed / "nnUNetPlans.json",
        lambda tree: tree["configurations"]["3d_fullres"].update(change),
    )
    return preprocessed


def test_describe_at_a_dataset(cli: Cli, thick: Path) -> None:
    code, out, err = cli("describe", "small-unet", "unet", "--data", 901, "--json")
    assert code == 0 and err == ""
    for one in json.loads(out):
        assert (one["input"], one["num_classes"]) == ([1, 1, 8, 64, 48], 3)
    code, out, err = cli("describe", "unet", "--data", 901, "--stages-from-dataset", "--json")
    note = "note: --stages-from-dataset: spacing 8 x 0.5 x 0.5 mm: strides [[1, 1, 1], [1, 2, 2]"
    assert code == 0 and err.startswith(note) and err.count("\n") == 1
    sizes = {"in_channels": 1, "num_classes": 3, "patch_size": (8, 64, 48)}
    same = archspec.describe("unet", **sizes, spacing=(8.0, 0.5, 0.5))
    assert json.loads(out) == same.to_json()
    assert same.params < archspec.describe("unet", **sizes).params


def test_what_is_given_wins(cli: Cli, thick: Path) -> None:
    given = ("--patch", "16,32,32", "--in-channels", 2, "--num-classes", 5)
    _, out, _ = cli("describe", "small-unet", "--data", 901, "--json", *given)
    found = json.loads(out)
    assert (found["input"], found["num_classes"]) == ([1, 2, 16, 32, 32], 5)


def test_describe_in_the_dataset_s_dimension(cli: Cli, thick: Path) -> None:
    _, out, err = cli("describe", "small-unet", "--data", 901, "--configuration", "2d", "--json")
    assert json.loads(out)["input"] == [1, 1, 16, 24]
    assert err == "note: small-unet is 3-D as it is written; built in 2-D, as 2d is\n"


def test_validate_settles_as_export_does(cli: Cli, thick: Path) -> None:
    line = ("validate", "small-unet", "--data", 901)
    code, out, _ = cli(*line, "--batch", 3)
    assert code == 0
    assert out.startswith("small-unet: ok, patch [8, 64, 48] -> [8, 64, 48] -> [4, 32, 24]")
    assert "\n  batch 3: training under AMP needs about 0." in out
    assert "note: batch_size: 3 instead of the dataset's 2\n" in out
    code, out, _ = cli(*line, "--stages-from-dataset", "--patch", "8,32,32")
    assert code == 0 and "note: --patch: [8, 32, 32] instead" not in out
    assert "note: --stages-from-dataset: spacing 8 x 0.5 x 0.5 mm" in out
    code, _, err = cli("validate", "unet", "--data", 901, "--patch", "exact")
    assert code == 2 and "nearest: --patch 32,64,32 or" in err
    assert "--stages-from-dataset" in err and err.count("\n") == 1


def test_validate_alone(cli: Cli) -> None:
    code, out, _ = cli("validate", "small-unet", "--batch", 2, "--patch", "16,16,16")
    assert code == 0 and "batch 2: training under AMP needs about 0." in out
    assert "batch" not in cli("validate", "small-unet")[1]


@pytest.mark.parametrize("verb", ["validate", "describe"])
def test_stages_need_a_dataset(cli: Cli, verb: str) -> None:
    code, _, err = cli(verb, "unet", "--stages-from-dataset")
    told = "archspec: --stages-from-dataset needs --data, whose spacing they are fitted to\n"
    assert (code, err) == (2, told)


def test_validate_a_space_at_a_dataset(cli: Cli, thick: Path) -> None:
    code, out, _ = cli("validate", "demo", "--data", 901, "--stages-from-dataset")
    assert code == 0 and "every member is a network at [8, 64, 48]" in out
    code, _, err = cli("validate", "demo", "--data", 901, "--patch", "16,16")
    assert code == 2 and "3d_fullres has 3 axes" in err and err.count("\n") == 1
