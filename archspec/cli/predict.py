"""The verb that makes masks of images: predict."""

import json
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.interrupts import same_command, stopped
from archspec.cli.options import Device
from archspec.cli.specs import Json


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(predict)


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            help="What convert-model or archspec.save wrote, or a model folder of nnU-Net."
        ),
    ],
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder of NIfTI or PNG files, or a file; CASE_0000.nii.gz is CASE's channel 0."
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the masks; for one image a file too.")
    ],
    fold: Annotated[
        str | None, typer.Option(help="Fold of the model folder. Default: the only one.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint of the fold.")
    ] = "checkpoint_final.pth",
    device: Device = "auto",
    no_mirroring: Annotated[
        bool,
        typer.Option(
            "--no-mirroring", help="Predict no mirror images: faster. nnU-Net's --disable_tta."
        ),
    ] = False,
    step_size: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="How far a window moves, of its size. nnU-Net's."),
    ] = 0.5,
    resume: Annotated[
        bool, typer.Option("--continue", help="Keep masks that are there, predict the others.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace masks that are there.")] = False,
    json_: Json = False,
) -> None:
    """Segment images with a trained network, as nnUNetv2_predict does.

    Images are cropped, resampled and normalized as in the training, predicted by sliding windows
    and mirrored; each mask has its image's geometry, name and file type.
    """
    from archspec.cli.display import PredictDisplay
    from archspec.inference.predict import predict as run

    display = PredictDisplay()
    again = same_command()
    onward = f"; {again} begins anew" if force else f"; go on with {same_command('--continue')}"
    with stopped(lambda: onward), display:
        found = run(
            model,
            images,
            out,
            fold=fold,
            checkpoint=checkpoint,
            device=device,
            mirroring=not no_mirroring,
            step_size=step_size,
            force=force,
            resume=resume,
            on_step=display.show,
        )
    print(json.dumps(found.to_json()) if json_ else found.text())
