"""Verbs that compare: `diff` two specs, `profile` estimates against measurements."""

import json
from typing import Annotated

import typer

from archspec.cli import completion
from archspec.cli.options import MAX_COUNT, Batch
from archspec.cli.specs import Json, Spec, known, planned_at


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(diff)
    app.command()(profile)


def diff(
    a: Spec,
    b: Annotated[
        str, typer.Argument(help="Another.", callback=known, autocompletion=completion.specs)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="Override a node of the second: diff X X -s ..."),
    ] = None,
    patch: Annotated[str | None, typer.Option(help="Patch size of both, e.g. 96,96,96")] = None,
    json_: Json = False,
) -> None:
    """Say in what two networks differ, and what each difference costs, at the first one's input.

    `archspec diff X X -s path=value` says what a change of X costs.
    """
    from archspec.costs.diff import check_dimensions, diff_plans
    from archspec.network.resolve import resolve

    first, other = planned_at(patch, a), resolve(b, overrides=overrides or ())
    if patch is None:
        check_dimensions(a, first.patch_size, b, other.patch_size)
    found = diff_plans(first, planned_at(patch, b, overrides, first.sizes))
    print(json.dumps(found.to_json()) if json_ else found.text())


def profile(
    spec: Spec,
    overrides: Annotated[
        list[str] | None, typer.Option("-s", "--set", help="Override a node: name=value")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    patch: Annotated[str | None, typer.Option(help="Patch size in voxels, e.g. 96,96,96")] = None,
    batch: Batch = 1,
    amp: Annotated[
        bool | None,
        typer.Option("--amp/--no-amp", help="Mixed precision; left out, as trials: on a GPU."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=MAX_COUNT)] = 5,
    json_: Json = False,
) -> None:
    """Measure forward pass, training step, memory and energy, beside the estimates."""
    from archspec.costs.measure import profile_plan

    planned = planned_at(patch, spec, overrides)
    found = profile_plan(planned, device=device, batch=batch, amp=amp, repeats=repeats)
    print(json.dumps(found.to_json()) if json_ else found.text())
