"""Hashes that were written down once stay what they are."""

import json
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from archspec.spec import hashing
from archspec.spec.find import list_specs
from archspec.spec.hashing import arch_hash, is_hash_of, trial_hash
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec, StageSpec
from blocks.base import Added, ComponentSpec, NotWeights
from blocks.registry import classes_in

GOLDEN = Path(__file__).parents[2] / "golden" / "schema"
HASHES: dict[str, list[str]] = json.loads((GOLDEN / "hashes.json").read_text(encoding="utf-8"))
FIELDS: dict[str, list[str]] = json.loads((GOLDEN / "fields_1.json").read_text(encoding="utf-8"))
"""Every field of schema 1, by class. No line is ever added: a later field is marked `Added`."""

# Of the same specs by the release before hashes had versions: unet's.
OLD_ARCH, OLD_TRIAL = HASHES["unet by an unversioned hash"]

TREE: dict[str, Any] = {
    "name": "net",
    "patch_size": [16, 16, 16],
    "encoder": {"stages": [{"width": 4, "mixer": {"kind": "conv"}}] * 2},
    "decoder": {"kind": "sum"},
}


def kinds(model: type[ComponentSpec]) -> set[type[ComponentSpec]]:
    """Return every spec class of the package below this one."""
    below = {one for sub in model.__subclasses__() for one in {sub} | kinds(sub)}
    return {one for one in below if one.__module__.split(".")[0] in ("archspec", "blocks")}


def label(model: type[ComponentSpec]) -> str:
    kind = model.model_fields.get("kind")
    return model.__name__ if kind is None else f"{model.__name__} ({kind.default})"


@pytest.mark.parametrize("name", list_specs())
def test_of_bundled_specs(name: str) -> None:
    assert [arch_hash(load(name)), trial_hash(load(name))] == HASHES[name]


def test_every_field_is_of_schema_1_or_marked() -> None:
    """A field without a mark would change the hash of every spec that was ever stored."""
    unmarked = [
        f"{label(model)}.{name}"
        for model in kinds(ComponentSpec)
        for name, field in model.model_fields.items()
        if name not in FIELDS.get(label(model), [])
        and label(model) in FIELDS  # a new component is digested in full: no stored spec has it
        and not any(isinstance(mark, Added) for mark in field.metadata)
    ]
    assert not unmarked, f"mark them Added(...): {unmarked}"


def test_no_field_of_schema_1_is_gone_or_marked() -> None:
    known = {label(model): model.model_fields for model in kinds(ComponentSpec)}
    for name, fields in FIELDS.items():
        for field in fields:
            assert field in known[name], f"{name}.{field}: a migration must read it, see MIGRATIONS"
            marks = known[name][field].metadata
            assert not any(isinstance(mark, Added) for mark in marks), f"{name}.{field}"


@pytest.mark.parametrize("slot", ["downsample", "local", "block", "mixer", "ffn", "post", "skip"])
def test_kinds_with_default_fields_never_collide(slot: str) -> None:
    """Every `kind` is digested, even where it is the default of its slot."""
    stage = {"width": 4, "mixer": {"kind": "conv"}}
    field = StageSpec.model_fields[slot]
    specs = []
    for member in classes_in(field.annotation, field.metadata):
        kind = member.model_fields.get("kind")
        tree = {} if kind is None else {"kind": kind.default}
        changed = {"encoder": {"stages": [{**stage, slot: tree}] * 2}}
        specs.append(load({**TREE, **changed}))
    for one, other in combinations(specs, 2):
        assert arch_hash(one) != arch_hash(other)
        assert trial_hash(one) != trial_hash(other)


def test_decoders_never_collide() -> None:
    digests = {arch_hash(load({**TREE, "decoder": {"kind": k}})) for k in ("sum", "mlp", "concat")}
    assert len(digests) == 3


class _First(ComponentSpec):
    kind: Literal["a"] = "a"
    size: int = 3


class _Later(ComponentSpec):
    kind: Literal["a"] = "a"
    size: int = 3
    gate: Annotated[bool, Added(False)] = False
    inner: Annotated[_First, Added({"kind": "a", "size": 3})] = _First()


class _DefaultChanged(ComponentSpec):
    kind: Literal["a"] = "a"
    size: int = 3
    gate: Annotated[bool, Added(False)] = True


def test_an_added_field_counts_where_it_differs_from_what_it_was_introduced_with() -> None:
    first = hashing._tree(_First(), "arch")
    assert hashing._tree(_Later(), "arch") == first
    assert hashing._tree(_Later(gate=True), "arch") == {**first, "gate": True}
    assert hashing._tree(_Later(inner=_First(size=4)), "arch") != first
    assert hashing._tree(_DefaultChanged(gate=False), "arch") == first, "the default changed later"
    assert hashing._tree(_DefaultChanged(), "arch") == {**first, "gate": True}


class _Marked(ComponentSpec):
    kind: Literal["b"] = "b"
    start: Annotated[int, NotWeights(), Added(0)] = 0
    note: Annotated[str, NotWeights(label=True)] = ""


def test_a_mark_leaves_a_field_out_at_any_depth() -> None:
    for value in (_Marked(start=1, note="a"), {"stages": (_Marked(start=1, note="a"),)}):
        tree = {"kind": "b"}
        wrapped = tree if isinstance(value, _Marked) else {"stages": [tree]}
        assert hashing._tree(value, "arch") == wrapped
    assert hashing._tree(_Marked(start=1, note="a"), "trial") == {"kind": "b", "start": 1}
    assert hashing._tree(_Marked(), "trial") == {"kind": "b"}


def test_how_tom_starts_counts_for_trials_only() -> None:
    """Those of before the field read as `released` and keep both hashes."""
    found = [
        load({**TREE, "encoder": {"stages": [{"width": 4, "mixer": {"kind": "tom", **extra}}]}})
        for extra in ({}, {"init": "released"}, {"init": "mamba"})
    ]
    assert len({arch_hash(spec) for spec in found}) == 1
    assert trial_hash(found[0]) == trial_hash(found[1]) != trial_hash(found[2])


def test_a_new_schema_version_changes_no_hash() -> None:
    spec = load(TREE)
    newer = ArchSpec.model_construct(**{**dict(spec), "schema_version": 7})
    assert (arch_hash(newer), trial_hash(newer)) == (arch_hash(spec), trial_hash(spec))


def test_labels_count_for_neither_and_the_recipe_for_trials_only() -> None:
    spec, named = load(TREE), load({**TREE, "name": "other", "title": "another"})
    trained = load({**TREE, "training": {"lr": 0.5}})
    assert (arch_hash(named), trial_hash(named)) == (arch_hash(spec), trial_hash(spec))
    assert arch_hash(trained) == arch_hash(spec)
    assert trial_hash(trained) != trial_hash(spec)


def test_hashes_of_any_release_are_known() -> None:
    unet, other = load("unet"), load("small-unet")
    assert is_hash_of(OLD_ARCH, unet, "arch") and is_hash_of(OLD_TRIAL, unet, "trial")
    assert is_hash_of(arch_hash(unet), unet, "arch") and is_hash_of(trial_hash(unet), unet, "trial")
    for spec, kind in ((other, "arch"), (unet, "trial")):
        assert not is_hash_of(OLD_ARCH, spec, kind)  # type: ignore[arg-type]
        assert not is_hash_of(arch_hash(unet), spec, kind)  # type: ignore[arg-type]
