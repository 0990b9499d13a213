"""Pictures of scored cases: which plane and which cases, the outlines, their size, and damage."""

import io
import json
import math
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from archspec.network.plan import plan
from archspec.spec.load import load
from blocks.base import SpecError
from search.trials.cases import Predicted
from search.trials.checkpoint import CheckpointError
from search.trials.pictures import (
    BOTH,
    LABEL,
    LARGEST,
    PICTURES,
    PREDICTION,
    SIDE,
    Drawn,
    draw,
    read_pictures,
    three_of,
    write_pictures,
)
from search.trials.train import Listener, TrialTask, score_trained, train


def case(
    label: np.ndarray, prediction: np.ndarray, ignore: int | None = None, channels: int = 2
) -> Predicted:
    image = np.zeros((channels, *label.shape), np.float32)
    image[0] = np.arange(label.size).reshape(label.shape)
    return Predicted("c", prediction, label, image, ignore)


def pixels(drawn: Drawn) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(drawn.png)).convert("RGB"))


def of_color(drawn: Drawn, color: str) -> set[tuple[int, int]]:
    """Return the places (row, column) of a colour."""
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return {(int(y), int(x)) for y, x in np.argwhere((pixels(drawn) == wanted).all(-1))}


def box(shape: tuple[int, ...], *place: slice) -> np.ndarray:
    labels = np.zeros(shape, np.int16)
    labels[place] = 1
    return labels


def test_outlines_of_label_and_prediction_where_they_are() -> None:
    shape = (3, SIDE, SIDE)
    label = box(shape, slice(1, 2), slice(2, 220), slice(2, 220))
    prediction = box(shape, slice(1, 2), slice(2, 220), slice(2, 100))
    drawn = draw(case(label, prediction))
    assert (drawn.plane, drawn.planes) == (2, 3) and pixels(drawn).shape == (SIDE, SIDE, 3)
    both, alone = of_color(drawn, BOTH), of_color(drawn, LABEL)
    assert both == {(y, x) for y in (2, 219) for x in range(2, 100)} | {
        (y, 2) for y in range(2, 220)
    }
    assert {(y, x) for y, x in alone if 2 < y < 219} == {(y, 219) for y in range(3, 219)}
    assert of_color(drawn, PREDICTION) == {(y, 99) for y in range(3, 219)}


def test_small_planes_are_enlarged_and_cut_to_what_is_outlined() -> None:
    label = box((4, 100, 100), slice(2, 3), slice(50, 54), slice(40, 44))
    drawn = draw(case(label, np.zeros_like(label)))
    assert drawn.plane == 3
    assert pixels(drawn).shape == (224, 224, 3), "4 pixels and 12 on each side, 8 times"
    assert of_color(drawn, LABEL) and not of_color(drawn, PREDICTION)
    assert min(of_color(drawn, LABEL)) == (12 * 8, 12 * 8)


@pytest.mark.parametrize("shape", [(2, 700, 900), (300, 500), (5, 7, 9), (1, 1, 1)])
def test_a_picture_of_any_grid_is_small(shape: tuple[int, ...]) -> None:
    draws = np.random.default_rng(0)
    label, prediction = draws.integers(0, 3, (2, *shape))
    drawn = draw(case(label, prediction))
    assert max(pixels(drawn).shape) <= SIDE and len(drawn.png) <= LARGEST
    image = draws.normal(size=(1, *shape))
    blank = np.zeros(shape, int)
    drawn = draw(Predicted("c", blank, blank, image))
    assert len(drawn.png) <= LARGEST and not of_color(drawn, BOTH)


def test_what_is_not_judged_is_no_foreground() -> None:
    label = box((2, 30, 30), slice(0, 1), slice(5, 9), slice(5, 9))
    label[1], prediction = -1, label.clip(0, 1)
    assert draw(case(label, prediction)).plane == 1, "nnU-Net writes -1 outside its mask"
    label[1], prediction[1] = 7, 1
    drawn = draw(case(label, prediction, ignore=7))
    assert drawn.plane == 1 and not of_color(drawn, LABEL)


def test_three_cases_by_their_dice() -> None:
    scores = {f"c{n}": {"mean": dice} for n, dice in enumerate((0.5, math.nan, 0.9, 0.1, 0.7))}
    drawn = {name: Drawn(1, 1, name.encode()) for name in scores}
    found = three_of(scores, drawn)
    assert [(one.which, one.case, one.dice) for one in found] == [
        ("best", "c2", 0.9),
        ("median", "c4", 0.7),
        ("worst", "c3", 0.1),
    ]
    first = {name: scores[name] for name in ("c0", "c2")}
    kinds = [one.which for one in three_of(first, {name: drawn[name] for name in first})]
    assert kinds == ["best", "worst"]
    assert [one.which for one in three_of(scores, {"c0": drawn["c0"]})] == ["best"]
    assert three_of(scores, {"c1": drawn["c1"]}) == []


def test_they_read_as_they_were_written_or_are_damaged(tmp_path: Path) -> None:
    blank = np.zeros((1, 3, 3), int)
    drawn = {name: draw(case(blank, blank)) for name in "ab"}
    written = three_of({"a": {"mean": 0.25}, "b": {"mean": 1.0}}, drawn)
    file = tmp_path / PICTURES
    write_pictures(file, "test", written)
    assert read_pictures(file) == ("test", written)
    whole = json.loads(file.read_text(encoding="utf-8"))
    changes: list[Callable[[Any], Any]] = [
        lambda tree: [],
        lambda tree: {**tree, "pictures": 3},
        lambda tree: {**tree, "pictures": tree["pictures"] * 2},
        lambda tree: {**tree, "pictures": [{**tree["pictures"][0], "which": "<b>"}]},
        lambda tree: {**tree, "pictures": [{**tree["pictures"][0], "png": "PHN2Zz4="}]},
        lambda tree: {**tree, "pictures": [{**tree["pictures"][0], "dice": "nan"}]},
        lambda tree: {**tree, "filling": "x" * 8 * LARGEST},
    ]
    for change in changes:
        file.write_text(json.dumps(change(whole)), encoding="utf-8")
        with pytest.raises(SpecError, match=r"pictures\.json: damaged; .* --no-images") as told:
            read_pictures(file)
        assert "\n" not in str(told.value)


class Shown:
    """Two test cases whose predictions are made up: one right, one wrong."""

    validation_cases: list[str] = ["v"]  # noqa: RUF012
    test_cases: list[str] = ["right", "wrong"]  # noqa: RUF012

    def score_cases(self, net: Any, device: Any, names: list[str]) -> Any:
        return {one.case: self.scores_of(one) for one in self.predicted(net, device, names)}

    def predicted(self, net: Any, device: Any, names: list[str]) -> Iterator[Predicted]:
        assert not net.training
        for name in names:
            label = box((2, 8, 8), slice(1, 2), slice(2, 5), slice(2, 5))
            found = label if name == "right" else 0 * label
            yield Predicted(name, found, label, np.zeros((1, 2, 8, 8)))

    def scores_of(self, one: Predicted) -> dict[str, float]:
        return {"mean": float(one.prediction.any())}


def test_a_scored_training_keeps_pictures_of_its_test_cases(task: TrialTask) -> None:
    made = runpy.run_path(str(Path(__file__).parents[1] / "fake_training.py"))
    planned, device = plan(load(task.tree)), torch.device("cpu")
    train(task, planned, made["FakeData"](), device, Listener())
    validation, test = score_trained(task, planned, Shown(), device)  # type: ignore[arg-type]
    assert validation == {"v": {"mean": 0.0}}
    assert test == {"right": {"mean": 1.0}, "wrong": {"mean": 0.0}}
    part, (best, worst) = read_pictures(task.folder / PICTURES)
    assert (part, best.case, worst.case) == ("test", "right", "wrong")
    assert of_color(best.drawn, BOTH) and not of_color(worst.drawn, BOTH)
    assert best.drawn.plane == 2

    (task.folder / PICTURES).unlink()
    (task.folder / PICTURES).mkdir()
    with pytest.raises(CheckpointError, match=r"pictures\.json: a folder stands"):
        score_trained(task, planned, Shown(), device)  # type: ignore[arg-type]
