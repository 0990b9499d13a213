"""Verbs at the border to nnU-Net: export."""

from typing import Annotated

import typer

from archspec.cli.specs import Overrides, Spec, patch_sizes


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(export)


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
