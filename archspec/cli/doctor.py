"""The verb `doctor`."""

import json
import warnings
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(doctor)


def doctor(json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print versions and devices, and run every scan backend; exit code 1 if one needs mending."""
    from archspec.doctor import diagnose

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a warning says stands in the report
        found = diagnose()
    print(json.dumps(found.to_json(), indent=2) if json_ else found.text())
    if found.trouble:
        raise typer.Exit(1)
