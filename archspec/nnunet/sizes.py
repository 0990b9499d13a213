"""Patch and batch size of an export: the dataset's, or what was asked for, or what fits a GPU."""

from dataclasses import dataclass, replace

from archspec.costs.fit import Fit
from archspec.costs.memory import training_memory
from archspec.costs.notes import MUCH_PADDING
from archspec.network.plan import Plan, plan
from archspec.network.stages import fitted
from archspec.network.strides import total_stride
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.schema import ArchSpec
from blocks.base import Grid
from blocks.errors import SpecError

_AXES = {2: "HW", 3: "DHW"}
_MIN_BATCH = 2
"""nnU-Net plans no smaller batch; one of 1 never oversamples foreground."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeWishes:
    """What an export asks for in place of the dataset's sizes; `fit_memory` is in bytes.

    `exact` refuses a patch that would be padded.
    """

    patch_size: Grid | None = None
    exact: bool = False
    batch_size: int | None = None
    fit_memory: int | None = None
    stages_from_dataset: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """One configuration's network at its patch and batch size, and what was settled on the way."""

    dataset: PreprocessedDataset
    planned: Plan
    batch_size: int
    notes: tuple[str, ...]


def settle(
    spec: ArchSpec, dataset: PreprocessedDataset, wishes: SizeWishes, *, stock_recipe: bool
) -> Network:
    """Return the network for this configuration.

    Memory is estimated for the optimizer of the spec, or for nnU-Net's SGD under `stock_recipe`.

    Raises:
        SpecError: the network cannot be planned at that patch, or nothing fits.
    """
    patch = dataset.with_patch(wishes.patch_size).patch_size
    batch = dataset.batch_size if wishes.batch_size is None else wishes.batch_size
    if batch < 1:
        raise SpecError(f"must be at least 1, but is {batch}", field="batch_size")
    notes = []
    if wishes.stages_from_dataset:
        found = fitted(spec, replace(dataset.sizes, patch_size=patch))
        notes.append(found.note)
        spec = found.spec
    planned = _plan(spec, dataset, patch, exact=wishes.exact)
    if wishes.fit_memory is not None:
        planned, batch, note = _fitted(planned, batch, wishes.fit_memory, stock_recipe)
        notes.append(note)
    return Network(dataset, planned, batch, (*_differences(planned, batch, dataset), *notes))


def dimension_notes(spec: ArchSpec, dataset: PreprocessedDataset) -> list[str]:
    """Return a line where the spec is written with another number of axes than the dataset has."""
    own, theirs = len(spec.patch_size), len(dataset.patch_size)
    if own == theirs:
        return []
    return [
        f"{spec.name} is {own}-D as it is written; built in {theirs}-D, as {dataset.configuration} "
        "is"
    ]


def _plan(spec: ArchSpec, dataset: PreprocessedDataset, patch: Grid, *, exact: bool) -> Plan:
    try:
        return plan(spec, replace(dataset.sizes, patch_size=patch, exact=exact))
    except SpecError as error:
        raise (_axis_mistake(spec, dataset, patch) or error) from None


def _axis_mistake(spec: ArchSpec, dataset: PreprocessedDataset, patch: Grid) -> SpecError | None:
    """Return which axis of the patch does not divide, with the sizes that would; None if all do."""
    try:
        total = total_stride(spec, len(patch))
    except SpecError:
        return None
    wrong = [
        f"{size} voxels along {axis} must divide by {step}"
        for axis, size, step in zip(_AXES[len(patch)], patch, total, strict=True)
        if size % step
    ]
    if not wrong:
        return None
    up = [-(-size // step) * step for size, step in zip(patch, total, strict=True)]
    down = [max(size // step, 1) * step for size, step in zip(patch, total, strict=True)]
    nearest = " or ".join(
        dict.fromkeys(f"`patch_size` {','.join(map(str, sizes))}" for sizes in (down, up))
    )
    return SpecError(
        f"{list(patch)} does not suit {spec.name} in {dataset.configuration}: {', '.join(wrong)}",
        field="patch_size",
        suggestion=f"nearest: {nearest}, or strides that fit: `stages_from_dataset`",
    )


def _fitted(planned: Plan, batch: int, available: int, stock_recipe: bool) -> tuple[Plan, int, str]:
    """Return plan and batch that fit, the batch made smaller first, and a line about it."""
    least = min(batch, _MIN_BATCH)
    fit = Fit.of(_with_sgd(planned) if stock_recipe else planned, least, available)
    found, smaller = planned, min(batch, fit.batch_that_fits)
    if not fit.fits:
        if fit.patch_that_fits is None:
            raise SpecError(
                fit.text(),
                field="fit_memory",
                suggestion=f"the batch is not made smaller than {least}",
            )
        smaller = least
        found = plan(planned.spec, replace(planned.sizes, patch_size=fit.patch_that_fits))
    changes = [f"batch_size {batch} -> {smaller}"] if smaller != batch else []
    if found is not planned:
        changes.append(f"patch_size {list(planned.patch_size)} -> {list(found.patch_size)}")
    trained = _with_sgd(found) if stock_recipe else found
    needed = training_memory(trained, batch=smaller, amp=True).total
    return (
        found,
        smaller,
        f"`fit_memory`: {', '.join(changes) or 'nothing changed'}; training under AMP needs about "
        f"{needed / 2**30:.2f} GiB of {available / 2**30:.2f}",
    )


def _with_sgd(planned: Plan) -> Plan:
    training = planned.spec.training.model_copy(update={"optimizer": "sgd"})
    return replace(planned, spec=planned.spec.model_copy(update={"training": training}))


def _differences(planned: Plan, batch: int, dataset: PreprocessedDataset) -> list[str]:
    """Return a line for each size in which spec, dataset and export differ."""
    spec, patch = planned.spec, list(planned.patch_size)
    notes = [
        f"{field}: spec says {ours}, the dataset has {theirs}; the dataset wins"
        for field, ours, theirs in (
            ("in_channels", spec.in_channels, dataset.num_channels),
            ("num_classes", spec.num_classes, dataset.num_classes),
        )
        if ours != theirs
    ]
    theirs = list(dataset.patch_size)
    if patch != theirs:
        notes.append(f"patch_size: {patch} instead of the dataset's {theirs}; same data")
    elif patch != list(spec.patch_size):
        notes.append(
            f"patch_size: spec says {list(spec.patch_size)}, the dataset has {theirs}; "
            "the dataset wins"
        )
    if planned.padded_size != planned.patch_size:
        notes.append(padding_note(planned))
    if planned.heads_left_out:
        notes.append(
            f"deep_supervision: {planned.heads_left_out} of {spec.deep_supervision.heads} heads "
            f"left out, whose grids do not divide the patch {patch}"
        )
    if batch != dataset.batch_size:
        notes.append(f"batch_size: {batch} instead of the dataset's {dataset.batch_size}")
    if batch == 1:
        notes.append("batch_size: of 1, nnU-Net never samples a patch for its foreground")
    return notes


def padding_note(planned: Plan) -> str:
    """Return a line about a patch that is padded; from much padding on, with what may need less."""
    text = f"patch_size: {planned.patch_text} inside the network"
    if planned.padding < MUCH_PADDING:
        return text
    return (
        f"{text}, {planned.padding:.1f} times the voxels; `stages_from_dataset` or another "
        "`patch_size` may need less"
    )
