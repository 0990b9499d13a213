"""The verb evaluate: predicted masks against references, and against another network's."""

import json
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.options import MAX_SEED
from archspec.cli.specs import Json


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(evaluate)


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    references: Annotated[Path, typer.Argument(help="Folder of reference masks of these names.")],
    against: Annotated[
        Path | None, typer.Option(help="Another network's predictions of the same cases.")
    ] = None,
    dataset_json: Annotated[
        Path | None,
        typer.Option(help="dataset.json with the labels; default: beside the references."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1e6, help="How far off a surface may be, in mm.")
    ] = 2.0,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the bootstrap.")] = 0,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out references without a prediction.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write every case and class there.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing CSV file.")] = False,
    json_: Json = False,
) -> None:
    """Score masks: Dice, HD95, surface Dice, by case, class and size; compare two networks."""
    from archspec.files import check_writable, write_text
    from archspec.scoring.evaluate import evaluate as score
    from blocks.base import SpecError

    if csv is not None:
        check_writable(csv)
    if csv is not None and csv.exists() and not force:
        raise SpecError("exists", where=csv, suggestion="replace it with --force")
    progress = _Progress()
    found = score(
        predictions,
        references,
        against=against,
        dataset_json=dataset_json,
        tolerance=tolerance,
        seed=seed,
        partial=partial,
        on_case=progress.show,
    )
    progress.clear()
    if csv is not None:
        write_text(csv, found.csv())
    print(json.dumps(found.to_json()) if json_ else found.text())


class _Progress:
    """One line on a terminal's standard error that names the case being scored."""

    def __init__(self) -> None:
        import sys

        self.out = sys.stderr if sys.stderr.isatty() else None

    def show(self, case: str) -> None:
        if self.out is not None:
            print(f"\r\033[K{case}", end="", file=self.out, flush=True)

    def clear(self) -> None:
        if self.out is not None:
            print("\r\033[K", end="", file=self.out, flush=True)
