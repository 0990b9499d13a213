"""The verb that turns nnU-Net's planned network into a spec: from-plans."""

from pathlib import Path
from typing import Annotated

import typer

from archspec.cli import completion
from archspec.cli.options import Configuration


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(from_plans)


def from_plans(
    dataset: Annotated[
        str,
        typer.Argument(
            help="Dataset id or name, planned by nnU-Net.", autocompletion=completion.datasets
        ),
    ],
    plans: Annotated[str, typer.Option(help="Plans, e.g. nnUNetResEncUNetMPlans.")] = "nnUNetPlans",
    configuration: Configuration = "3d_fullres",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The YAML file to write. Default: print it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write the network that nnU-Net planned for a dataset as a spec, with nnU-Net's recipe."""
    from archspec.files import check_writable, write_text
    from archspec.nnunet.from_plans import tree_of_dataset
    from archspec.spec.yaml_file import dump
    from blocks.errors import SpecError

    if out is not None:
        check_writable(out)
    if out is not None and out.exists() and not force:
        raise SpecError("exists already", where=out, suggestion="give another `out`, or `force`")
    text = dump(tree_of_dataset(dataset, plans_name=plans, configuration=configuration))
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    print(f"wrote {out}")
