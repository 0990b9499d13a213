"""The verb `fidelity`: networks against what papers state about them."""

import json
from typing import Annotated

import typer

from archspec.cli.specs import all_known


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(fidelity)


def fidelity(
    specs: Annotated[
        list[str] | None,
        typer.Argument(help="Bundled names or YAML files; all bundled ones.", callback=all_known),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, one list of pages.")] = False,
    counters: Annotated[
        bool, typer.Option("--counters", help="Also run thop, fvcore and ptflops, where installed.")
    ] = False,
) -> None:
    """Set claimed figures beside what is built, and what papers leave open beside what is used.

    The exit code is 1 if a claimed cost is not what is built and no note says why.
    """
    from archspec.costs.counters import count, counts_json, counts_text
    from archspec.papers.compare import fidelity_page, page_json
    from archspec.papers.text import page_text, unexplained_text
    from archspec.spec.find import list_specs
    from archspec.spec.load import load

    loaded = [load(name) for name in specs or list_specs()]
    pages = [fidelity_page(spec) for spec in loaded]
    counted = [count(spec) if counters else None for spec in loaded]
    if json_:
        both = zip(pages, counted, strict=True)
        print(json.dumps([{**page_json(p), "counters": c and counts_json(c)} for p, c in both]))
    else:
        texts = [
            "\n".join([page_text(p), *([] if c is None else ["", counts_text(c)])])
            for p, c in zip(pages, counted, strict=True)
        ]
        print("\n\n".join(texts))
        if any(page.unexplained for page in pages):
            print(unexplained_text(pages))
    if any(page.unexplained for page in pages):
        raise typer.Exit(1)
