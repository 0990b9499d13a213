"""A table of learning curves: one row per training and rung, in a CSV file that only grows.

Searches can replay it, which costs no training. Rows of one training share `training`, a key made
of everything that decides its outcome.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from archspec.costs.flops import cost_plan
from archspec.network.plan import Plan
from archspec.spec.hashing import arch_hash, trial_hash
from blocks.base import SpecError


@dataclass(frozen=True, kw_only=True)
class Training:
    """What decides a training's outcome, and what it costs.

    `task` and `level` name the data, `cases` counts its training cases; `steps` is how long the
    schedule is, which a stopped training does not reach. Costs are those of one forward pass at
    batch 1, in convention v1.
    """

    arch_hash: str
    trial_hash: str
    name: str
    task: str
    level: str
    cases: int
    seed: int
    lr: float
    batch_size: int
    steps: int
    macs: int
    flops: int
    params: int

    @property
    def key(self) -> tuple[str, str, str, int, int, int, int]:
        """Return what tells trainings apart; the name, a label, does not."""
        return (
            self.trial_hash,
            self.task,
            self.level,
            self.cases,
            self.seed,
            self.batch_size,
            self.steps,
        )


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One rung of a training.

    `dice` is the mean over the classes on the validation cases, `scores` what it is the mean of
    and what was scored beside it; `loss` is the mean training loss before the rung. `seconds` are
    those of training since its start.
    """

    training: Training
    step: int
    seconds: float
    dice: float
    loss: float
    scores: dict[str, float]


_COLUMNS = [field.name for field in fields(Training)] + [
    "step",
    "seconds",
    "dice",
    "loss",
    "scores",
]


def describe_training(
    planned: Plan,
    *,
    name: str,
    task: str,
    level: str,
    cases: int,
    seed: int,
    batch_size: int,
    steps: int,
) -> Training:
    """Return the training of a planned network, with its cost."""
    cost = cost_plan(planned)
    return Training(
        arch_hash=arch_hash(planned.spec),
        trial_hash=trial_hash(planned.spec),
        name=name,
        task=task,
        level=level,
        cases=cases,
        seed=seed,
        lr=planned.spec.training.lr,
        batch_size=batch_size,
        steps=steps,
        macs=cost.macs,
        flops=cost.flops,
        params=cost.params,
    )


def append_points(path: Path, points: Iterable[CurvePoint]) -> None:
    """Add rows, in one write; make the file if needed. One process at a time may do so."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    for point in points:
        writer.writerow(_row(point))
    path.parent.mkdir(parents=True, exist_ok=True)
    header = "" if path.is_file() and path.stat().st_size else ",".join(_COLUMNS) + "\n"
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(header + text.getvalue())


def read_points(path: Path) -> list[CurvePoint]:
    """Return all rows; a file that does not exist has none.

    Raises:
        SpecError: the columns are others, or a row cannot be read; the message names its line.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != _COLUMNS:
            raise SpecError(
                f"{path}: not a table of curves; its columns must be {', '.join(_COLUMNS)}"
            )
        return [_point(row, f"{path}:{reader.line_num}") for row in reader]


def read_curves(path: Path) -> dict[Training, list[CurvePoint]]:
    """Return the points of every training, by step; of equal steps the last written stays.

    Raises:
        SpecError: as `read_points`.
    """
    curves: dict[tuple[Any, ...], dict[int, CurvePoint]] = {}
    for point in read_points(path):
        curves.setdefault(point.training.key, {})[point.step] = point
    ordered = [[points[step] for step in sorted(points)] for points in curves.values()]
    return {points[0].training: points for points in ordered}


def _row(point: CurvePoint) -> dict[str, Any]:
    scores = {name: round(score, 5) for name, score in point.scores.items()}
    return {
        **asdict(point.training),
        "step": point.step,
        "seconds": round(point.seconds, 2),
        "dice": round(point.dice, 5),
        "loss": round(point.loss, 5),
        "scores": json.dumps(scores),
    }


def _point(row: dict[str, str], where: str) -> CurvePoint:
    kinds = {field.name: field.type for field in fields(Training)}
    try:
        values = {name: _parsed(row[name], kind) for name, kind in kinds.items()}
        scores = {name: float(score) for name, score in json.loads(row["scores"]).items()}
        return CurvePoint(
            training=Training(**values),
            step=int(row["step"]),
            seconds=float(row["seconds"]),
            dice=float(row["dice"]),
            loss=float(row["loss"]),
            scores=scores,
        )
    except (AttributeError, TypeError, ValueError):
        raise SpecError(f"{where}: not a row of a table of curves; is the file cut off?") from None


def _parsed(text: str, kind: Any) -> Any:
    return {int: int, float: float}.get(kind, str)(text)
