"""Data: the mixed CT task with few or many training cases; the test cases are always the same."""

from dataclasses import dataclass
from typing import ClassVar, Self

from archspec.phantom.mixed_ct import MixedCTTask
from blocks.base import SpecError

_NUM_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class DataTask(MixedCTTask):
    """Describe the task.

    `num_training` is what a fold trains on: nnU-Net keeps a fifth of the cases for validation, so
    the dataset has a quarter more. Cases do not depend on how many there are: a smaller level's
    cases are among a larger one's of the same seed.
    """

    num_training: int = 16

    name: ClassVar[str] = "data"
    summary: ClassVar[str] = "mixed-ct with few training cases, the same test cases"
    knob: ClassVar[str] = "training cases per fold"
    levels: ClassVar[tuple[str, ...]] = ("4", "8", "16", "32", "64")

    def __post_init__(self) -> None:
        if str(self.num_training) not in DataTask.levels:
            raise SpecError(
                f"must be one of {', '.join(DataTask.levels)}, got {self.num_training}",
                field="num_training",
                suggestion="use e.g. 16",
            )
        super().__post_init__()

    @classmethod
    def _at(cls, level: str) -> Self:
        return cls(num_training=int(level))

    @property
    def num_cases(self) -> int:
        """Return the cases of which a fold trains on four fifths."""
        return self.num_training * _NUM_FOLDS // (_NUM_FOLDS - 1)
