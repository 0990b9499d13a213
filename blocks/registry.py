"""Which kinds of component there are: ours, installed ones, and those that a script registers.

A `Slot` is one place of a network that a component fills, and at once the pydantic annotation that
makes a union of its kinds when a schema is first needed. Installed packages name their classes as
entry points of the slot's group (`archspec.mixers`, say); they are imported then, not before.
"""

import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from blocks.base import ComponentSpec
from blocks.errors import SpecError, reason

T = TypeVar("T", bound=ComponentSpec)

OWN = "archspec-seg"
"""The distribution of the components that archspec brings."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a kind comes from; a script has no distribution."""

    distribution: str | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry point that gave no component."""

    group: str
    name: str
    origin: Origin
    problem: str

    def text(self) -> str:
        """Return one line."""
        package = f"{self.origin.distribution} {self.origin.version}".strip()
        return f"{self.group} {self.name!r} of {package}: {self.problem}"


@dataclass(eq=False)
class Slot(Generic[T]):
    """One place that a component fills; `own` are the classes that archspec brings.

    A slot whose first class has no `kind` takes a mapping without one as that class.
    """

    name: str
    base: type[ComponentSpec]
    own: tuple[type[ComponentSpec], ...]
    broken: list[Broken] = field(default_factory=list)
    _kinds: dict[str, type[ComponentSpec]] = field(default_factory=dict)
    _origins: dict[str, Origin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for cls in self.own:
            self._kinds[kind_of(cls)] = cls
            self._origins[kind_of(cls)] = Origin(OWN)
        _SLOTS[self.name] = self

    @property
    def group(self) -> str:
        """Return the group of entry points in which packages name their classes."""
        return f"archspec.{self.name}s"

    def kinds(self) -> dict[str, type[ComponentSpec]]:
        """Return the classes by kind, ours first; "" is the kind of a class without one."""
        _find_installed()
        return dict(self._kinds)

    def origin(self, kind: str) -> Origin:
        """Return where a kind comes from."""
        return self._origins[kind]

    def scripted(self) -> list[str]:
        """Return the kinds that no package has, so that other processes do not know them."""
        return [kind for kind, origin in self._origins.items() if origin.distribution is None]

    def register(self, cls: type[T]) -> type[T]:
        """Add a kind, as a decorator of its class.

        The class that a cell or file defines again replaces the one it defined before.

        Raises:
            SpecError: the class cannot be a component here, or its kind is taken.
        """
        self._add(cls, Origin())
        return cls

    def _add(self, cls: type[Any], origin: Origin) -> None:
        self._check(cls)
        kind = kind_of(cls)
        former = self._kinds.get(kind)
        if former is cls:
            if origin.distribution is not None:
                self._origins[kind] = origin
            return
        if former is not None and not (_is_same_place(cls, former) and origin == Origin()):
            raise SpecError(
                f"the {self.name} {kind!r} is registered already, by {_place(former)}",
                field=_place(cls),
                suggestion="give it a kind of its own",
            )
        self._kinds[kind], self._origins[kind] = cls, origin
        _rebuild()

    def _check(self, cls: type[Any]) -> None:
        """Refuse a class that no spec could name.

        Raises:
            SpecError: see above.
        """
        if not (isinstance(cls, type) and issubclass(cls, self.base)) or inspect.isabstract(cls):
            raise SpecError(
                f"a {self.name} must be a subclass of {_place(self.base)} that defines all it asks "
                "for",
                field=_place(cls),
            )
        kind = cls.model_fields.get("kind")
        words = () if kind is None else get_args(kind.annotation)
        if kind is None or get_origin(kind.annotation) is not Literal or words != (kind.default,):
            raise SpecError(
                "must name its kind, once, with the default",
                field=_place(cls),
                suggestion='e.g. kind: Literal["my_mixer"] = "my_mixer"',
            )
        required = [name for name, one in cls.model_fields.items() if one.is_required()]
        if required or not callable(getattr(cls, "build", None)):
            what = f"the field {required[0]} needs a default" if required else "has no build()"
            raise SpecError(what, field=_place(cls))

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return _schema_of(self.kinds(), handler)


@dataclass(frozen=True, slots=True)
class KindsOf:
    """Mark a field, of a component that holds others, which takes the kinds of a slot.

    `without` are kinds that it does not take. The slot may be made later than the mark.
    """

    slot: str
    without: tuple[str, ...] = ()

    def kinds(self) -> dict[str, type[ComponentSpec]]:
        """Return the classes by kind."""
        kinds = _SLOTS[self.slot].kinds()
        return {kind: cls for kind, cls in kinds.items() if kind not in self.without}

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return _schema_of(self.kinds(), handler)


def _schema_of(
    kinds: Mapping[str, type[ComponentSpec]], handler: GetCoreSchemaHandler
) -> CoreSchema:
    """Return the schema of a union; from here on, what is registered later rebuilds the models."""
    global _is_built
    _is_built = True
    if len(kinds) == 1:
        return handler.generate_schema(next(iter(kinds.values())))
    if "" in kinds:
        choices = {kind: handler.generate_schema(cls) for kind, cls in kinds.items()}
        return core_schema.tagged_union_schema(choices, discriminator=_kind_or_none)
    union: Any = reduce(or_, kinds.values())
    return handler.generate_schema(Annotated[union, Field(discriminator="kind")])


_SLOTS: dict[str, Slot[Any]] = {}
_models: list[type[BaseModel]] = []
_is_built = False
_is_searched = False


def slots() -> dict[str, Slot[Any]]:
    """Return the slots by name."""
    return dict(_SLOTS)


def rebuilt_with_slots(cls: type[BaseModel]) -> type[BaseModel]:
    """Mark a model, after those that it holds, whose schema takes in what is registered later."""
    _models.append(cls)
    return cls


def classes_in(
    annotation: Any, metadata: Iterator[Any] | list[Any] | tuple[Any, ...] = ()
) -> list[type[BaseModel]]:
    """Return the classes of component that an annotation stands for."""
    slot = next((mark for mark in metadata if isinstance(mark, Slot | KindsOf)), None)
    if slot is not None:
        return list(slot.kinds().values())
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return classes_in(inner, marks)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for argument in get_args(annotation) for member in classes_in(argument)]


def slot_of(cls: type[BaseModel]) -> str:
    """Return the name of the slot that the class is a kind of."""
    return next(name for name, slot in _SLOTS.items() if cls in slot.kinds().values())


def origin_of(component: ComponentSpec) -> Origin:
    """Return where a component's class comes from."""
    for slot in _SLOTS.values():
        for kind, cls in slot.kinds().items():
            if cls is type(component):
                return slot.origin(kind)
    return Origin(OWN)


def _find_installed() -> None:
    """Register what installed packages name, once; what fails is kept as broken."""
    global _is_searched
    if _is_searched:
        return
    _is_searched = True  # before: a package may use archspec while it is imported
    for slot in _SLOTS.values():
        for entry in importlib.metadata.entry_points(group=slot.group):
            distribution = entry.dist
            origin = Origin(distribution.name, distribution.version) if distribution else Origin()
            try:
                cls = entry.load()
                slot._add(cls, origin)
                if kind_of(cls) != entry.name:
                    raise SpecError(f"its class has the kind {kind_of(cls)!r}")
            except Exception as error:  # whatever a package raises, archspec goes on without it
                slot.broken.append(Broken(slot.group, entry.name, origin, reason(error)))


def _rebuild() -> None:
    if _is_built:
        for model in _models:
            model.model_rebuild(force=True)


def kind_of(cls: type[BaseModel]) -> str:
    """Return the word that names the class in YAML; "" for a class that needs none."""
    kind = cls.model_fields.get("kind")
    return "" if kind is None else str(kind.default)


def _kind_or_none(value: Any) -> str:
    return str(value.get("kind", "") if isinstance(value, dict) else getattr(value, "kind", ""))


def _place(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}" if isinstance(cls, type) else repr(cls)


def _is_same_place(cls: type, former: type) -> bool:
    return _place(cls) == _place(former)
