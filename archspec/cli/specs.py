"""Verbs about specs: list, validate, describe."""

import json
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.spec.bundled import bundled, bundled_names
from archspec.spec.find import list_specs, load_tree

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


def _known_or_space(spec: str) -> str:
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
    app.command()(validate)
    app.command()(describe)


def list_(
    pattern: Annotated[str, typer.Argument(help="A shell pattern.")] = "*", json_: Json = False
) -> None:
    """List the bundled specs, and the search spaces."""
    specs = {name: bundled(name).tree.get("title", "") for name in list_specs(pattern)}
    if json_:
        print(json.dumps(specs))
        return
    for name, title in specs.items():
        print(textwrap.fill(f"{name:22}{title}", 80, subsequent_indent=" " * 22))
    spaces = f"search spaces (archspec search): {', '.join(bundled_names('search'))}"
    print(textwrap.fill(spaces, 80, subsequent_indent="  ", break_on_hyphens=False))


def validate(
    spec: Annotated[
        str, typer.Argument(help="A bundled name or a YAML file.", callback=_known_or_space)
    ],
    overrides: Overrides = None,
    patch: Patch = None,
) -> None:
    """Check a spec at its own patch size or --patch, or a search space with all its members."""
    from search.space.space import is_space, load_space

    if is_space(spec):
        space = load_space(spec, overrides=tuple(overrides or ()))
        holes = space.holes()
        count = f"{len(holes)} hole{'s' * (len(holes) > 1)}"
        print(f"{space.name}: ok, a search space with {count}, {space.size().text()}")
        for hole in holes:
            print(f"  {hole.name}: {hole.kind} {list(hole.options)}")
        return
    planned = planned_at(patch, spec, overrides)
    grids = " -> ".join(str(list(stage.out.grid)) for stage in planned.stages)
    print(f"{planned.spec.name}: ok, patch {planned.patch_text} -> {grids}")


def describe(
    specs: Specs,
    overrides: Overrides = None,
    in_channels: Annotated[int | None, typer.Option(min=1)] = None,
    num_classes: Annotated[int | None, typer.Option(min=1)] = None,
    patch: Patch = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size of a training step.")] = 2,
    gpu_memory: Annotated[
        str | None, typer.Option(help="Ask whether training under AMP fits, e.g. 12GB")
    ] = None,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="Add GMAC per stage and kind of operation.")
    ] = False,
    json_: Json = False,
) -> None:
    """Say what networks are and cost, without building them; several are compared.

    Networks are compared at --patch, or else at the first one's input, where all have as many
    axes. With --gpu-memory the exit code is 1 if one does not fit.
    """
    from archspec.costs.describe import describe_plans
    from archspec.costs.diff import check_dimensions
    from archspec.costs.fit import memory_size
    from archspec.network.input_sizes import InputSizes
    from archspec.network.plan import Plan
    from archspec.spec.load import load

    available = None if gpu_memory is None else memory_size(gpu_memory)
    plans: list[Plan] = []
    for spec in specs:
        first = plans[0] if plans else None
        if first is not None and patch is None:
            own = load(spec, overrides=overrides or ()).patch_size
            check_dimensions(specs[0], first.patch_size, spec, own)
        sizes = InputSizes(
            in_channels=in_channels or (first.in_channels if first else None),
            num_classes=num_classes or (first.num_classes if first else None),
            patch_size=first.patch_size if first else None,
        )
        plans.append(planned_at(patch, spec, overrides, sizes))
    found = describe_plans(plans, batch=batch, available=available)
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
            "must be sizes with commas, e.g. 96,96,96, or exact", where=argument("patch", text)
        ) from None
