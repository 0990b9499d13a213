"""What papers leave open or contradict, and independent benchmarks: the data of specs/fidelity."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from archspec.spec.bundled import bundled, bundled_names
from archspec.spec.claims import Confidence, Quantity, Text, Unit
from blocks.base import ComponentSpec

BENCHMARKS = "benchmarks.yaml"

Rows = Annotated[dict[str, int | float | str], Field(min_length=1)]


class Point(ComponentSpec):
    """One thing that a paper leaves open, or on which its sources differ.

    `says` maps a source (paper, figure, code) to what it says. What is used here is the value of
    the spec's nodes at `paths`, where `*` is every stage, and the words `used`.
    `specs` are the specs that it is about, all of the paper where it is left out.
    """

    what: Text
    says: Annotated[dict[str, Text], Field(min_length=1)]
    paths: tuple[str, ...] = ()
    used: str = ""
    source: Text
    specs: tuple[str, ...] = ()


class Compared(ComponentSpec):
    """Rows about other networks that stand beside the claims, from the paper itself."""

    what: Quantity
    unit: Unit | None = None
    dataset: str = ""
    setting: Text
    rows: Rows
    source: Text
    confidence: Confidence


class Dataset(ComponentSpec):
    """A dataset of the claims. `columns` maps a benchmark to its column for the same or the nearest
    data, and `differs` says how the protocols differ; a benchmark left out does not have it.
    """

    name: Text
    columns: dict[str, Text] = Field(default_factory=dict)
    differs: str = ""


class Paper(ComponentSpec):
    """One file of specs/fidelity. `method` is the name that a benchmark's row would have.

    `read` says what of the paper, its project page and its code could be read.
    """

    title: Text
    method: Text
    specs: Annotated[tuple[str, ...], Field(min_length=1)]
    read: Text
    open: tuple[Point, ...] = ()
    released: tuple[Point, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    compared: tuple[Compared, ...] = ()


class Benchmark(ComponentSpec):
    """A comparison by others than the papers' authors: method -> column -> Dice in percent."""

    name: Text
    source: Text
    protocol: Text
    rows: dict[str, Annotated[dict[str, int | float], Field(min_length=1)]]

    def column(self, name: str) -> dict[str, int | float]:
        """Return method -> Dice of those rows that have this column, highest first."""
        found = {method: row[name] for method, row in self.rows.items() if name in row}
        return dict(sorted(found.items(), key=lambda item: -item[1]))


class Benchmarks(ComponentSpec):
    """The file of benchmarks."""

    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True, slots=True)
class Independent:
    """A benchmark's rows for the data of a claim; without a `column` it has none like them."""

    benchmark: str
    source: str
    protocol: str
    column: str | None
    dice_percent: dict[str, int | float]
    has_this_method: bool


def papers() -> list[Paper]:
    """Return all papers, by file name."""
    return [Paper.model_validate(tree) for name, tree in _files().items() if name != BENCHMARKS]


def paper_of(spec_name: str) -> Paper | None:
    """Return the paper that the bundled spec stands for; ours have none."""
    return next((paper for paper in papers() if spec_name in paper.specs), None)


def benchmarks() -> tuple[Benchmark, ...]:
    """Return the independent benchmarks."""
    return Benchmarks.model_validate(_files()[BENCHMARKS]).benchmarks


def independent(paper: Paper, dataset: Dataset) -> list[Independent]:
    """Return every benchmark with its rows for that dataset, none where it has no such column."""
    return [
        Independent(
            benchmark=benchmark.name,
            source=benchmark.source,
            protocol=benchmark.protocol,
            column=dataset.columns.get(benchmark.name),
            dice_percent=benchmark.column(dataset.columns.get(benchmark.name, "")),
            has_this_method=paper.method in benchmark.rows,
        )
        for benchmark in benchmarks()
    ]


def _files() -> dict[str, object]:
    return {f"{name}.yaml": bundled(name, "fidelity").tree for name in bundled_names("fidelity")}
