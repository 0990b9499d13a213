"""Options that verbs share which train on a preprocessed dataset."""

from typing import Annotated

import typer

_DATA = typer.Option(help="Dataset id or name, preprocessed by nnU-Net.")

Data = Annotated[str, _DATA]
DataOrNone = Annotated[str | None, _DATA]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes; on CUDA one per GPU.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads per worker.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1")]
Configuration = Annotated[str, typer.Option(help="nnU-Net configuration.")]
PlansName = Annotated[str, typer.Option(help="Plans the data were preprocessed with.")]
Fold = Annotated[int, typer.Option(min=0, help="Fold: which cases validate.")]
