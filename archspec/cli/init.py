"""The verb init: a spec or a space to begin with, by options or by questions in a terminal."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.options import DataOrNone, PlansName, UsualConfiguration, dataset_for
from archspec.cli.specs import patch_sizes
from archspec.text import command_line
from blocks.base import MAX_WIDTH, Grid
from blocks.errors import SpecError, argument, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from archspec.nnunet.dataset import PreprocessedDataset
    from archspec.starter.budget import Budget
    from archspec.starter.layout import Layout

PATCHES = {3: (96, 96, 96), 2: (256, 256)}
_BATCH = 2
_LONGEST_NAME = 100


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(init)


def init(
    data: DataOrNone = None,
    budget: Annotated[
        str | None, typer.Option(help="FLOPs of a forward pass of one patch, e.g. 20GFLOPs.")
    ] = None,
    gpu_memory: Annotated[
        str | None, typer.Option(help="Memory that training under AMP has, e.g. 12GB.")
    ] = None,
    mixer: Annotated[
        list[str] | None,
        typer.Option(help="What mixes positions at coarse grids; repeatable with --space."),
    ] = None,
    space: Annotated[
        bool, typer.Option("--space", help="Write a search space instead of one network.")
    ] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The YAML file to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    dimensions: Annotated[
        int, typer.Option(min=2, max=3, help="Axes of the patch, without --data and --patch.")
    ] = 3,
    patch: Annotated[
        str | None,
        typer.Option(help="Patch size in voxels. Default: the dataset's, or 96,96,96 or 256,256."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WIDTH, help="Batch size. Default: the dataset's, or 2."),
    ] = None,
    in_channels: Annotated[
        int, typer.Option(min=1, max=MAX_WIDTH, help="Input channels, without --data.")
    ] = 1,
    num_classes: Annotated[
        int, typer.Option(min=1, max=MAX_WIDTH, help="Classes, without --data.")
    ] = 2,
    configuration: UsualConfiguration = None,
    plans: PlansName = "nnUNetPlans",
) -> None:
    """Write a spec or a search space to begin with, with its costs in comments.

    It is nnU-Net's U-Net with the mixer at its coarse grids, fitted to the dataset's patch and
    spacing as --stages-from-dataset does, and as wide as the budget allows: FLOPs, memory or both.
    In a terminal what is not given is asked for, in up to five questions.
    """
    from archspec.files import check_writable, write_text
    from archspec.starter.text import starter

    given = _Given(data, patch, mixer or [], budget, gpu_memory, out)
    missing = given.missing()
    if missing and _is_terminal():
        given = _asked(given, space=space, dimensions=dimensions, plans=plans)
    elif missing:
        raise SpecError(
            f"{' and '.join(missing)} missing",
            field="init",
            suggestion="in a terminal they are asked for",
        )
    file = given.out or Path("space.yaml" if space else "net.yaml")
    check_writable(file)
    if file.exists() and not force:
        raise SpecError("exists already", where=file, suggestion="give another `out`, or `force`")
    sizes, dataset = _sizes(given.patch) if given.patch else None, None
    if given.data is not None:
        ndim = len(sizes) if sizes else dimensions
        dataset = dataset_for(ndim, given.data, configuration, plans).with_patch(sizes)
    layout = _layout(
        file, given, sizes or PATCHES[dimensions], in_channels, num_classes, dataset, space=space
    )
    found = starter(
        layout,
        _budget(given, batch, dataset),
        told=_told(given, dataset, space=space),
        plans=plans if dataset else None,
    )
    write_text(file, found.text)
    print(f"wrote {file}: {found.summary()}")
    print(f"next: {_next(file, given.data, space=space)}")


@dataclass(frozen=True, slots=True)
class _Given:
    """What is asked for where it was not given."""

    data: str | None
    patch: str | None
    mixers: list[str]
    budget: str | None
    gpu_memory: str | None
    out: Path | None

    def missing(self) -> list[str]:
        """Return what neither has a default nor was given."""
        found = [] if self.budget or self.gpu_memory else ["--budget or --gpu-memory"]
        return found if self.out is not None else [*found, "--out"]


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _asked(given: _Given, *, space: bool, dimensions: int, plans: str) -> _Given:
    """Ask for what was not given; an empty answer leaves it at what stands in brackets."""
    from archspec.costs.fit import memory_size
    from archspec.nnunet.dataset import configuration_names
    from archspec.starter.budget import flops_of

    def checked_data(text: str) -> str:
        configuration_names(text, plans_name=plans)
        return text

    def checked(check: "Callable[[str], object]") -> "Callable[[str], str | None]":
        """Return a check of an answer, after whose refusal the question comes again."""

        def answer(text: str) -> str | None:
            if not text.strip():
                return None
            try:
                check(text)
            except SpecError as error:
                raise typer.BadParameter(render(error.problems)) from None
            return text

        return answer

    def ask(question: str, check: "Callable[[str], object]", shown: str = "none") -> str | None:
        found: str | None = typer.prompt(
            f"{question} [{shown}]", default="", show_default=False, value_proc=checked(check)
        )
        return found

    data, patch, mixers = given.data, given.patch, given.mixers
    data = data or ask("Dataset, id or name, that nnU-Net has preprocessed", checked_data)
    if data is None and patch is None:
        usual = ",".join(map(str, PATCHES[dimensions]))
        patch = ask("Patch size in voxels, 2-D or 3-D", _sizes, usual)
    if not mixers:
        kinds = ", ".join(_kinds())
        found = ask(f"Mixer at coarse grids, of {kinds}", _kind, ", ".join(_usual(space=space)))
        mixers = [found] if found else []
    budget = given.budget or ask("FLOPs of one patch, e.g. 20GFLOPs", flops_of)
    memory = given.gpu_memory or ask("GPU memory to train in, e.g. 12GB", memory_size)
    return replace(given, data=data, patch=patch, mixers=mixers, budget=budget, gpu_memory=memory)


def _sizes(text: str) -> Grid:
    """Return the patch size of '96,96,96'.

    Raises:
        SpecError: it is none.
    """
    sizes = patch_sizes(text)
    if sizes is None or len(sizes) not in (2, 3) or min(sizes) < 1:
        raise SpecError(
            "must be 2 or 3 sizes in voxels, e.g. 96,96,96", where=argument("patch_size", text)
        )
    return sizes


def _kinds() -> list[str]:
    from archspec.starter.layout import mixer_kinds

    return mixer_kinds()


def _kind(text: str) -> str:
    """Return the kind of mixer.

    Raises:
        SpecError: there is none of that name.
    """
    from archspec.spec.words import did_you_mean

    if text not in _kinds():
        raise SpecError(
            f"{text!r} is no mixer",
            field="mixer",
            allowed=", ".join(_kinds()),
            suggestion=did_you_mean(text, _kinds()),
        )
    return text


def _usual(*, space: bool) -> tuple[str, ...]:
    return ("conv", "mamba", "attention") if space else ("conv",)


def _layout(
    file: Path,
    given: _Given,
    patch: Grid,
    in_channels: int,
    num_classes: int,
    dataset: "PreprocessedDataset | None",
    *,
    space: bool,
) -> "Layout":
    from archspec.network.input_sizes import InputSizes
    from archspec.starter.layout import Layout

    mixers = tuple(dict.fromkeys(map(_kind, given.mixers))) or _usual(space=space)
    if len(mixers) > 1 and not space:
        raise SpecError("one network has one `mixer` here; several go with `space`", field="init")
    if space and "conv" not in mixers:
        mixers = ("conv", *mixers)  # what the others have to beat
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).lstrip("._-")
    what = "nnU-Net's U-Net" if mixers == ("conv",) else f"a U-Net with {' or '.join(mixers)}"
    sizes = InputSizes(in_channels=in_channels, num_classes=num_classes, patch_size=patch)
    return Layout(
        name=name[:_LONGEST_NAME] or "net",
        title=f"A start: {what}" + (f", for {dataset.name}" if dataset else ""),
        sizes=sizes if dataset is None else dataset.sizes,
        mixers=mixers,
        is_space=space,
    )


def _budget(given: _Given, batch: int | None, dataset: "PreprocessedDataset | None") -> "Budget":
    from archspec.costs.fit import memory_size
    from archspec.starter.budget import Budget, flops_of

    return Budget(
        flops=flops_of(given.budget) if given.budget else None,
        memory=memory_size(given.gpu_memory) if given.gpu_memory else None,
        batch=batch or (dataset.batch_size if dataset else _BATCH),
    )


def _told(given: _Given, dataset: "PreprocessedDataset | None", *, space: bool) -> str:
    """Return how the file came about, in a sentence or two."""
    options = {
        "--data": given.data,
        "--patch": given.patch,
        "--budget": given.budget,
        "--gpu-memory": given.gpu_memory,
    }
    words = [part for name, value in options.items() if value for part in (name, value)]
    words += [part for kind in given.mixers for part in ("--mixer", kind)] + ["--space"] * space
    told = f"Written by {command_line('archspec', 'init', *words)}."
    if dataset is None:
        return told
    spacing = " x ".join(f"{size:g}" for size in dataset.spacing)
    return f"{told} For {dataset.name}, {dataset.configuration}, of {spacing} mm."


def _next(file: Path, data: str | None, *, space: bool) -> str:
    if space:
        if data is None:
            return command_line("archspec", "validate", file)
        options = ("--data", data, "--trials", 40, "--out", Path("runs") / file.stem)
        return command_line("archspec", "search", file, *options)
    if data is None:
        return command_line("archspec", "describe", file)
    return command_line("archspec", "export", file, "--dataset", data)
