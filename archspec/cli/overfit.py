"""The verb overfit: can this network learn one patch of this dataset by heart?"""

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.interrupts import same_command, stopped
from archspec.cli.options import (
    MAX_COUNT,
    MAX_SEED,
    MAX_STEPS,
    Configuration,
    Data,
    Device,
    PlansName,
    StagesFromDataset,
)
from archspec.cli.specs import Json, Overrides, Spec

if TYPE_CHECKING:
    from archspec.network.plan import Plan
    from archspec.overfit.patch import FixedPatch

_MOSTLY = 0.5
"""Share of padding above which a patch is called too large for its case."""


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(overfit)


def overfit(
    context: typer.Context,
    spec: Spec,
    data: Data,
    case: Annotated[
        str | None, typer.Option(help="Training case; default: the first with foreground.")
    ] = None,
    overrides: Overrides = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="Patch size in voxels instead of the dataset's: 96,96,96; exact refuses to pad."
        ),
    ] = None,
    stages_from_dataset: StagesFromDataset = False,
    steps: Annotated[int, typer.Option(min=1, max=MAX_STEPS, help="Steps at most.")] = 2000,
    minutes: Annotated[
        float | None, typer.Option(min=0, max=MAX_COUNT, help="Minutes at most.")
    ] = None,
    configuration: Configuration = "3d_fullres",
    plans: PlansName = "nnUNetPlans",
    device: Device = "auto",
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the network's weights.")
    ] = 0,
    json_: Json = False,
) -> None:
    """Train on one patch until the Dice is 0.99 of what the decoder's resolution allows.

    The exit code is 1 if that is not reached, or if the loss is not a number.
    """
    from archspec.cli.display import OverfitDisplay
    from archspec.cli.refusal import with_options
    from archspec.cli.specs import EXACT, patch_sizes
    from archspec.network.resolve import resolve
    from archspec.network.stages import fitted
    from archspec.nnunet.dataset import find_dataset
    from archspec.nnunet.sizes import dimension_notes, padding_note
    from archspec.overfit.patch import fixed_patch
    from archspec.overfit.train import overfit as train
    from archspec.spec.load import load
    from archspec.training.devices import device_named
    from blocks.base import SpecError

    target = device_named(device)
    dataset = find_dataset(data, configuration=configuration, plans_name=plans)
    loaded = load(spec, overrides=overrides or ())
    own, wanted = loaded.patch_size, patch_sizes(patch) or dataset.patch_size
    if len(wanted) not in (len(own), len(dataset.patch_size)):
        raise SpecError(
            f"a {len(own)}-D network, but the patch {list(wanted)} has {len(wanted)} sizes",
            where=spec,
            suggestion=f"use another --configuration, or --patch with {len(own)} sizes",
        )
    sizes = replace(dataset.sizes, patch_size=wanted, exact=patch == EXACT)
    if stages_from_dataset:
        sizes = replace(sizes, spacing=dataset.spacing[-len(wanted) :], fit_stages=True)
    planned = resolve(spec, sizes, overrides=overrides or ())
    chosen = fixed_patch(dataset, planned.patch_size, case=case)
    notes = dimension_notes(loaded, dataset) if len(wanted) != len(own) else []
    if patch is None and own != wanted and not notes:
        notes.append(
            f"patch_size: the spec says {list(own)}, the dataset has {list(wanted)}; "
            "the dataset wins, and --patch over both"
        )
    if planned.padded_size != planned.patch_size:
        notes.append(padding_note(planned))
    if sizes.fit_stages:
        notes.append(fitted(loaded, sizes).note)
    if chosen.padding > _MOSTLY:
        notes.append(_padding(planned, chosen))
    for note in notes:
        print(f"note: {with_options(note, context)}", file=sys.stderr)
    display = OverfitDisplay(steps)
    again = same_command()
    with stopped(lambda: f" {display.text}; {again} begins anew"), display:
        found = train(
            planned,
            chosen,
            steps=steps,
            minutes=minutes,
            seed=seed,
            device=target,
            on_step=display.show,
        )
    print(json.dumps(found.to_json()) if json_ else found.text())
    if not found.reached:
        raise typer.Exit(1)


def _padding(planned: "Plan", chosen: "FixedPatch") -> str:
    """Return how much of the patch is padding, and a patch with less, if the network takes it."""
    from archspec.network.input_sizes import InputSizes
    from archspec.network.plan import plan
    from blocks.base import SpecError

    text = (
        f"{100 * chosen.padding:.0f} % of the patch {list(planned.patch_size)} is padding, "
        f"since {chosen.case} has {list(chosen.case_size)} voxels"
    )
    axes = zip(chosen.case_size, planned.total_stride, planned.patch_size, strict=True)
    tight = tuple(min(-(-whole // step) * step, size) for whole, step, size in axes)
    try:
        plan(planned.spec, InputSizes(patch_size=tight, exact=True))
    except SpecError:
        return text
    return f"{text}; --patch {','.join(map(str, tight))} holds all of it and is faster"
