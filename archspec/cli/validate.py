"""The verb validate: is this a network, or a space of networks, and at which sizes?"""

from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli import completion
from archspec.cli.options import (
    DataOrNone,
    PlansName,
    StagesFromDataset,
    UsualConfiguration,
    check_fitting,
    dataset_for,
    space_with_options,
)
from archspec.cli.refusal import with_options
from archspec.cli.specs import (
    EXACT,
    Overrides,
    Patch,
    known_or_space,
    patch_or_exact,
    patch_sizes,
    planned_at,
)
from blocks.base import MAX_WIDTH

if TYPE_CHECKING:
    from archspec.network.plan import Plan
    from search.space.space import Space


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(validate)


def validate(
    context: typer.Context,
    spec: Annotated[
        str,
        typer.Argument(
            help="A bundled name or a YAML file.",
            callback=known_or_space,
            autocompletion=completion.specs_and_spaces,
        ),
    ],
    overrides: Overrides = None,
    data: DataOrNone = None,
    configuration: UsualConfiguration = None,
    plans: PlansName = "nnUNetPlans",
    patch: Patch = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_WIDTH, help="Batch size: says what training needs with it."),
    ] = None,
    stages_from_dataset: StagesFromDataset = False,
) -> None:
    """Check a spec, or a search space with all its members.

    At its own patch size, with --data at the dataset's, as export and search take it, or --patch.
    """
    from search.space.space import is_space

    check_fitting(stages_from_dataset, data)
    if is_space(spec):
        from search.space.settings import GivenSettings

        given = GivenSettings(
            patch_size=patch_or_exact(patch),
            batch_size=batch,
            stages_from_dataset=stages_from_dataset or None,
        )
        space = space_with_options(spec, overrides or (), given)
        _show_space(space)
        if data is not None or patch is not None:
            _check_at(space, data, configuration, plans)
        if batch is not None:
            print(f"  trained in batches of {space.settings.batch_size}")
        return
    notes: list[str] = []
    if data is None:
        planned = planned_at(patch, spec, overrides)
    else:
        from archspec.nnunet.sizes import SizeWishes, dimension_notes, settle
        from archspec.spec.load import load

        loaded = load(spec, overrides=overrides or ())
        dataset = dataset_for(len(loaded.patch_size), data, configuration, plans)
        wishes = SizeWishes(
            patch_size=patch_sizes(patch),
            exact=patch == EXACT,
            batch_size=batch,
            stages_from_dataset=stages_from_dataset,
        )
        settled = settle(loaded, dataset, wishes, stock_recipe=False)
        planned, batch = settled.planned, settled.batch_size
        notes = [*dimension_notes(loaded, dataset), *settled.notes]
    shapes = [stage.out for stage in planned.stages] or planned.skips
    grids = (str(list(one.grid)) for one in shapes)
    print(" -> ".join([f"{planned.spec.name}: ok, patch {planned.patch_text}", *grids]))
    if batch is not None:
        print(_training(planned, batch))
    for note in notes:
        print(f"note: {with_options(note, context)}")


def _training(planned: "Plan", batch: int) -> str:
    from archspec.costs.memory import training_memory

    needed = training_memory(planned, batch=batch, amp=True).total
    return f"  batch {batch}: training under AMP needs about {needed / 2**30:.2f} GiB"


def _show_space(space: "Space") -> None:
    holes = space.holes()
    count = f"{len(holes)} hole{'s' * (len(holes) > 1)}"
    print(f"{space.name}: ok, a search space with {count}, {space.size().text()}")
    for hole in holes:
        print(f"  {hole.name}: {hole.kind} {hole.shown}")


def _check_at(space: "Space", data: str | None, configuration: str | None, plans: str) -> None:
    """Plan every member at the sizes that a search would take, and say so."""
    from archspec.network.input_sizes import OF_SPEC
    from search.space.space import check_members

    given = OF_SPEC
    own = space.source.tree["patch_size"]
    if data is not None:
        dataset = dataset_for(len(own), data, configuration, plans)
        given = dataset.with_patch(space.settings.given_patch).sizes
    sizes = space.sizes(given)
    check_members(space, sizes)
    print(f"  every member is a network at {list(sizes.patch_size or own)}")
