"""Anchors: what a space tries first, values for its holes or whole specs beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import BaseTrial, FixedTrial, FrozenTrial

from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.plan import Plan, plan
from archspec.network.stages import fit_stages
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import Source
from blocks.base import SpecError
from search.space.fill import Filler
from search.space.holes import Hole, Value
from search.space.limits import check_limits
from search.space.scale import scale_down
from search.space.settings import LimitSettings, SearchSettings

SPEC_KEY = "spec"
"""The key of an anchor that names a spec."""
ANCHOR_SPEC = "anchor_spec"
"""The user attribute that names the spec of a trial: its parameters do not say what it trains."""
_OF_SPACE = ("in_channels", "num_classes", "patch_size", "training")
"""What a spec anchor takes from the space: all trials train alike, on the same patches."""


@dataclass(frozen=True)
class SpecAnchor:
    """A bundled spec or a file, and the parameters of the holes in the space's `training`."""

    name: str
    params: dict[str, Value]

    @property
    def attributes(self) -> dict[str, str]:
        """Return the user attributes of its trial."""
        return {ANCHOR_SPEC: self.name}

    def trial(self) -> FixedTrial:
        """Return a trial that draws it, without a study."""
        trial = FixedTrial(self.params)
        trial.set_user_attr(ANCHOR_SPEC, self.name)
        return trial


def anchor_spec_of(trial: BaseTrial | FrozenTrial) -> str | None:
    """Return the spec that the trial trains in place of one drawn."""
    name: str | None = trial.user_attrs.get(ANCHOR_SPEC)
    return name


def spec_anchors(source: Source, settings: SearchSettings) -> list[SpecAnchor]:
    """Return the anchors that are specs; holes of the recipe take what is given, or their first."""
    found = []
    for given in settings.anchors:
        if SPEC_KEY in given:
            params: dict[str, Value] = {}
            _outside(source, lambda hole, g=given, p=params: _pick(hole, g, p))  # type: ignore[misc]
            found.append(SpecAnchor(str(given[SPEC_KEY]), params))
    return found


def plan_anchor(
    trial: BaseTrial,
    source: Source,
    settings: SearchSettings,
    sizes: InputSizes = OF_SPEC,
    *,
    amp: bool = False,
) -> Plan:
    """Plan the trial's spec with the sizes and the recipe of the space, whose tree `source` holds.

    Its widths are scaled down by one factor where it exceeds a limit. Where it does not suit the
    patch, its strides are fitted to the spacing, as nnU-Net does.

    Raises:
        SpecError: no such spec, or it cannot be planned at these sizes.
    """
    own = load(str(anchor_spec_of(trial)))
    outside = _outside(source, lambda hole: hole.suggest(trial))
    spec = load({**own.tree(), "claims": (), "training": {}, **outside})

    def planned(spec: ArchSpec) -> Plan:
        return plan(spec, sizes)

    def keeps(planned: Plan) -> bool:
        if settings.limits == LimitSettings():
            return True
        cost = cost_plan(planned)
        found = check_limits(settings.limits, cost, batch=settings.batch_size, amp=amp)
        return all(one.constraint <= 0 for one in found)

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

    Raises:
        SpecError: one line, located.
    """
    path = ("search", "anchors", index)
    known = {hole.name: hole for hole in holes}
    if SPEC_KEY in anchor:
        in_recipe: list[Hole] = []
        _outside(source, lambda hole: in_recipe.append(hole) or hole.options[0])  # type: ignore[func-returns-value]
        known = {hole.name: hole for hole in in_recipe}
    for name, value in anchor.items():
        where = source.where((*path, name))
        if name == SPEC_KEY:
            continue
        if name not in known:
            beside = (
                "a spec takes the recipe's holes only" if SPEC_KEY in anchor else "no such hole"
            )
            raise SpecError(f"anchor {name}: {beside} ({', '.join(known) or 'none'})", where=where)
        if not _takes(known[name], value):
            raise SpecError(
                f"anchor {name}: {value!r} is not in {list(known[name].options)}", where=where
            )
    if SPEC_KEY in anchor:
        try:
            settings = SearchSettings(anchors=(dict(anchor),))
            plan_anchor(spec_anchors(source, settings)[0].trial(), source, settings)
        except SpecError as error:
            raise SpecError(
                f"anchor spec: {error.line}", where=source.where((*path, SPEC_KEY))
            ) from None


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
