"""The verb `fidelity`: networks against what papers state about them."""

import json
from typing import Annotated

import typer

from archspec.cli import completion
from archspec.cli.specs import all_known


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(fidelity)


def fidelity(
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Bundled names or YAML files; all bundled ones.",
            callback=all_known,
            autocompletion=completion.specs,
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, one list of pages.")] = False,
    counters: Annotated[
        bool, typer.Option("--counters", help="Also run thop, fvcore and ptflops, where installed.")
    ] = False,
) -> None:
    """Set claimed figures beside what is built, and what papers leave open beside what is used.

    The exit code is 1 if a claimed cost is not what is built and no note says why.
    """
    from archspec.papers.fidelity import fidelity as compute
    from archspec.spec.find import list_specs
    from archspec.spec.load import load

    found = compute([load(name) for name in specs or list_specs()], counters=counters)
    print(json.dumps(found.to_json()) if json_ else found.text())
    if not found.explained:
        raise typer.Exit(1)
