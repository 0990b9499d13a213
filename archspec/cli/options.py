"""Options that verbs share which train on a dataset, and those of `search` that stand for settings.

Checked without torch.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from blocks.errors import Place, Problem, SpecError

if TYPE_CHECKING:
    from search.space.space import Space

_DATA = typer.Option(help="Dataset id or name, preprocessed by nnU-Net.")

Data = Annotated[str, _DATA]
DataOrNone = Annotated[str | None, _DATA]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes; on CUDA one per GPU.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads per worker.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Configuration = Annotated[str, typer.Option(help="nnU-Net configuration.")]
PlansName = Annotated[str, typer.Option(help="Plans the data were preprocessed with.")]
Fold = Annotated[int, typer.Option(min=0, help="Fold: which cases validate.")]

Shorthands = dict[str, str]
"""Override -> the option that stands for it, as typed."""


def shorthands(
    *,
    stopper: str | None,
    max_gflops: float | None,
    max_params: float | None,
    max_memory: str | None,
    test_share: float | None,
) -> Shorthands:
    """Return the overrides of the options that were given."""
    options = {
        "stopper": ("--stopper", stopper),
        "limits.gflops": ("--max-gflops", max_gflops),
        "limits.params": ("--max-params", max_params),
        "limits.memory": ("--max-memory", max_memory),
        "test_share": ("--test-share", test_share),
    }
    found = {}
    for key, (option, value) in options.items():
        if value is not None:
            text = f"{value:.12g}" if isinstance(value, float) else value
            found[f"search.{key}={text}"] = f"{option} {text}"
    return found


def space_with_options(space: str, overrides: Sequence[str], short: Shorthands) -> "Space":
    """Return the space with the overrides, then those of the options.

    Raises:
        SpecError: as `load_space`; an option is named as it was typed.
    """
    from search.space.space import load_space

    try:
        return load_space(space, overrides=(*overrides, *short))
    except SpecError as error:
        raise SpecError([_typed(one, short) for one in error.problems]) from None


def _typed(one: Problem, short: Shorthands) -> Problem:
    """Return the problem of an override with the option that stands for it, if one does."""
    if one.where is None or one.where.kind != "override" or one.where.name not in short:
        return one
    name, value = short[one.where.name].split(" ", 1)
    return replace(one, where=Place(name, kind="option", value=value), field="")
