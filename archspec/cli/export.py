"""Verbs at the border to nnU-Net: export."""

import shlex
import textwrap
from typing import Annotated

import typer

from archspec.cli.options import Data, StagesFromDataset
from archspec.cli.refusal import with_options
from archspec.cli.specs import Overrides, Spec, patch_or_exact
from blocks.base import MAX_WIDTH

_WIDTH = 80


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(export)


def export(
    context: typer.Context,
    spec: Spec,
    dataset: Data,
    overrides: Overrides = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(help="nnU-Net configuration, repeatable. Default: 3d_fullres, or 2d."),
    ] = None,
    base_plans: Annotated[str, typer.Option(help="Plans to derive from.")] = "nnUNetPlans",
    plans_name: Annotated[str | None, typer.Option(help="Name of the new plans.")] = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="Patch size in voxels instead of the dataset's: 96,96,96; exact refuses to pad."
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WIDTH, help="Batch size instead of the dataset's."),
    ] = None,
    fit_memory: Annotated[
        str | None, typer.Option(help="Shrink batch, then patch, until training fits, e.g. 24GB")
    ] = None,
    stages_from_dataset: StagesFromDataset = False,
    recipe: Annotated[str, typer.Option(help="Train as the spec or as nnunet says.")] = "spec",
    force: Annotated[bool, typer.Option("--force", help="Replace existing plans.")] = False,
) -> None:
    """Write plans with which stock nnU-Net trains and predicts the network."""
    from archspec.nnunet.export import export_nnunet
    from archspec.spec.load import load

    exported = export_nnunet(
        load(spec, overrides=overrides or ()),
        dataset,
        configuration=configuration,
        base_plans=base_plans,
        plans_name=plans_name,
        patch_size=patch_or_exact(patch),
        batch_size=batch,
        fit_memory=fit_memory,
        stages_from_dataset=stages_from_dataset,
        recipe=recipe,
        force=force,
    )
    print(f"wrote {exported.path}")
    for note in exported.notes:
        print(_wrapped(f"note: {with_options(note, context)}"))
    print("run next:")
    for line in exported.environment:
        print(f"  {line}")
    for command in exported.commands:
        print(folded(command))


def _wrapped(text: str) -> str:
    """Return the text in lines of 80 columns, without breaking paths and options."""
    return textwrap.fill(
        text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def folded(command: str) -> str:
    """Return a command as lines that a shell takes as one, broken before its options."""
    parts: list[str] = []
    for word in map(shlex.quote, shlex.split(command)):
        if parts and not word.startswith("-"):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    lines = ["  " + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + len("  \\") > _WIDTH:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)
