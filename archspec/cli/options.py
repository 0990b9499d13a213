"""Options that verbs share which train on a dataset, and those of `search` that stand for settings.

Checked without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli import completion
from archspec.cli.refusal import OPTIONS
from blocks.base import MAX_COUNT as _MAX_FIELD
from blocks.base import MAX_WIDTH
from blocks.errors import Place, Problem, SpecError

if TYPE_CHECKING:
    from archspec.nnunet.dataset import PreprocessedDataset
    from search.space.settings import GivenSettings
    from search.space.space import Space

MAX_STEPS = _MAX_FIELD
MAX_COUNT = 10**6
"""Trials, cases, repeats, hours: what only takes time."""
MAX_SEED = 2**31 - 1
_MAX_WORKERS = 1024

_DATA = typer.Option(
    help="Dataset id or name, preprocessed by nnU-Net.", autocompletion=completion.datasets
)

Data = Annotated[str, _DATA]
DataOrNone = Annotated[str | None, _DATA]
Jobs = Annotated[
    int,
    typer.Option(min=1, max=_MAX_WORKERS, help="Worker processes; on CUDA one per GPU."),
]
Threads = Annotated[int, typer.Option(min=1, max=_MAX_WORKERS, help="CPU threads per worker.")]
Engine = Annotated[
    str, typer.Option(help="What trains: local, processes of this machine, or ray, a cluster.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Head of the Ray cluster, host:port. Default: a cluster of its own, here."),
]
GpusPerJob = Annotated[
    float | None,
    typer.Option(
        min=0, max=_MAX_WORKERS, help="GPUs per place on a Ray cluster: 1, or 0.5 for half of one."
    ),
]
CpusPerJob = Annotated[
    int | None,
    typer.Option(min=1, max=_MAX_WORKERS, help="CPUs per place on a Ray cluster. Default: 1."),
]
Batch = Annotated[int, typer.Option(min=1, max=MAX_WIDTH, help="Batch size.")]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="Trainings of each network.")]
Steps = Annotated[int, typer.Option(min=1, max=MAX_STEPS, help="Optimizer steps of a training.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Configuration = Annotated[str, typer.Option(help="nnU-Net configuration.")]
UsualConfiguration = Annotated[
    str | None, typer.Option(help="nnU-Net configuration. Default: 3d_fullres, or 2d.")
]
PlansName = Annotated[str, typer.Option(help="Plans the data were preprocessed with.")]
StagesFromDataset = Annotated[
    bool,
    typer.Option("--stages-from-dataset", help="Fit strides, kernels and stages to the spacing."),
]
Fold = Annotated[int, typer.Option(min=0, max=1000, help="Fold: which cases validate.")]


def check_fitting(stages_from_dataset: bool, data: str | None) -> None:
    """Refuse to fit stages to no dataset.

    Raises:
        SpecError: see above.
    """
    if stages_from_dataset and data is None:
        raise SpecError("`stages_from_dataset` needs `data`, whose spacing they are fitted to")


def dataset_for(
    ndim: int, data: str, configuration: str | None, plans: str
) -> "PreprocessedDataset":
    """Return the dataset; by default the usual configuration for networks with so many axes.

    Raises:
        SpecError: as `find_dataset`.
    """
    from archspec.nnunet.dataset import find_dataset, usual_configuration

    chosen = configuration or usual_configuration(data, ndim=ndim, plans_name=plans)
    return find_dataset(data, configuration=chosen, plans_name=plans)


def space_with_options(space: str, overrides: Sequence[str], given: "GivenSettings") -> "Space":
    """Return the space with the overrides, then the settings that options gave.

    Raises:
        SpecError: as `load_space`; an option is named as it was typed.
    """
    from search.space.space import load_space

    options = {}
    for name, path, value in given.paths():
        text = f"{value:.12g}" if isinstance(value, float) else value
        option = OPTIONS.get(name, name).replace("_", "-")
        options[f"{path}={text}"] = Place(f"--{option}", kind="option", value=text)
    try:
        return load_space(space, overrides=(*overrides, *options))
    except SpecError as error:
        raise SpecError([_typed(one, options) for one in error.problems]) from None


def _typed(one: Problem, options: Mapping[str, Place]) -> Problem:
    """Return the problem of an override with the option that stands for it, if one does."""
    if one.where is None or one.where.kind != "override" or one.where.name not in options:
        return one
    return replace(one, where=options[one.where.name], field="")
