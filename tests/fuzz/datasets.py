"""What nnU-Net wrote about a dataset: dataset.json and plans, as it wrote them, changed."""

import copy
import functools
import json
import os
import random
from pathlib import Path
from typing import Any

from archspec.network.resolve import resolve
from archspec.nnunet.dataset import find_dataset
from archspec.nnunet.from_plans import tree_of_dataset
from archspec.scoring.labels import DatasetLabels
from blocks.errors import SpecError
from tests.fuzz.cases import Case, check_refusal
from tests.fuzz.mutate import break_text, damage, mutate, to_json

WRITTEN = Path(__file__).parents[1] / "fixtures/releases/047295c/preprocessed/Dataset902_Small"
FILES = ("dataset.json", "nnUNetPlans.json")
_VARIABLE = "nnUNet_preprocessed"
_KEYS = ("labels", "background", "ignore", "regions_class_order", "channel_names", "modality", "0")
_KEYS += ("file_ending", "numTraining", "archspec", "groups", "configurations", "inherits_from")
_KEYS += (
    "patch_size",
    "batch_size",
    "spacing",
    "data_identifier",
    "architecture",
    "previous_stage",
)
_LABELS = (
    {"background": 0, "a": 1, "b": 2},
    {"background": 0, "a": 1, "b": 3},
    {"background": 0, "wt": [1, 2, 4], "tc": [1, 4], "et": [4]},
    {"background": 0, "a": 1, "ignore": 2},
    {"background": 0, "a": [1, 2], "ignore": 3},
    {"background": [0, 1], "a": 1},
)


def make(draws: random.Random, folder: Path) -> Case:
    """Write a dataset whose description or plans are changed, and read it with every reader."""
    place = folder / WRITTEN.name
    place.mkdir()
    trees = {name: copy.deepcopy(_tree(name)) for name in FILES}
    if draws.random() < 0.4:
        trees["dataset.json"]["labels"] = copy.deepcopy(draws.choice(_LABELS))
        if draws.random() < 0.5:
            trees["dataset.json"]["regions_class_order"] = draws.choice(
                ([1, 2], [2, 1, 4], [1], [])
            )
    for name in FILES:
        changes = (
            draws.choice((0, 1, 1, 2, 4)) if name == FILES[0] else draws.choice((0, 0, 0, 1, 2))
        )
        for _ in range(changes):
            trees[name] = mutate(trees[name], draws, _KEYS)
        content: bytes | None = to_json(trees[name]).encode("utf-8", errors="surrogatepass")
        turn = draws.random()
        if turn < 0.05:
            text = break_text(to_json(trees[name]), draws)
            content = text.encode("utf-8", errors="surrogatepass")
        elif turn < 0.08:
            assert content is not None
            content = damage(content, draws)
        if content is not None:
            (place / name).write_bytes(content)
    ask = draws.choice(_READERS)
    return Case(lambda: _asked(ask, folder, place))


def _asked(ask: Any, root: Path, place: Path) -> Any:
    os.environ[_VARIABLE] = str(root)
    return ask(place)


@functools.cache
def _tree(name: str) -> Any:
    return json.loads((WRITTEN / name).read_text(encoding="utf-8"))


def _all(place: Path) -> None:
    """Ask every reader, whatever the one before it said."""
    for ask in _READERS[1:]:
        try:
            ask(place)
        except SpecError as error:
            check_refusal(error)


def _labels(place: Path) -> None:
    DatasetLabels.read(place / "dataset.json")


def _sizes(place: Path) -> None:
    found = find_dataset("902")
    assert found.batch_size > 0 and found.data_folder
    resolve("small-unet", found.sizes)


def _network(place: Path) -> None:
    tree_of_dataset("902", plans_name="nnUNetPlans", configuration="3d_fullres")


_READERS = (_all, _labels, _sizes, _network)
