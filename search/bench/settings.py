"""What is asked of a bench, and what must be equal for one to be gone on with."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from archspec.costs.flops import CONVENTION
from archspec.files import make_folder, write_text
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.persons import EVERY_CASE, Persons
from archspec.nnunet.splits import read_folds
from blocks.errors import SpecError
from search.bench.arena import Arena
from search.space.settings import SearchSettings
from search.trials.host import ONE_CPU, TrainingHost

SETTINGS = "settings.json"
RESULT, TABLE_MD, TABLE_TEX = "bench.json", "table.md", "table.tex"
METHODS, REFERENCES = "methods.md", "references.bib"
ROWS, CASES = "rows.csv", "cases.csv"
TRAININGS, STOCK, PLANS = "trainings", "nnUNet_results", "plans"
_KIND = "archspec bench"
_FILES = (RESULT, TABLE_MD, TABLE_TEX, METHODS, REFERENCES, ROWS, CASES)
_FOLDERS = (TRAININGS, STOCK, PLANS)
_DISTRIBUTIONS = ("archspec-seg", "nnunetv2", "torch")
_RUNGS = 2
"""Where validation cases are scored: half way and at the end."""


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """How trainings are compared, which changes none of them.

    `baseline` is the label of a network, by default the first; `score` names the class or group
    that counts, or `mean` over the classes; `margin` is a difference in Dice that would matter.
    """

    baseline: str | None = None
    score: str = "mean"
    margin: float | None = None
    persons: Persons = EVERY_CASE


@dataclass(frozen=True, kw_only=True)
class BenchTask:
    """Networks on datasets, each trained on every fold with every seed, and compared.

    `steps` and `batch_size` are those of trials. `stock` trains by nnU-Net's own command instead:
    as long as the specs' recipes say, with the dataset's batch size unless one is given. The fold
    of `host` is not used; its seed says which seeds are.
    """

    arenas: tuple[Arena, ...]
    folder: Path
    folds: tuple[int, ...]
    seeds: int = 3
    steps: int = 1000
    batch_size: int | None = None
    stock: bool = False
    host: TrainingHost = ONE_CPU
    comparing: Comparing = Comparing()

    @property
    def labels(self) -> list[str]:
        """Return the networks in the order given, the baseline first."""
        given = list(self.arenas[0].planned)
        baseline = self.comparing.baseline or given[0]
        return [baseline, *(label for label in given if label != baseline)]

    @property
    def all_seeds(self) -> list[int]:
        """Return the seeds of trainings."""
        return [1000 * self.host.seed + number for number in range(self.seeds)]

    @property
    def rung_steps(self) -> tuple[int, ...]:
        """Return the steps at which trials are scored."""
        return SearchSettings(steps=self.steps, rungs=_RUNGS, eta=1).rung_steps

    @property
    def num_trainings(self) -> int:
        """Return how many trainings there are in all."""
        networks = sum(len(arena.planned) for arena in self.arenas)
        return networks * len(self.folds) * self.seeds


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """The identity of a bench: hashes by network and dataset, data by fingerprint, and how.

    `steps` are None for stock trainings, whose length each spec says; so is a `batch_size` that is
    the dataset's.
    """

    networks: dict[str, dict[str, str]]
    datasets: dict[str, dict[str, Any]]
    folds: list[int]
    seeds: list[int]
    steps: int | None
    batch_size: int | None
    stock: bool
    convention: str
    versions: dict[str, str]

    @classmethod
    def of(cls, task: BenchTask) -> "BenchSettings":
        """Return the identity of the bench that is asked for."""
        hashes = {one.dataset.name: one.hashes for one in task.arenas}
        given = list(task.arenas[0].planned)
        return cls(
            networks={label: {name: own[label] for name, own in hashes.items()} for label in given},
            datasets={
                one.dataset.name: {
                    "configuration": one.dataset.configuration,
                    "patch_size": list(one.dataset.patch_size),
                    "fingerprint": fingerprint(one.dataset),
                }
                for one in task.arenas
            },
            folds=list(task.folds),
            seeds=task.all_seeds,
            steps=None if task.stock else task.steps,
            batch_size=task.batch_size,
            stock=task.stock,
            convention=CONVENTION,
            versions={name: version(name) for name in _DISTRIBUTIONS},
        )


def fingerprint(dataset: PreprocessedDataset) -> str:
    """Return 16 hex digits of the plans, labels and folds, and of every file's name and size."""
    files = [path for path in dataset.data_folder.iterdir() if path.is_file()]
    told = {
        "settings": {k: v for k, v in dataset.settings.items() if k != "architecture"},
        "dataset": dataset.dataset_json,
        "folds": read_folds(dataset),
        # nnU-Net unpacks .npz into .npy beside them when it trains
        "files": sorted((p.name, p.stat().st_size) for p in files if p.suffix != ".npy"),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def open_folder(folder: Path, settings: BenchSettings, *, resume: bool, force: bool) -> None:
    """Make the folder of a new bench, or see that it holds this one and may be gone on with.

    Raises:
        SpecError: it holds something else, or a bench, and neither `resume` nor `force` is set.
    """
    file, now = folder / SETTINGS, json.loads(json.dumps(asdict(settings)))
    old = _read(file) if file.is_file() else None
    if old is None and folder.exists() and any(folder.iterdir()):
        raise SpecError(
            "exists and is not a bench", where=folder, suggestion="give another `folder`"
        )
    if old is not None and force:
        _clear(folder)
    elif old is not None:
        changed = [key for key in now if old.get(key) != now[key]]
        if changed and resume:
            raise SpecError(
                f"cannot resume, {', '.join(changed)} differ from the bench's",
                where=folder,
                suggestion="give what it was started with, or another `folder`",
            )
        if not resume:
            raise SpecError(
                "a bench is there already",
                where=folder,
                suggestion="go on with `resume`, begin anew with `force`, or give another `folder`",
            )
        return
    make_folder(folder)
    write_text(file, json.dumps({"kind": _KIND, **now}, indent=2) + "\n")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_bytes().decode())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise SpecError(
            "not that of a bench, or damaged", where=file, suggestion="give another `folder`"
        )
    return found


def _clear(folder: Path) -> None:
    """Remove what a bench wrote, and nothing else."""
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (*_FILES, SETTINGS):
        (folder / name).unlink(missing_ok=True)


def table_of(task: BenchTask, dataset: str, fold: int) -> Path:
    """Return where trials of a fold are written down."""
    return task.folder / TRAININGS / f"{dataset}_fold{fold}.jsonl"
