"""A dataset.json or plans with values of any kind: understood, or refused in one line."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from archspec.network.resolve import resolve
from archspec.nnunet.dataset import find_dataset
from archspec.nnunet.from_plans import tree_of_dataset
from archspec.scoring.labels import DatasetLabels
from archspec.spec.tree import walk
from blocks.errors import SpecError

VALUES = [
    *("1e400", "-1e400", "NaN", "Infinity", f"1{'0' * 400}", "9" * 5000, "2.5", "-1", "0", "1"),
    *("true", "null", '""', '"a\\nb"', '"\\u001b[2J"', '"\\ud800"', "[]", "{}", "[1, 2]", "[[1]]"),
    *("[1e400]", "[null]", '{"a": 1}', "65536", "9223372036854775808", '"0"', "["),
    *(f"{'[' * 20_000}{']' * 20_000}", f'{{"a": {"[" * 20_000}'),
]


def put(file: Path, path: tuple[str | int, ...], value: str) -> None:
    """Write a text, which may be no JSON, in place of a value of the file."""
    tree: Any = json.loads(file.read_text(encoding="utf-8"))
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = "@"
    file.write_text(json.dumps(tree).replace('"@"', value), encoding="utf-8")


def use(folder: Path) -> None:
    """Read all that is read of a dataset, by each of its readers."""
    DatasetLabels.read(folder / "dataset.json")
    found = find_dataset(folder.name)
    resolve("small-unet", found.sizes)
    assert found.batch_size > 0 and found.data_folder
    tree_of_dataset(folder.name, plans_name="nnUNetPlans", configuration="3d_fullres")


@pytest.mark.parametrize("seed", range(60))
def test_any_value_is_understood_or_refused(preprocessed: Path, seed: int) -> None:
    rng = random.Random(seed)
    file = preprocessed / rng.choice(["dataset.json", "nnUNetPlans.json"])
    tree = json.loads(file.read_text(encoding="utf-8"))
    put(file, rng.choice([path for path, _ in walk(tree)][1:]), rng.choice(VALUES))
    try:
        use(preprocessed)
    except SpecError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("kind", ["label", "region", "ignore", "background"])
def test_labels_of_any_kind(preprocessed: Path, kind: str, value: str) -> None:
    file = preprocessed / "dataset.json"
    name = "left" if kind in ("label", "region") else kind
    put(file, ("labels", name), f"[1, {value}]" if kind == "region" else value)
    try:
        use(preprocessed)
    except SpecError as error:
        assert str(error).isprintable() and str(error).startswith(str(file))
    else:
        assert value in ("1", "2.5", "[1, 2]", "65536", "0", '"0"', "null", "true")


@pytest.mark.parametrize(
    ("key", "value", "want"),
    [
        ("patch_size", "[16, 16, 9000]", "2 or 3 sizes in voxels, from 1 to 8192"),
        ("patch_size", "16", "2 or 3 sizes in voxels, from 1 to 8192"),
        ("batch_size", "1e400", "an integer from 1 to 16384"),
        ("spacing", "[1.0, 1.0, NaN]", "2 or 3 sizes in mm"),
        ("spacing", "[1.0, 1.0, 0]", "2 or 3 sizes in mm"),
        ("data_identifier", "7", "the name of a folder"),
        ("previous_stage", "[]", "the name of a configuration, or null"),
    ],
)
def test_settings_of_another_type(preprocessed: Path, key: str, value: str, want: str) -> None:
    put(preprocessed / "nnUNetPlans.json", ("configurations", "3d_fullres", key), value)
    with pytest.raises(SpecError) as caught:
        find_dataset(901)
    assert f"configuration '3d_fullres' has {key} " in str(caught.value)
    assert str(caught.value).endswith(f"allowed: {want}")


def test_what_stays_as_it_is(preprocessed: Path) -> None:
    """nnU-Net writes NaN where a channel has no foreground; nothing reads it here."""
    put(preprocessed / "nnUNetPlans.json", ("plans_name",), "NaN")
    use(preprocessed)
