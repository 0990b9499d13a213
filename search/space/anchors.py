"""Anchors: what a space tries first, values for its holes or whole networks from beside it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.plan import Plan, plan
from archspec.network.stages import fit_stages
from archspec.network.start_weights import check_start_weights
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.words import listed, shown
from archspec.spec.yaml_file import NodePath, Source
from blocks.base import SpecError
from search.space.fill import Filler
from search.space.holes import Hole, Value
from search.space.limits import check_limits
from search.space.references import (
    NO_PLANS,
    PLANS_KEY,
    SPEC_KEY,
    WIDTH_KEY,
    PlannedNetworks,
    Reference,
    marked_as_scaled,
    reference_of,
)
from search.space.scale import scale_down
from search.space.settings import LimitSettings, SearchSettings

_OF_SPACE = ("in_channels", "num_classes", "patch_size", "training")
"""What a spec anchor takes from the space: all trials train alike, on the same patches."""


_OWN: Mapping[str | None, tuple[tuple[str, ...], str]] = {
    None: ((), "no such hole"),
    "spec": ((SPEC_KEY,), "a spec takes the recipe's holes only"),
    "plans": ((PLANS_KEY, WIDTH_KEY), "a planned network takes the recipe's holes only"),
}
"""By what an anchor names: its keys that are no holes, and why others are refused."""


@dataclass(frozen=True)
class Anchor:
    """What is tried first: parameters, and the network that it trains in place of one drawn.

    The parameters are complete, as Optuna enqueues them; beside a network they are those of the
    holes in the space's `training`. `index` is its place in the settings.
    """

    index: int
    params: dict[str, Value]
    reference: Reference | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the user attributes of its trial."""
        return {} if self.reference is None else self.reference.attributes

    def trial(self) -> FixedTrial:
        """Return a trial that draws it, without a study."""
        trial = FixedTrial(self.params)
        if self.reference is not None:
            self.reference.name_in(trial)
        return trial


def network_anchors(source: Source, settings: SearchSettings) -> list[Anchor]:
    """Return the anchors that name a network; holes of the recipe take what is given, or their
    first.
    """
    found = []
    for index, given in enumerate(settings.anchors):
        reference = Reference.of_anchor(given)
        if reference is not None:
            params: dict[str, Value] = {}
            _outside(source, lambda hole, g=given, p=params: _pick(hole, g, p))  # type: ignore[misc]
            found.append(Anchor(index, params, reference))
    return found


def plan_anchor(
    trial: BaseTrial,
    source: Source,
    settings: SearchSettings,
    sizes: InputSizes = OF_SPEC,
    *,
    networks: PlannedNetworks = NO_PLANS,
    amp: bool = False,
) -> Plan:
    """Plan the trial's network with the sizes and the recipe of the space, whose tree `source` has.

    Its widths are scaled down by one factor where it exceeds a limit. Where a spec does not suit
    the patch, its strides are fitted to the spacing, as nnU-Net does; what nnU-Net planned stays as
    planned, but for widths, of which its title tells.

    Raises:
        SpecError: no such spec or plan, or it cannot be planned at these sizes.
    """
    reference = reference_of(trial)
    assert reference is not None, "the trial of an anchor that names a network"
    own = networks.spec(reference) if reference.kind == "plans" else load(reference.name)
    outside = _outside(source, lambda hole: hole.suggest(trial))
    if reference.kind == "plans":  # sizes and stages are the dataset's already
        sizes = replace(sizes, fit_stages=False)
        outside = {key: value for key, value in outside.items() if key == "training"}
    spec = load({**own.tree(), "claims": (), "training": {}, **outside})

    def planned(spec: ArchSpec) -> Plan:
        return plan(spec, sizes)

    def keeps(planned: Plan) -> bool:
        if settings.limits == LimitSettings():
            return True
        cost = cost_plan(planned)
        found = check_limits(settings.limits, cost, batch=settings.batch_size, amp=amp)
        return all(one.constraint <= 0 for one in found)

    if reference.kind == "plans":
        found = scale_down(spec, planned, keeps)
        narrower = found.spec.encoder != spec.encoder
        return marked_as_scaled(found, reference) if narrower else found
    try:
        plan(spec, replace(sizes, exact=True))
    except SpecError:
        patch = spec.patch_size if sizes.patch_size is None else sizes.patch_size
        spec = fit_stages(spec, spacing=sizes.spacing or (1.0,) * len(patch), patch_size=patch)
    return scale_down(spec, planned, keeps)


def check_anchor(
    source: Source, index: int, anchor: Mapping[str, Any], holes: Sequence[Hole]
) -> None:
    """Refuse an anchor whose values no hole can take, or whose spec cannot be trained.

    A planned network is looked at once there is a dataset.

    Raises:
        SpecError: one line, located.
    """
    path = ("search", "anchors", index)
    reference = Reference.of_anchor(anchor)
    known = {hole.name: hole for hole in holes}
    if reference is not None:
        in_recipe: list[Hole] = []
        _outside(source, lambda hole: in_recipe.append(hole) or hole.options[0])  # type: ignore[func-returns-value]
        known = {hole.name: hole for hole in in_recipe}
    own, beside = _OWN[None if reference is None else reference.kind]
    if PLANS_KEY in own:
        _check_plans(source, path, anchor)
    for name, value in anchor.items():
        where = source.where((*path, name))
        if name in own:
            continue
        if name not in known:
            raise SpecError(
                f"anchor {name}: {beside} ({listed(list(known)) or 'none'})", where=where
            )
        if not _takes(known[name], value):
            raise SpecError(
                f"anchor {name}: {shown(value)} is not in {known[name].shown}", where=where
            )
    if SPEC_KEY in own:
        try:
            settings = SearchSettings(anchors=(dict(anchor),))
            planned = plan_anchor(network_anchors(source, settings)[0].trial(), source, settings)
            check_start_weights(planned.spec)
        except SpecError as error:
            raise SpecError(
                f"anchor spec: {error.line}", where=source.where((*path, SPEC_KEY))
            ) from None


def _check_plans(source: Source, path: NodePath, anchor: Mapping[str, Any]) -> None:
    """Refuse names that no file beside a dataset's plans can have, and widths of no network."""
    name, width = anchor[PLANS_KEY], anchor.get(WIDTH_KEY)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise SpecError(
            f"anchor {PLANS_KEY}: must be the name of nnU-Net's plans, e.g. nnUNetPlans, but is "
            f"{name!r}",
            where=source.where((*path, PLANS_KEY)),
        )
    if WIDTH_KEY in anchor and (type(width) is not int or width < 1):
        raise SpecError(
            f"anchor {WIDTH_KEY}: must be an integer of at least 1, the width of the first stage, "
            f"but is {width!r}",
            where=source.where((*path, WIDTH_KEY)),
        )


def _takes(hole: Hole, value: Any) -> bool:
    if hole.kind == "choice":
        return value in hole.options
    low, high = hole.options
    return isinstance(value, int | float) and low <= value <= high  # type: ignore[operator]


def _pick(hole: Hole, given: Mapping[str, Any], params: dict[str, Value]) -> Value:
    value: Value = given.get(hole.name, hole.options[0])
    return params.setdefault(hole.name, value)


def _outside(source: Source, pick: Callable[[Hole], Value]) -> dict[str, Any]:
    """Return what the space says outside its network, holes filled by `pick`."""
    tree = {key: value for key, value in source.tree.items() if key in _OF_SPACE}
    filled: dict[str, Any] = Filler(source, pick, every=False).fill(tree, (), (), ("", 0))
    return filled
