"""The verb schema, and what `list --fields` prints."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(schema)


def schema(
    of: Annotated[Literal["spec", "space"], typer.Argument(help="spec or space.")] = "spec",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file instead.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    line: Annotated[
        bool, typer.Option("--line", help="Only print the line that points editors to it.")
    ] = False,
) -> None:
    """Print the JSON Schema of specs or of spaces, by which editors complete and check YAML.

    An editor with a YAML language server reads it where the first line of a file is
    `# yaml-language-server: $schema=FILE`, FILE being a URL, a path, or one relative to that file.
    With --line that line is printed, for the schema that is installed with archspec; it is the
    first of what `archspec init` writes. Components of other packages are only in the schema that
    is printed: write it beside your file with -o and name it there.
    """
    from archspec.files import check_writable, write_text
    from archspec.spec.json_schema import editor_line, spec_schema
    from blocks.errors import SpecError
    from search.space.json_schema import space_schema

    if line:
        print(editor_line(of))
        return
    if out is not None:
        check_writable(out)
    if out is not None and out.exists() and not force:
        raise SpecError("exists already", where=out, suggestion="give another `out`, or `force`")
    found = spec_schema() if of == "spec" else space_schema()
    text = json.dumps(found, indent=2)
    if out is None:
        print(text)
        return
    write_text(out, f"{text}\n")
    print(f"wrote {out}")


def print_fields(name: str, *, markdown: bool, json_: bool) -> None:
    """Print the fields of a section or component; `all` stands for all.

    Raises:
        SpecError: there is none of that name.
    """
    from archspec.spec.reference import page, reference, references
    from search.space.settings import SECTIONS

    if markdown and name == "all":
        print(page(SECTIONS), end="")
        return
    found = references(SECTIONS) if name == "all" else reference(name, SECTIONS)
    if json_:
        print(json.dumps([one.to_json() for one in found]))
    else:
        print("\n\n".join(one.markdown() if markdown else one.text() for one in found))
