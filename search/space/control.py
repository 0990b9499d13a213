"""The control of a search: the same space with convolution and identity as its only mixers."""

from dataclasses import replace
from typing import Any

from archspec.spec.load import load
from archspec.spec.tree import node_at
from archspec.spec.yaml_file import Source
from blocks.base import SpecError
from blocks.mixers.cycle import KIND as CYCLE
from search.space.holes import hole_kind
from search.space.references import Reference
from search.space.space import Space

_KINDS = ("conv", "identity")


def control_space(space: Space) -> Space:
    """Return the space for the control search, with the anchors that still are in it.

    nnU-Net's planned networks are: they have convolutions alone.

    Raises:
        SpecError: the space has no other mixer than convolution and identity.
    """
    source = control_source(space.source)
    if source.tree == space.source.tree:
        raise SpecError(
            f"{space.name} has no mixer but conv and identity",
            where=space.source.where(()),
            suggestion="it is its own control",
        )
    tree = {**source.tree, "name": f"{space.name}-control"}
    changed = replace(space, source=Source(source.name, tree, source.marks))
    options = {hole.name: hole for hole in changed.holes()}

    def stays(anchor: dict[str, Any]) -> bool:
        reference = Reference.of_anchor(anchor)
        if reference is not None:
            return reference.kind == "plans" or _is_local_spec(reference.name)
        return all(
            name in options and (options[name].kind != "choice" or value in options[name].options)
            for name, value in anchor.items()
        )

    kept = tuple(anchor for anchor in space.settings.anchors if stays(anchor))
    return replace(changed, settings=space.settings.model_copy(update={"anchors": kept}))


def control_source(source: Source) -> Source:
    """Return the source with every mixer replaced by a choice of convolution and identity.

    A choice keeps those of its members, with their fields, and its name. A mixer without a kind of
    its own, which takes the rest from the defaults, goes where the defaults' mixer is replaced.
    """
    default = node_at(source.tree, ("encoder", "defaults", "mixer"))
    return replace(source, tree=_restricted(source.tree, drop=not _is_local(default)))


def _restricted(node: Any, *, drop: bool) -> Any:
    """Return the tree restricted; `drop` says that a mixer without a kind has lost its meaning."""
    if isinstance(node, tuple):
        return tuple(_restricted(item, drop=drop) for item in node)
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        if key != "mixer":
            found[key] = _restricted(value, drop=drop)
        elif not isinstance(value, dict) or "kind" in value or hole_kind(value) is not None:
            found[key] = value if _is_local(value) else _choice(value)
        elif not drop:
            found[key] = value
    if hole_kind(found) == "choice" and isinstance(found["choice"], tuple):
        members = found["choice"]  # those that differed in their mixer only are equal now
        found["choice"] = tuple(m for i, m in enumerate(members) if m not in members[:i])
    return found


def _is_local_spec(name: str) -> bool:
    """Say whether it mixes by convolution and identity alone; none knows it of a library's."""
    spec = load(name)
    stages = spec.encoder.stages
    local = all(mixer.kind in _KINDS for stage in stages for mixer in stage.mixers())
    return local and bool(stages)


def _is_local(mixer: Any) -> bool:
    """Say whether nothing but convolution and identity can stand there."""
    if mixer is None:
        return True
    if not isinstance(mixer, dict):
        return False
    if hole_kind(mixer) == "choice" and isinstance(mixer["choice"], tuple):
        return all(map(_is_local, mixer["choice"]))
    if mixer.get("kind") == CYCLE and isinstance(mixer.get("of"), tuple):
        return all(map(_is_local, mixer["of"]))
    return mixer.get("kind") in _KINDS


def _choice(mixer: Any) -> dict[str, Any]:
    """Return the choice with its local members, convolution and identity at least."""
    members = mixer.get("choice") if isinstance(mixer, dict) else None
    kept = [m for m in members if _is_local(m)] if isinstance(members, tuple) else []
    kinds = {member.get("kind") for member in kept}
    kept += [{"kind": kind} for kind in _KINDS if kind not in kinds]
    name = {"name": mixer["name"]} if isinstance(mixer, dict) and "name" in mixer else {}
    return {"choice": tuple(kept), **name}
