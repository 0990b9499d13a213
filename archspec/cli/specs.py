"""Verbs about specs: list, describe."""

import json
import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from archspec.cli.fields import print_fields
from archspec.cli.options import (
    Batch,
    DataOrNone,
    PlansName,
    StagesFromDataset,
    UsualConfiguration,
    check_fitting,
    dataset_for,
)
from archspec.cli.refusal import with_options
from archspec.spec.bundled import bundled, bundled_names
from archspec.spec.find import list_specs, load_tree
from blocks.base import MAX_WIDTH

if TYPE_CHECKING:
    from archspec.network.input_sizes import InputSizes
    from archspec.network.plan import Plan


def known(spec: str) -> str:
    """Return the name or file if a spec can be read there; nothing here imports torch.

    Raises:
        SpecError: as `load_tree`.
    """
    load_tree(spec)
    return spec


def known_or_space(spec: str) -> str:
    """Return the name or file if a spec or a space can be read there, as `known` does."""
    return spec if spec in bundled_names("search") else known(spec)


def all_known(specs: list[str] | None) -> list[str] | None:
    """Return the names if `known` takes each."""
    for spec in specs or ():
        known(spec)
    return specs


Spec = Annotated[str, typer.Argument(help="A bundled name or a YAML file.", callback=known)]
Specs = Annotated[
    list[str], typer.Argument(help="Bundled names or YAML files.", callback=all_known)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", help="Override a node: encoder.stages.0.width=32"),
]
EXACT = "exact"
"""The value of --patch that takes the size as it is, and refuses to pad it."""
Patch = Annotated[
    str | None,
    typer.Option(help="Patch size in voxels, e.g. 96,96,96; exact refuses to pad it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("list")(list_)
    app.command()(describe)


def list_(
    pattern: Annotated[str, typer.Argument(help="A shell pattern.")] = "*",
    fields: Annotated[
        str | None,
        typer.Option(help="Fields of a section or component instead: mixer.attention, stage, all."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print --fields so.")] = False,
    json_: Json = False,
) -> None:
    """List the bundled specs, and the search spaces."""
    if fields is not None:
        print_fields(fields, markdown=markdown, json_=json_)
        return
    specs = {name: bundled(name).tree.get("title", "") for name in list_specs(pattern)}
    if json_:
        print(json.dumps(specs))
        return
    for name, title in specs.items():
        print(textwrap.fill(f"{name:22}{title}", 80, subsequent_indent=" " * 22))
    spaces = f"search spaces (archspec search): {', '.join(bundled_names('search'))}"
    print(textwrap.fill(spaces, 80, subsequent_indent="  ", break_on_hyphens=False))


def describe(
    context: typer.Context,
    specs: Specs,
    overrides: Overrides = None,
    data: DataOrNone = None,
    configuration: UsualConfiguration = None,
    plans: PlansName = "nnUNetPlans",
    stages_from_dataset: StagesFromDataset = False,
    in_channels: Annotated[int | None, typer.Option(min=1, max=MAX_WIDTH)] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, max=MAX_WIDTH)] = None,
    patch: Patch = None,
    batch: Batch = 2,
    gpu_memory: Annotated[
        str | None, typer.Option(help="Ask whether training under AMP fits, e.g. 12GB")
    ] = None,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="Add GMAC per stage and kind of operation.")
    ] = False,
    json_: Json = False,
) -> None:
    """Say what networks are and cost, without building them; several are compared.

    Sizes are the spec's own, with --data the dataset's; --patch and the others given win. Networks
    are compared at --patch, or else at the first one's input, where all have as many axes. With
    --gpu-memory the exit code is 1 if one does not fit.
    """
    from archspec.costs.describe import describe_plans
    from archspec.costs.diff import check_dimensions
    from archspec.costs.fit import memory_size
    from archspec.network.input_sizes import OF_SPEC
    from archspec.network.plan import Plan
    from archspec.network.stages import fitted
    from archspec.nnunet.sizes import dimension_notes
    from archspec.spec.load import load

    check_fitting(stages_from_dataset, data)
    available = None if gpu_memory is None else memory_size(gpu_memory)
    base, dataset = OF_SPEC, None
    if data is not None:
        ndim = len(load(specs[0], overrides=overrides or ()).patch_size)
        dataset = dataset_for(ndim, data, configuration, plans)
        base = replace(dataset.sizes, fit_stages=stages_from_dataset)
    planned: list[Plan] = []
    for spec in specs:
        first = planned[0] if planned else None
        own = load(spec, overrides=overrides or ())
        if first is not None and patch is None and dataset is None:
            check_dimensions(specs[0], first.patch_size, spec, own.patch_size)
        asked = first.sizes if first else base
        sizes = replace(
            base,
            in_channels=in_channels or asked.in_channels,
            num_classes=num_classes or asked.num_classes,
            patch_size=patch_sizes(patch) or asked.patch_size,
        )
        planned.append(planned_at(patch, spec, overrides, sizes))
        notes = dimension_notes(own, dataset) if dataset else []
        notes += [fitted(own, sizes).note] if sizes.fit_stages else []
        for note in notes:
            print(f"note: {with_options(note, context)}", file=sys.stderr)
    found = describe_plans(planned, batch=batch, available=available)
    print(json.dumps(found.to_json()) if json_ else found.text(kinds=kinds))
    if not found.fits:
        raise typer.Exit(1)


def planned_at(
    patch: str | None,
    spec: str,
    overrides: list[str] | None = None,
    sizes: "InputSizes | None" = None,
) -> "Plan":
    """Return the plan at --patch, else at the sizes, else at the spec's own.

    Raises:
        SpecError: as `resolve`.
    """
    from archspec.network.input_sizes import OF_SPEC
    from archspec.network.resolve import resolve

    asked = sizes or OF_SPEC
    exact = patch == EXACT
    asked = replace(asked, patch_size=patch_sizes(patch) or asked.patch_size, exact=exact)
    return resolve(spec, asked, overrides=overrides or ())


def patch_or_exact(text: str | None) -> 'tuple[int, ...] | Literal["exact"] | None':
    """Return the sizes of '96,96,96', or `exact`.

    Raises:
        SpecError: as `patch_sizes`.
    """
    return "exact" if text == EXACT else patch_sizes(text)


def patch_sizes(text: str | None) -> tuple[int, ...] | None:
    """Return the sizes of '96,96,96'; None for `exact`, which is the size that is given already.

    Raises:
        SpecError: not integers with commas.
    """
    from blocks.errors import SpecError, argument

    if text == EXACT:
        return None
    try:
        return tuple(int(size) for size in text.split(",")) if text else None
    except ValueError:
        raise SpecError(
            "must be sizes with commas, e.g. 96,96,96, or exact", where=argument("patch_size", text)
        ) from None
