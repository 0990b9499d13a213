"""What other releases wrote: fields that they lack, and fields that this one does not know."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from archspec.spec.yaml_file import dump
from blocks.base import SpecError
from search.retrain.retrain import Trained, read_trained
from search.study.record import read_settings
from search.trials.recorded import from_record
from search.trials.train import CHECKPOINT, Rung, Segment, TrialTask, _restored

CASES = {"case_1": {"mean": 0.5, "organ": None}}
LINE = {
    **{"name": "trial 3", "trial_hash": "h", "seed": 5, "steps": 8, "seconds": 1.5},
    **{"validation": CASES, "test": {}},
}
RUNG = {"step": 2, "scores": {"mean": 0.5}, "loss": 1.0, "seconds": 2.0}


@pytest.mark.parametrize(
    ("record", "smoothed"), [(RUNG, None), ({**RUNG, "smoothed": 0.4, "stop": True, "new": 1}, 0.4)]
)
def test_lacking_fields_take_defaults_and_unknown_ones_are_left_out(
    record: dict[str, Any], smoothed: float | None
) -> None:
    expected = Rung(2, {"mean": 0.5}, 1.0, 2.0, smoothed)
    assert from_record(Rung, record) == expected
    assert from_record(Rung, asdict(expected)) == expected


@pytest.mark.parametrize(
    ("record", "words"), [({"step": 2, "loss": 1.0}, "scores, seconds missing"), ([2], "mapping")]
)
def test_a_record_without_its_essentials_is_none(record: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        from_record(Rung, record)


def test_trainings_of_other_releases_are_read(tmp_path: Path) -> None:
    table = tmp_path / "trainings.jsonl"
    table.write_text("\n".join(map(json.dumps, (LINE, {**LINE, "host": "node"}))), encoding="utf-8")
    first, second = read_trained(table)
    assert isinstance(first, Trained)
    for one in (first, second):
        assert (one.key, one.steps, one.validation["case_1"]["mean"]) == (("h", 5), 8, 0.5)
        assert math.isnan(one.validation["case_1"]["organ"])


def test_a_line_that_is_no_training_is_named(tmp_path: Path) -> None:
    table = tmp_path / "trainings.jsonl"
    without = {name: value for name, value in LINE.items() if name not in ("seed", "test")}
    table.write_text(f"{json.dumps(LINE)}\n\n{json.dumps(without)}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"trainings\.jsonl:3  .*seed, test missing") as told:
        read_trained(table)
    assert "\n" not in str(told.value)


def test_a_checkpoint_of_another_release_is_gone_on_with(task: TrialTask) -> None:
    """A file of states and one rung; what stands in the states is not the rung's matter."""
    states: list[Any] = []
    stepper: Any = SimpleNamespace(load_state_dict=states.append)
    torch.save({"step": 2, "rung": {**RUNG, "new": 1}}, task.folder / CHECKPOINT)
    assert _restored(task.folder, stepper) == (Rung(**RUNG), Segment(2))
    assert len(states) == 1 and (task.folder / CHECKPOINT).is_file()


def test_settings_of_a_later_release_are_refused_in_one_line(
    tmp_path: Path, fakes: SimpleNamespace, space_tree: dict[str, Any]
) -> None:
    space, run = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(dump(space_tree), encoding="utf-8")
    fakes.run_fake(space, run, 1, fakes.FakePool())
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert read_settings(run / "run.json", record["settings"]).steps == 27
    record["settings"]["foresight"] = 3
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(SpecError, match=r"run\.json: settings\.foresight: ") as told:
        fakes.run_fake(space, run, 2, fakes.FakePool())
    assert "\n" not in str(told.value)
