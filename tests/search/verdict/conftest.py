"""A run of a search that trained nothing, and a table of trainings as a test wants them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import FrozenTrial

from archspec.spec.yaml_file import dump
from search.retrain.confirm import TABLE, jobs_of
from search.study.protocol import LOCK, Protocol, Terms, read_protocol
from search.study.record import read_run
from search.study.session import SESSIONS, read_sessions
from search.study.storage import open_run
from search.trials.lines import append_line

CASES = 60
NAMES = [f"case_{number}" for number in range(CASES)]
MIXERS = [{"kind": "conv"}, {"kind": "attention", "num_heads": 1}]
TREE: dict[str, Any] = {
    "name": "tiny",
    "patch_size": [16, 16, 16],
    "encoder": {
        "stages": [
            {"width": {"choice": [2, 16, 64]}, "mixer": {"kind": "conv"}},
            {"width": 4, "mixer": {"choice": MIXERS}},
        ]
    },
    "decoder": {"kind": "sum"},
}
WIDTH, MIXER = "encoder.stages.0.width", "encoder.stages.1.mixer"
ANCHORS: list[dict[str, Any]] = [
    {WIDTH: 16},
    {WIDTH: 16, MIXER: "attention"},
    {WIDTH: 64},
    {WIDTH: 2},
    {"plans": "nnUNetPlans"},
    {"plans": "nnUNetPlans", "width": 2},
]
"""Trials 5 and 4 are the curve; 2 is dearer than all of it, 0 and 1 lie on it, 3 below it."""
SEARCHED = {0: 0.8, 1: 0.81, 2: 0.9, 3: 0.6, 4: 0.85, 5: 0.7}
"""What the search saw: 1 is chosen, since 2 costs too much."""


def plans() -> dict[str, Any]:
    kwargs = {
        "n_stages": 2,
        "features_per_stage": [8, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    architecture = {"network_class_name": name, "arch_kwargs": kwargs}
    full = {"patch_size": [16, 16, 16], "architecture": architecture}
    return {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": full}}


def make_run(folder: Path, fakes: SimpleNamespace, anchors: list[dict[str, Any]]) -> Path:
    """Return a run of the anchors, with 30 % of the cases held out."""
    write_inputs(folder, fakes, anchors)
    pool = fakes.FakePool(dice=lambda task, step: SEARCHED[task.number])
    space = folder / "space.yaml"
    fakes.run_fake(space, folder / "run", len(anchors), pool, terms=Terms())
    return folder / "run"


def write_inputs(folder: Path, fakes: SimpleNamespace, anchors: list[dict[str, Any]]) -> Any:
    """Write space.yaml, and return a dataset whose plans hold the curve."""
    data = fakes.fake_dataset(folder / "preprocessed", cases=CASES)
    (data.folder / "nnUNetPlans.json").write_text(json.dumps(plans()), encoding="utf-8")
    folds = [{"train": NAMES[4:], "val": NAMES[:4]}]
    (data.folder / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    settings = {"steps": 9, "rungs": 1, "stopper": "none", "test_share": 0.3, "anchors": anchors}
    (folder / "space.yaml").write_text(dump({**TREE, "search": settings}), encoding="utf-8")
    return data


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    return make_run(tmp_path_factory.mktemp("verdict"), fakes, ANCHORS)


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """Return a copy of the run."""
    shutil.copytree(searched, tmp_path / "run")
    return tmp_path / "run"


Scores = Callable[[int, int, int], float]
"""The test Dice of a trial's network, by the number of a seed and of a case."""


class Table:
    """What a test writes into a run."""

    def __init__(self, run: Path) -> None:
        self.run = run
        found = read_run(run)
        assert found is not None
        self.record = found

    def trial(self, number: int) -> FrozenTrial:
        return next(t for t in open_run(self.run)[0].trials if t.number == number)

    def fix(self, terms: Terms, test: tuple[str, ...] | None = None) -> None:
        """Have the run made on other terms, or with other test cases, from its start on."""
        if test is not None:
            self.record = replace(self.record, test_cases=test)
        (self.run / "run.json").write_text(json.dumps(self.record.to_json()), encoding="utf-8")
        (self.run / LOCK).write_text(Protocol.of(terms, self.record).text(), encoding="utf-8")
        sessions = read_sessions(self.run)
        (self.run / SESSIONS).unlink()
        for one in sessions:
            append_line(self.run / SESSIONS, {**one, "protocol": self.digest})

    @property
    def digest(self) -> str:
        """Return that of the lock as it is now."""
        return hashlib.sha256((self.run / LOCK).read_bytes()).hexdigest()[:12]

    def write(
        self, scores: Scores, trials: tuple[int, ...] = (1, 4, 5), seeds: int = 3, **row: Any
    ) -> None:
        """Add the trainings of these trials."""
        (self.run / TABLE).parent.mkdir(exist_ok=True)
        cases = self.record.test_cases or ()
        for number in trials:
            trial = self.trial(number)
            for seed, job in enumerate(jobs_of(self.run, trial, self.record.seed, seeds)):
                dice = [scores(number, seed, index) for index in range(len(cases))]
                test = {c: {"mean": d, "organ": d} for c, d in zip(cases, dice, strict=True)}
                line = {
                    **{"name": job.name, "trial_hash": "", "seed": job.seed, "steps": 9},
                    **{"seconds": 1.0, "validation": {}, "test": test, "spec": job.tree},
                    **{"protocol": self.digest, **row},
                }
                append_line(self.run / TABLE, line)


@pytest.fixture
def table(run: Path) -> Table:
    found = Table(run)
    assert read_protocol(run, found.record) is not None
    return found


@pytest.fixture
def inputs(tmp_path: Path, fakes: SimpleNamespace) -> Any:
    """Return a dataset beside the space of the run above."""
    return write_inputs(tmp_path, fakes, ANCHORS)
