"""Verbs about specs: list, describe, draw."""

import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from archspec.cli import completion
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


Spec = Annotated[
    str,
    typer.Argument(
        help="A bundled name or a YAML file.", callback=known, autocompletion=completion.specs
    ),
]
Specs = Annotated[
    list[str],
    typer.Argument(
        help="Bundled names or YAML files.", callback=all_known, autocompletion=completion.specs
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        help="Override a node: encoder.stages.0.width=32",
        autocompletion=completion.fields,
    ),
]
EXACT = "exact"
"""The value of --patch that takes the size as it is, and refuses to pad it."""
Patch = Annotated[
    str | None,
    typer.Option(help="Patch size in voxels, e.g. 96,96,96; exact refuses to pad it."),
]
InChannels = Annotated[int | None, typer.Option(min=1, max=MAX_WIDTH)]
NumClasses = Annotated[int | None, typer.Option(min=1, max=MAX_WIDTH)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_STDOUT = Path("-")


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("list")(list_)
    app.command()(describe)
    app.command()(draw)


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
    in_channels: InChannels = None,
    num_classes: NumClasses = None,
    patch: Patch = None,
    batch: Batch = 2,
    gpu_memory: Annotated[
        str | None, typer.Option(help="Ask whether training under AMP fits, e.g. 12GB")
    ] = None,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="Add GMAC per stage and kind of operation.")
    ] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Draw the network into this file, as `archspec draw` does.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing drawing.")] = False,
    json_: Json = False,
) -> None:
    """Say what networks are and cost, without building them; several are compared.

    Sizes are the spec's own, with --data the dataset's; --patch and the others given win. Networks
    are compared at --patch, or else at the first one's input, where all have as many axes. With
    --gpu-memory the exit code is 1 if one does not fit.
    """
    from archspec.costs.describe import describe_plans
    from archspec.costs.fit import memory_size
    from blocks.errors import SpecError, argument

    if draw is not None:
        where = argument("draw", draw)
        if len(specs) > 1 or draw == _STDOUT:
            what = "`draw` takes one network" if len(specs) > 1 else "the page is printed already"
            raise SpecError(what, where=where, suggestion="use archspec draw")
        _check_free(draw, "draw", force=force)
    available = None if gpu_memory is None else memory_size(gpu_memory)
    planned = _planned(
        context,
        specs,
        overrides,
        data=data,
        configuration=configuration,
        plans=plans,
        stages_from_dataset=stages_from_dataset,
        in_channels=in_channels,
        num_classes=num_classes,
        patch=patch,
    )
    found = describe_plans(planned, batch=batch, available=available)
    print(json.dumps(found.to_json()) if json_ else found.text(kinds=kinds))
    if draw is not None:
        print(_drawn(planned[0], draw), file=sys.stderr)
    if not found.fits:
        raise typer.Exit(1)


def draw(
    context: typer.Context,
    spec: Spec,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The SVG to write. Default, or -: print it.")
    ] = None,
    overrides: Overrides = None,
    data: DataOrNone = None,
    configuration: UsualConfiguration = None,
    plans: PlansName = "nnUNetPlans",
    stages_from_dataset: StagesFromDataset = False,
    in_channels: InChannels = None,
    num_classes: NumClasses = None,
    patch: Patch = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Draw a network as an SVG, light or dark as the reader's system is.

    It has the stages with grid, width, depth and mixers, skips, the decoder's levels, outputs, and
    the share that each part has of the FLOPs. Sizes are those of `archspec describe`.
    """
    from archspec.drawing.draw import draw_plan

    file = None if out == _STDOUT else out
    if file is not None:
        _check_free(file, "out", force=force)
    (planned,) = _planned(
        context,
        [spec],
        overrides,
        data=data,
        configuration=configuration,
        plans=plans,
        stages_from_dataset=stages_from_dataset,
        in_channels=in_channels,
        num_classes=num_classes,
        patch=patch,
    )
    print(_drawn(planned, file) if file is not None else draw_plan(planned).svg().rstrip())


def _check_free(file: Path, option: str, *, force: bool) -> None:
    """Refuse, before the work, a drawing that could not be written, or that is there.

    Raises:
        SpecError: see above.
    """
    from archspec.files import check_writable
    from blocks.errors import SpecError

    check_writable(file)
    if file.exists() and not force:
        suggestion = f"give another `{option}`, or `force`"
        raise SpecError("exists already", where=file, suggestion=suggestion)


def _drawn(planned: "Plan", file: Path) -> str:
    """Write a drawing, and return the line that says so."""
    from archspec.drawing.draw import draw_plan
    from archspec.files import write_text

    write_text(file, draw_plan(planned).svg())
    return f"wrote {file}"


def _planned(
    context: typer.Context,
    specs: list[str],
    overrides: list[str] | None,
    *,
    data: str | None,
    configuration: str | None,
    plans: str,
    stages_from_dataset: bool,
    in_channels: int | None,
    num_classes: int | None,
    patch: str | None,
) -> "list[Plan]":
    """Plan networks at the sizes that were asked for; print what is to know of them.

    Raises:
        SpecError: as `resolve`, `find_dataset`; networks with other numbers of axes.
    """
    from archspec.costs.diff import check_dimensions
    from archspec.network.input_sizes import OF_SPEC
    from archspec.network.stages import fitted
    from archspec.nnunet.sizes import dimension_notes
    from archspec.spec.load import load

    check_fitting(stages_from_dataset, data)
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
    return planned


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
