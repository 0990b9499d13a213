"""What a search tries first: its anchors, with a dataset's plans, and which cannot be tried."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from archspec.network.input_sizes import InputSizes
from archspec.nnunet.dataset import PreprocessedDataset
from blocks.base import SpecError
from search.space.anchors import Anchor, network_anchors
from search.space.references import PLANS_KEY, Reference, planned_networks
from search.space.space import Space


def with_plans(space: Space, dataset: PreprocessedDataset | None) -> Space:
    """Return the space with those networks of its anchors that are of the dataset's plans.

    None is for data without plans.

    Raises:
        SpecError: one is not there, or no spec can say it. A bundled space, which was written for
            any dataset, leaves it out.
    """
    references = [Reference.of_anchor(given) for given in space.settings.anchors]
    found = planned_networks(filter(None, references), dataset)
    for index, reference in enumerate(references):
        if reference is not None and reference in found.left_out and not space.bundled:
            where = space.source.where(("search", "anchors", index, PLANS_KEY))
            raise SpecError(f"anchor plans: {found.left_out[reference]}", where=where)
    return replace(space, networks=found)


def first_of(space: Space) -> list[Anchor]:
    """Return the anchors in the order in which they are tried, without plans that it lacks."""
    given = space.settings.anchors
    indices = [i for i, one in enumerate(given) if Reference.of_anchor(one) is None]
    own = [Anchor(i, params) for i, params in zip(indices, space.anchors(), strict=True)]
    named = network_anchors(space.source, space.settings)
    lacking = _lacking(space)
    return [*own, *(anchor for anchor in named if anchor.reference not in lacking)]


def left_out(space: Space) -> list[str]:
    """Return which planned networks are not tried, a line for each reason."""
    found: dict[tuple[str, str], list[Reference]] = {}
    for one in _lacking(space):
        why = space.networks.left_out.get(one, "no dataset is given")
        found.setdefault((one.name, why), []).append(one)
    return [f"left out: {_networks(own)} of {name}: {why}" for (name, why), own in found.items()]


def invalid(
    space: Space, anchors: Iterable[Anchor], sizes: InputSizes, *, device: str = "cpu"
) -> Iterator[str]:
    """Yield a line for each anchor that no trial can train at these sizes.

    A latency is not matched here: that takes time, and says nothing about sizes.
    """
    match = space.settings.match
    if match is not None and match.latency is not None:
        unmatched = space.settings.model_copy(update={"match": None})
        space = replace(space, settings=unmatched)
    for anchor in anchors:
        try:
            space.draw(anchor.trial(), sizes, device=device)
        except SpecError as error:
            yield invalid_text(anchor, error)


def invalid_text(anchor: Anchor, error: SpecError) -> str:
    """Say which anchor cannot be tried, and why."""
    named = "" if anchor.reference is None else f" ({anchor.reference.label})"
    return f"invalid: search.anchors.{anchor.index}{named}: {error.line}"


def _lacking(space: Space) -> list[Reference]:
    """Return the planned networks that the space names and does not have."""
    references = map(Reference.of_anchor, space.settings.anchors)
    return [
        one
        for one in references
        if one is not None and one.kind == "plans" and one not in space.networks.specs
    ]


def _networks(references: Sequence[Reference]) -> str:
    number = len(references)
    if number > 1:
        return f"{number} networks"
    width = references[0].width
    return "the network" if width is None else f"the network of width {width}"
