"""Verbs about specs: list, validate, describe."""

import json
from typing import Annotated

import typer

Spec = Annotated[str, typer.Argument(help="A bundled name or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", help="Override a node: encoder.stages.0.width=32"),
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
    from archspec.loading import list_specs, load
    from search.space import list_spaces

    specs = {name: load(name).title for name in list_specs(pattern)}
    if json_:
        print(json.dumps(specs))
        return
    for name, title in specs.items():
        print(f"{name:24}{title}")
    print(f"search spaces (archspec search): {', '.join(list_spaces())}")


def validate(spec: Spec, overrides: Overrides = None) -> None:
    """Check a spec at its own patch size, or a search space with all its members."""
    from archspec.resolving import resolve
    from search.space import is_space, load_space

    if is_space(spec):
        space = load_space(spec, overrides=tuple(overrides or ()))
        holes = space.holes()
        print(f"{space.name}: ok, a search space with {len(holes)} hole{'s' * (len(holes) > 1)}")
        for hole in holes:
            print(f"  {hole.name}: {hole.kind} {list(hole.options)}")
        return
    planned = resolve(spec, overrides=overrides or ())
    grids = " -> ".join(str(list(stage.out.grid)) for stage in planned.stages)
    print(f"{planned.spec.name}: ok, patch {list(planned.patch_size)} -> {grids}")


def describe(
    spec: Spec,
    overrides: Overrides = None,
    in_channels: Annotated[int | None, typer.Option(min=1)] = None,
    num_classes: Annotated[int | None, typer.Option(min=1)] = None,
    patch: Annotated[str | None, typer.Option(help="Patch size in voxels, e.g. 96,96,96")] = None,
    json_: Json = False,
) -> None:
    """Say what a network is and costs, stage by stage, without building it in memory."""
    from archspec.describing import describe_json, describe_text
    from archspec.resolving import resolve
    from blocks.base import SpecError
    from search.space import is_space

    try:
        patch_size = tuple(int(size) for size in patch.split(",")) if patch else None
    except ValueError:
        raise SpecError(f"--patch {patch}: must be sizes with commas, e.g. 96,96,96") from None
    if is_space(spec):
        raise SpecError(f"{spec}: a search space, not one network; see archspec validate {spec}")
    planned = resolve(
        spec,
        overrides=overrides or (),
        in_channels=in_channels,
        num_classes=num_classes,
        patch_size=patch_size,
    )
    print(json.dumps(describe_json(planned)) if json_ else describe_text(planned))
