"""The verb that turns published weights into ours: convert."""

from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.specs import Overrides, known


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(convert)


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Published weights: .pth, .safetensors.")],
    spec: Annotated[
        str,
        typer.Option("--as", help="The bundled spec whose network they are.", callback=known),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .safetensors file to write.")],
    overrides: Overrides = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Write what fits, start values elsewhere.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write published weights as safetensors that the spec's network loads."""
    from archspec.network.convert import convert as convert_checkpoint

    done = convert_checkpoint(
        checkpoint,
        spec=spec,
        out=out,
        allow_partial=allow_partial,
        force=force,
        overrides=tuple(overrides or ()),
    )
    report = done.report
    kinds = {
        "ignored": report.ignored,
        "unused": report.unused,
        "left at start values": report.missing,
    }
    for kind, keys in kinds.items():
        if keys:
            print(f"note: {len(keys)} tensors {kind}, e.g. {keys[0]}")
    if report.remark:
        print(f"note: {report.remark}")
    print(
        f"wrote {done.path}: {len(report.matched)} tensors of {spec}, {done.in_channels} input "
        f"channels, {done.num_classes} classes"
    )
