"""From whatever names a spec to its plan, with every refusal located in the text."""

from collections.abc import Sequence
from dataclasses import replace

from archspec.network.input_sizes import OF_SPEC, InputSizes
from archspec.network.plan import Plan, plan
from archspec.spec.find import load_tree
from archspec.spec.load import Checked, SpecLike, apply_overrides, check, in_order, written_at
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import split_path
from archspec.spec.yaml_file import Source
from blocks.base import SpecError
from blocks.errors import Place, Problem, argument

_SIZES = ("in_channels", "num_classes", "patch_size")
_OF_ALL_STAGES = ((), *((name,) for name in _SIZES))
"""Paths of what every stage depends on; the empty one is the whole file."""


def resolve(spec: SpecLike, sizes: InputSizes = OF_SPEC, *, overrides: Sequence[str] = ()) -> Plan:
    """Load a spec (a name, path, mapping or ArchSpec) and plan it for the sizes.

    Raises:
        SpecError: the spec is wrong or does not fit the sizes; each problem with its place.
    """
    if isinstance(spec, ArchSpec):
        if not overrides:
            return plan(spec, sizes)
        spec = spec.tree()
    source = apply_overrides(load_tree(spec), overrides)
    return plan_source(source, sizes)


def plan_source(source: Source, sizes: InputSizes = OF_SPEC) -> Plan:
    """Validate a tree and plan it for the sizes.

    A patch size that is an argument or an override is named as what does not fit.

    Raises:
        SpecError: as `resolve`.
    """
    checked = check(source)
    if checked.problems or checked.spec is None:
        beside = _refused_beside(checked, sizes)
        found = [*checked.problems, *_located(beside, checked.source, sizes)]
        raise SpecError(in_order(found))
    try:
        return plan(checked.spec, sizes)
    except SpecError as error:
        raise SpecError(_located(error.problems, source, sizes)) from None


def _located(problems: Sequence[Problem], source: Source, sizes: InputSizes) -> list[Problem]:
    """Return the plan's problems with the places of their fields, or of the size they do not fit.

    A size that is an argument, and a patch that is an override, is what was tried last.
    """

    def place(one: Problem) -> Place:
        names = [name for name in (one.field, one.other) if name in (*_SIZES, "spacing")]
        for name in names:
            if getattr(sizes, name) is not None:
                return argument(name, getattr(sizes, name))
        for name in names:
            if source.where((name,)).kind == "override":
                return source.where((name,))
        return source.where(written_at(source, split_path(one.field)))

    return [replace(one, where=place(one)) for one in problems]


def _refused_beside(checked: Checked, sizes: InputSizes) -> Sequence[Problem]:
    """Return what the plan refuses beside the problems that are told already.

    Where the whole spec could be guessed it is planned, else the stages that stand before every
    problem that is left: their shapes depend on nothing that is wrong.
    """
    if checked.spec is not None:
        return _refused(checked.spec, sizes)
    tree = checked.source.tree
    paths = [split_path(one.field) for one in checked.problems]
    encoder = tree.get("encoder") if isinstance(tree, dict) else None
    stages = encoder.get("stages") if isinstance(encoder, dict) else None
    if not isinstance(stages, tuple) or any(path[:1] in _OF_ALL_STAGES for path in paths):
        return ()
    indices = [path[2:3] for path in paths if path[0] == "encoder"]
    if not all(index and isinstance(index[0], int) for index in indices):
        return ()
    kept = min((int(index[0]) for index in indices), default=len(stages))
    whole = kept == len(stages) and all(path[0] != "decoder" for path in paths)
    part = {key: tree[key] for key in (*_SIZES, "deep_supervision") if key in tree}
    part |= {"name": "part", "encoder": {**tree["encoder"], "stages": stages[:kept]}}
    part["decoder"] = tree.get("decoder") if whole else {"kind": "sum"}
    guess = check(replace(checked.source, tree=part, problems=()))
    if guess.spec is None:
        return ()
    found = _refused(guess.spec, sizes)
    return [one for one in found if whole or _is_of_a_stage(one)]


def _refused(spec: ArchSpec, sizes: InputSizes) -> Sequence[Problem]:
    try:
        plan(spec, InputSizes(patch_size=sizes.patch_size))
    except SpecError as error:
        return error.problems
    return ()


def _is_of_a_stage(one: Problem) -> bool:
    """Say whether a stage is wrong by itself, and not by being the last of those that are left."""
    return one.field.startswith("encoder.stages.") and not one.field.endswith("skip.tap")
