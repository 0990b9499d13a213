"""Verbs at the border to nnU-Net: export, evaluate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.specs import Json, Overrides, Spec, patch_sizes


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(export)
    app.command()(evaluate)


def export(
    spec: Spec,
    dataset: Annotated[str, typer.Option(help="Dataset id or name, preprocessed by nnU-Net.")],
    overrides: Overrides = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(help="nnU-Net configuration, repeatable. Default: 3d_fullres, or 2d."),
    ] = None,
    base_plans: Annotated[str, typer.Option(help="Plans to derive from.")] = "nnUNetPlans",
    plans_name: Annotated[str | None, typer.Option(help="Name of the new plans.")] = None,
    patch: Annotated[
        str | None, typer.Option(help="Patch size in voxels instead of the dataset's: 96,96,96")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Batch size instead of the dataset's.")
    ] = None,
    fit_memory: Annotated[
        str | None, typer.Option(help="Shrink batch, then patch, until training fits, e.g. 24GB")
    ] = None,
    stages_from_dataset: Annotated[
        bool, typer.Option("--stages-from-dataset", help="Fit strides and kernels to the spacing.")
    ] = False,
    recipe: Annotated[str, typer.Option(help="Train as the spec or as nnunet says.")] = "spec",
    force: Annotated[bool, typer.Option("--force", help="Replace existing plans.")] = False,
) -> None:
    """Write plans with which stock nnU-Net trains and predicts the network."""
    from archspec.loading import load
    from archspec.nnunet_export import export_nnunet

    exported = export_nnunet(
        load(spec, overrides=overrides or ()),
        dataset,
        configuration=configuration,
        base_plans=base_plans,
        plans_name=plans_name,
        patch_size=patch_sizes(patch),
        batch_size=batch,
        fit_memory=fit_memory,
        stages_from_dataset=stages_from_dataset,
        recipe=recipe,
        force=force,
    )
    for note in exported.notes:
        print(f"note: {note}")
    print(f"wrote {exported.path}")
    for line in (*exported.environment, *exported.commands):
        print(f"  {line}")


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks (.nii.gz).")],
    references: Annotated[Path, typer.Argument(help="Folder of reference masks of these names.")],
    dataset_json: Annotated[
        Path, typer.Option(help="dataset.json with the labels; default: beside the references.")
    ] = Path("dataset.json"),
    json_: Json = False,
) -> None:
    """Print the Dice of predicted masks per class, mean over cases."""
    from archspec.evaluation import mean, mean_dice, read_pairs, scored_labels
    from blocks.base import SpecError

    labels_file = dataset_json if dataset_json.is_file() else references.parent / "dataset.json"
    if not labels_file.is_file():
        raise SpecError(f"{dataset_json}: no such file, nor {labels_file}; give --dataset-json")
    classes, groups = scored_labels(json.loads(labels_file.read_text(encoding="utf-8")))
    pairs = read_pairs(predictions, references)
    scores = mean_dice(pairs, {**classes, **groups})
    scores = {"mean": mean(scores[name] for name in classes), **scores}
    if json_:
        print(json.dumps(scores))
        return
    print(f"Dice over {len(pairs)} cases")
    for name, score in scores.items():
        print(f"  {name:24}{score:.3f}")
