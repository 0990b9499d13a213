"""Components that archspec does not bring: whose they are, and who will find them."""

import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import SpecError
from blocks.registry import OWN, Origin, origin_of, slots


def installed() -> list[str]:
    """Return a line for each kind that an installed package adds."""
    return [
        f"{slot.name} {kind!r} of {slot.origin(kind).distribution} {slot.origin(kind).version}"
        for slot in slots().values()
        for kind in slot.kinds()
        if slot.origin(kind).distribution not in (OWN, None)
    ]


def broken() -> list[str]:
    """Return a line for each entry point of a package that gave no component."""
    return [one.text() for slot in slots().values() if slot.kinds() for one in slot.broken]


def packages(spec: ArchSpec) -> dict[str, str]:
    """Return the version of each installed package that the spec has a component of.

    That of a library's network, or of its encoder, is among them.
    """
    origins = [origin_of(one) for one in _components(spec)]
    name = None if spec.network is None else spec.network.distribution
    name = "timm" if isinstance(spec.encoder, TimmEncoderSpec) else name
    if name is not None:
        origins.append(Origin(name, importlib.metadata.version(name)))
    return {
        one.distribution: one.version
        for one in origins
        if one.distribution is not None and one.distribution != OWN
    }


def check_packages(needed: Mapping[str, str]) -> None:
    """Refuse what was made with a package that is not here; warn of another version.

    Raises:
        SpecError: see above.
    """
    for name, version in needed.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise SpecError(
                f"needs the package {name} {version}, which is not installed",
                field="packages",
                suggestion=f"pip install {name}=={version}",
            ) from None
        if here != version:
            text = f"made with {name} {version}, but {here} is installed"
            warnings.warn(text, stacklevel=2)


def refuse_scripted(what: str, tree: Any) -> None:
    """Refuse a kind that only the running script knows, where other processes have to.

    `tree` is a spec or a raw tree, holes of a space included; `what` says who would not have it.

    Raises:
        SpecError: see above.
    """
    kinds = {(slot.name, kind) for slot in slots().values() for kind in slot.scripted()}
    if not kinds:
        return
    plain = tree.tree() if isinstance(tree, ArchSpec) else tree
    named = set(_kinds(plain))
    for slot, kind in sorted(kinds):
        if kind in named:
            raise SpecError(
                f"the {slot} {kind!r} is registered by this script alone, and {what} would not "
                "know it",
                suggestion=(
                    f"put it into a package with the entry point {kind} in the group "
                    f"archspec.{slot}s, as in examples/my_mixer, and install that"
                ),
            )


def _components(value: Any) -> Iterator[ComponentSpec]:
    if isinstance(value, ComponentSpec):
        yield value
        for name in type(value).model_fields:
            yield from _components(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _components(item)


def _kinds(tree: Any, *, of_kind: bool = False) -> Iterator[str]:
    """Yield every word that stands below a key `kind`, members of a hole there included."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _kinds(value, of_kind=of_kind or key == "kind")
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _kinds(item, of_kind=of_kind)
    elif of_kind and isinstance(tree, str):
        yield tree
