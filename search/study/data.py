"""What a search asks of its data: nnU-Net's dataset, or cases of the user's own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from archspec.nnunet.check_data import check_data
from archspec.nnunet.persons import all_cases, read_persons
from archspec.nnunet.splits import split_cases
from archspec.nnunet.windows import median_windows
from archspec.scoring.labels import scored_labels
from blocks.errors import SpecError, argument
from search.space.first import with_plans
from search.space.space import Space
from search.trials.host import TrainingHost
from search.trials.own import Data, OwnCases


def check(data: Data, fold: int) -> None:
    """Refuse what cannot be trained on; cases of one's own were looked at when they were given.

    Raises:
        SpecError: see `check_data`.
    """
    if not isinstance(data, OwnCases):
        check_data(data, fold=fold)


def fitted(data: Data, space: Space) -> tuple[Data, Space]:
    """Return the data at the space's patch, and the space with the networks of their plans.

    Cases of one's own have one patch and batch size, which win over the space's, and no plans.

    Raises:
        SpecError: see `with_plans` and `with_patch`, or the space asks for what the cases lack.
    """
    settings = space.settings
    if not isinstance(data, OwnCases):
        data = data.with_patch(settings.given_patch)
        return data, with_plans(space, data)
    if settings.given_patch not in (None, data.patch_size):
        raise SpecError(
            f"the cases have patches of {list(data.patch_size)} voxels",
            where=argument("patch_size", settings.given_patch),
        )
    if settings.stages_from_dataset and data.sizes.spacing is None:
        raise SpecError("the cases have no spacing", field="stages_from_dataset")
    if settings.test_share:
        raise SpecError(
            "the cases name their test part themselves",
            where=argument("test_share", settings.test_share),
        )
    own = settings.model_copy(update={"batch_size": data.batch_size})
    return data, with_plans(replace(space, settings=own), None)


def check_groups(data: Data, space: Space, host: TrainingHost, groups: Path | None) -> None:
    """Refuse, before anything takes time, a file that no test part can be made of.

    Raises:
        SpecError: see `persons_of` and `split_cases`.
    """
    if groups is not None:
        persons = persons_of(data, space, host.fold, groups)
        held_out(data, space.settings.test_share, host, persons)


def persons_of(data: Data, space: Space, fold: int, groups: Path) -> dict[str, str]:
    """Return whose the cases of the fold are, as the file says.

    Raises:
        SpecError: it cannot be read, lacks a case, or there is no test part to make of it.
    """
    if isinstance(data, OwnCases):
        raise SpecError(
            "the cases name their test part themselves", where=argument("groups", groups)
        )
    if not space.settings.test_share:
        raise SpecError(
            "say of whom the test part is, and none is asked for",
            where=argument("groups", groups),
            suggestion="give a `test_share` too",
        )
    return dict(read_persons(groups, {data.name: all_cases(data, [fold])}).named[data.name])


def held_out(
    data: Data, share: float, host: TrainingHost, persons: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the test part, of whole persons where they are told.

    nnU-Net is imported for it only where there is one.
    """
    if isinstance(data, OwnCases):
        return data.test
    if not share:
        return ()
    return split_cases(data, fold=host.fold, test_share=share, seed=host.seed, persons=persons).test


def classes_of(data: Data) -> tuple[str, ...]:
    """Return the names of the classes."""
    return (
        data.classes if isinstance(data, OwnCases) else tuple(scored_labels(data.dataset_json)[0])
    )


def scored_names(data: Data) -> tuple[str, ...]:
    """Return the names of all that is scored: classes, and groups where the dataset has any."""
    if isinstance(data, OwnCases):
        return data.classes
    classes, groups = scored_labels(data.dataset_json)
    return (*classes, *groups)


def windows_of(data: Data) -> int | None:
    """Return the windows of a median case, where that is known."""
    return None if isinstance(data, OwnCases) else median_windows(data)
