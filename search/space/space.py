"""A search space: a spec's raw tree with holes, and a section `search` beside it.

A hole may stand at any node: `{choice: [...]}`, `{int: [low, high], step: s}` or
`{float: [low, high], log: true}`. A member of a choice may hold holes of its own, which exist only
where that member is drawn. A hole is named by its path (`encoder.stages.1.width`, inside a member
`decoder[mlp].width`) or by a `name` of its own, and `{tie: that name}` elsewhere takes the same
value:

    stages:
      - {width: {choice: [8, 16], name: width}, mixer: {kind: conv}}
      - {width: {tie: width}, mixer: {kind: conv}}

`search.holes` opens nodes by path, where `*` stands for every index or key: in

    search: {holes: {encoder.stages.*.mixer: {choice: [{kind: conv}, {kind: mamba}]}}}

every stage gets a hole of its own, or with a `name` in it all the same one. Overrides (`-s`) and
the keys of anchors take `*` too. `search: {match: {macs: 40e6}}` gives all networks one cost, and
`{match: {macs: {choice: [20e6, 40e6]}}}` one of those, drawn like any hole; `macs_per_voxel` in
place of `macs` serves patches of every size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.trial import BaseTrial
from pydantic import ValidationError

from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.plan import Plan, plan
from archspec.network.resolve import plan_source
from archspec.network.stages import fitted
from archspec.network.start_weights import check_start_weights
from archspec.spec.bundled import bundled_names
from archspec.spec.find import space_tree
from archspec.spec.load import SpecLike, apply_overrides, in_order, load, located, validate
from archspec.spec.messages import mistakes
from archspec.spec.migrations import upgrade
from archspec.spec.schema import ArchSpec
from archspec.spec.short_forms import written_out
from archspec.spec.tree import frozen
from archspec.spec.yaml_file import Source, compose, read_text
from blocks.base import SpecError
from search.space.anchors import check_anchor, plan_anchor
from search.space.fill import Filler, Parsed
from search.space.holes import Hole, SpaceSize, Value, has_hole, size_of
from search.space.match import match_spec
from search.space.opened import Opened, holes_for
from search.space.references import NO_PLANS, PlannedNetworks, Reference, reference_of
from search.space.settings import SearchSettings
from search.space.shorthand import expand_anchor, expand_overrides, put_holes, resolve_ties

MAX_MEMBERS = 2000
"""Members of all holes, each at all its nodes."""
_BLOCKS_COSTED = 100
"""Blocks, of the networks of all budgets together, of which a loaded space is held to budgets."""


@dataclass(frozen=True)
class Space:
    """A loaded space; every member of every hole has been validated alone.

    `networks` are those of its anchors that a dataset's plans hold; `bundled` says that it comes
    with the package, for any dataset.
    """

    source: Source
    settings: SearchSettings
    bundled: bool = False
    networks: PlannedNetworks = NO_PLANS
    parsed: Parsed = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_spec(
        cls, spec: SpecLike, open: Opened, *, settings: Mapping[str, Any] | None = None
    ) -> "Space":
        """Return the space of a spec with these nodes open, the spec itself its first network.

        `open` has paths in which `*` is every index or key, `["encoder.stages.*.mixer"]`, each
        opened to what else could stand there (see `search.space.opened.holes_for`), or maps them
        to holes, `{"encoder.stages.*.width": {"choice": [16, 32]}}`. `settings` are those of the
        section `search`; by default the spec itself is the one anchor.

        Raises:
            SpecError: no such spec or node, or a member that cannot stand there.
        """
        own = load(spec)
        tree = frozen({**own.tree(), "name": f"{own.name}-opened"})
        source = Source(own.name, tree, {})
        section = {"anchors": ({},), **(settings or {}), "holes": holes_for(source, open)}
        return _loaded(replace(source, tree=frozen({**tree, "search": section})))

    @property
    def name(self) -> str:
        return str(self.source.tree.get("name", "space"))

    def suggest(self, trial: BaseTrial) -> ArchSpec:
        """Draw a spec with any trial of Optuna's, its widths as they are written.

        Raises:
            SpecError: the combination is not a valid spec.
        """
        return validate(self._filled({}, trial))

    def draw(self, trial: BaseTrial, sizes: InputSizes = OF_SPEC, *, device: str = "cpu") -> Plan:
        """Draw a spec, fit its stages and match its widths as the settings ask, and plan it.

        It is planned for the sizes, or the settings' patch. Its spec is the one that is trained. A
        trial of an anchor that names a network gives that. `device` is where a latency to match
        is timed.

        Raises:
            SpecError: the combination is not a valid spec, does not fit the sizes, or cannot be
                matched.
        """
        sizes = self.sizes(sizes)
        if reference_of(trial) is not None:
            amp, networks = device.startswith("cuda"), self.networks
            return plan_anchor(trial, self.source, self.settings, sizes, networks=networks, amp=amp)
        spec, match = self.suggest(trial), self.settings.match
        if match is not None:
            spec = fitted(spec, sizes).spec if sizes.fit_stages else spec
            spec = match_spec(spec, match.drawn(trial), sizes, device=device)
        return plan(spec, sizes)

    def sizes(self, given: InputSizes = OF_SPEC) -> InputSizes:
        """Return what networks are planned for: the sizes given, with what the settings say."""
        settings = self.settings
        return replace(
            given,
            patch_size=settings.given_patch or given.patch_size,
            exact=given.exact or settings.patch_size == "exact",
            fit_stages=given.fit_stages or settings.stages_from_dataset,
        )

    def stages_note(self, trial: BaseTrial, sizes: InputSizes = OF_SPEC) -> str | None:
        """Return what fits the stages of the trial's network, None where nothing is to fit them."""
        sizes = self.sizes(sizes)
        if not sizes.fit_stages:
            return None
        reference = reference_of(trial)
        if reference is None:
            return fitted(self.suggest(trial), sizes).note
        return fitted(load(reference.name), sizes).note if reference.kind == "spec" else None

    def anchors(self) -> list[dict[str, Value]]:
        """Return the parameters of the anchors in the space, complete, as Optuna enqueues them."""
        anchors: list[dict[str, Value]] = []
        for given in self.settings.anchors:
            if Reference.of_anchor(given) is not None:
                continue
            chosen: dict[str, Value] = {}
            validate(self._filled(given, None, chosen))
            for hole in self._budgets():
                chosen[hole.name] = given.get(hole.name, hole.options[0])
            anchors.append(chosen)
        return anchors

    def holes(self) -> list[Hole]:
        """Return every hole, those inside members of choices and that of `match` included."""
        return [*{hole.name: hole for hole, _ in self._places()}.values(), *self._budgets()]

    def size(self) -> SpaceSize:
        """Return how many combinations of values there are, the invalid ones included."""
        found = size_of(self.source.tree)
        budgets = math.prod(len(hole.options) for hole in self._budgets())
        return replace(found, combinations=found.combinations * budgets)

    def _places(self) -> list[tuple[Hole, dict[str, Value]]]:
        """Return the hole of every node that has one, with the members in which the node stands.

        A named hole may have several nodes; the members are given by the names of their choices.
        """
        found: list[tuple[Hole, dict[str, Value]]] = []

        def note(hole: Hole) -> Value:
            found.append((hole, filler.above))
            return hole.options[0]

        filler = Filler(self.source, note, every=True, parsed=self.parsed)
        filler.fill(self.source.tree, (), (), ("", 0))
        return found

    def _budgets(self) -> list[Hole]:
        """Return the hole of `match`, if it is one."""
        budget = None if self.settings.match is None else self.settings.match.budget
        return [] if budget is None else [budget]

    def _filled(
        self,
        values: Mapping[str, Any],
        trial: BaseTrial | None,
        chosen: dict[str, Value] | None = None,
    ) -> Source:
        """Return the tree with every hole filled: by `values`, else drawn, else its first."""

        def pick(hole: Hole) -> Value:
            default = hole.options[0] if trial is None else hole.suggest(trial)
            value: Value = values.get(hole.name, default)
            if chosen is not None:
                chosen[hole.name] = value
            return value

        filler = Filler(self.source, pick, every=False, parsed=self.parsed)
        tree = filler.fill(self.source.tree, (), (), ("", 0))
        return Source(self.source.name, tree, filler.marks)


def list_spaces() -> list[str]:
    """Return the names of the bundled spaces."""
    return bundled_names("search")


def is_space(name: str | Path) -> bool:
    """Say whether this names a bundled space, or a YAML file with a hole or a section `search`."""
    path = Path(name)
    if str(name) in list_spaces():
        return True
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    tree = compose(read_text(path), str(path)).tree
    return isinstance(tree, dict) and ("search" in tree or has_hole(tree))


def load_space(path: str | Path, *, overrides: tuple[str, ...] = ()) -> Space:
    """Read a space, from a file or bundled under specs/search, and validate every member.

    Raises:
        SpecError: one line: where, what, what is allowed.
    """
    source = space_tree(path)
    if source.problems:
        raise SpecError(source.problems)
    source = written_out(source)
    source = apply_overrides(source, expand_overrides(source, overrides))
    return _loaded(source, bundled=str(path) in list_spaces())


def _loaded(source: Source, *, bundled: bool = False) -> Space:
    """Return the space of the raw tree, see `load_space`."""
    if not isinstance(source.tree, dict):
        raise SpecError("a space must be a mapping, a spec with holes", where=source.where(()))
    source = upgrade(source)
    settings = _settings(source, source.tree.get("search", {}))
    source = put_holes(source, settings.holes)
    tree = {key: value for key, value in source.tree.items() if key != "search"}
    source = resolve_ties(written_out(Source(source.name, tree, source.marks)))
    _check_sizes(source)
    settings = settings.model_copy(update={"holes": {}})
    space = _with_anchors(Space(source, settings, bundled=bundled))
    _validate_members(space)
    return space


def _check_sizes(source: Source) -> None:
    """Refuse holes in sizes: they would be drawn, and change nothing."""
    for size in ("patch_size", "in_channels", "num_classes"):
        if has_hole(source.tree.get(size)):
            raise SpecError(
                "no hole can stand here, for a search trains at the dataset's",
                where=source.where((size,)),
                field=size,
                suggestion="give one value, which serves where no dataset is given",
            )


def _with_anchors(space: Space) -> Space:
    """Return the space with wildcards in the keys of anchors written out."""
    names = [hole.name for hole in space.holes()]
    anchors = tuple(
        expand_anchor(
            anchor,
            names,
            {key: space.source.where(("search", "anchors", index, key)) for key in anchor},
        )
        for index, anchor in enumerate(space.settings.anchors)
    )
    return replace(space, settings=space.settings.model_copy(update={"anchors": anchors}))


def _settings(source: Source, tree: Any) -> SearchSettings:
    try:
        return SearchSettings.model_validate(tree)
    except ValidationError as errors:
        found = [
            replace(one, path=("search", *one.path)) for one in mistakes(errors, SearchSettings)
        ]
        raise SpecError(in_order(located(found, source))) from None


def _validate_members(space: Space) -> None:
    holes = space.holes()
    if not holes:
        raise SpecError(
            "no holes: write e.g. depth: {choice: [1, 2]} to open one", where=space.source.where(())
        )
    for index, anchor in enumerate(space.settings.anchors):
        check_anchor(space.source, index, anchor, holes)
    check_members(space)
    _check_budgets(space)


def check_members(space: Space, sizes: InputSizes = OF_SPEC) -> None:
    """Refuse a space of whose members, or anchors, one cannot be planned at the sizes.

    Nor may one start from a file of weights that is not there: its trial would fail.

    Raises:
        SpecError: the first such member, located.
    """
    places = space._places()
    count = sum(len(hole.options) for hole, _ in places)
    if count > MAX_MEMBERS:
        raise SpecError(
            f"{count:,} members of holes, each of which is planned",
            where=space.source.where(()),
            allowed=f"at most {MAX_MEMBERS:,}",
        )
    chosen = [{**above, hole.name: option} for hole, above in places for option in hole.options]
    for values in dict.fromkeys(tuple(values.items()) for values in chosen):
        check_start_weights(plan_source(space._filled(dict(values), None), sizes).spec)
    for anchor in space.anchors():
        check_start_weights(plan_source(space._filled(anchor, None), sizes).spec)


def _check_budgets(space: Space) -> None:
    """Refuse a budget of multiply-adds that the first network has no widths for.

    Where that would take long, only the outer budgets are asked, or none: a draw will tell.
    """
    match = space.settings.match
    if match is None or match.macs_field is None:
        return
    first = validate(space._filled({}, None))
    blocks = sum(stage.depth for stage in first.encoder.stages)
    number, budgets = _BLOCKS_COSTED // max(blocks, 1), match.budgets
    for budget in budgets if len(budgets) <= number else (min(budgets), max(budgets))[:number]:
        try:
            match_spec(first, match.at(budget))
        except SpecError as error:
            own = f"at the space's own patch_size {list(first.patch_size)}"
            found = [
                replace(one, suggestion="; ".join(filter(None, (one.suggestion, own))))
                for one in error.below("search").problems
            ]
            where = space.source.where(("search", "match", match.macs_field))
            raise SpecError(found).at(where) from None
