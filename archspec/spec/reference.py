"""The fields of every component and section, from the models that validate them."""

import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from archspec.spec.claims import ClaimSpec
from archspec.spec.schema import ArchSpec, DeepSupervisionSpec, EncoderSpec, StageSpec
from archspec.spec.training import TrainingSpec
from archspec.spec.words import did_you_mean, shown
from blocks.base import MAX_COUNT, Allowed
from blocks.decoders.library import NetworkSpec
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import SpecError, argument
from blocks.registry import classes_in, kind_of, slots

Sections = Mapping[str, type[BaseModel]]
SECTIONS: Sections = {
    "spec": ArchSpec,
    "encoder": EncoderSpec,
    "stage": StageSpec,
    "timm": TimmEncoderSpec,
    "network": NetworkSpec,
    "deep_supervision": DeepSupervisionSpec,
    "training": TrainingSpec,
    "claim": ClaimSpec,
}
"""Parts of a spec that have no kinds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One field: what it takes, and its default; None where it must be given."""

    name: str
    values: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Reference:
    """The fields of one section, or of one kind, as `mixer.attention`; `doc` says what it is."""

    name: str
    doc: str
    fields: tuple[Entry, ...]

    def text(self) -> str:
        """Return lines for a terminal."""
        rows = [
            (one.name, one.values, "required" if one.default is None else one.default)
            for one in self.fields
        ]
        first, second = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
        lines = [f"  {a:{first}}  {b:{second}}  {c}" for a, b, c in rows]
        return "\n".join([self.name, "", self.doc, "", *lines])

    def markdown(self) -> str:
        """Return a section of the page."""
        rows = [
            f"| `{one.name}` | {_cell(one.values)} | "
            f"{'required' if one.default is None else f'`{one.default}`'} |"
            for one in self.fields
        ]
        table = ["| field | takes | default |", "|---|---|---|", *rows] if rows else ["No fields."]
        return "\n".join([f"### {self.name}", "", self.doc, "", *table, ""])

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec list --fields NAME --json` prints."""
        return asdict(self)


def references(more: Sections = MappingProxyType({})) -> list[Reference]:
    """Return sections, `more` after those of a spec, then every kind of every slot.

    Installed components are among them.
    """
    sections = [_reference(name, cls) for name, cls in {**SECTIONS, **more}.items()]
    return [*sections, *(_reference(name, cls) for name, cls in _kinds())]


def reference(name: str, more: Sections = MappingProxyType({})) -> list[Reference]:
    """Return a section, a kind such as `mixer.attention`, or all kinds of a slot, as `mixer`.

    Raises:
        SpecError: there is none of that name.
    """
    every = references(more)
    found = [one for one in every if one.name == name or one.name.startswith(f"{name}.")]
    if not found:
        names = [one.name for one in every]
        raise SpecError(
            "not a section or a component",
            where=argument("name", name),
            allowed=", ".join(dict.fromkeys(one.partition(".")[0] for one in names)),
            suggestion=did_you_mean(name, names),
        )
    return found


def page(more: Sections = MappingProxyType({})) -> str:
    """Return docs/reference.md."""
    parts = [
        "# Fields of a spec",
        "",
        "Made from the models that validate specs, by `archspec list --fields all --markdown`. In",
        "YAML a component is a mapping with its `kind` and these fields; what is left out has its",
        "default. `archspec schema` prints the same for editors.",
        "",
        "## Sections",
        "",
        *(_reference(name, cls).markdown() for name, cls in {**SECTIONS, **more}.items()),
    ]
    for slot in _in_order():
        own = [_reference(name, cls) for name, cls in _kinds() if name.split(".")[0] == slot]
        parts += [f"## {slot}", "", *(one.markdown() for one in own)]
    return "\n".join(parts).rstrip() + "\n"


def _in_order() -> list[str]:
    """Return the slots as a stage has them, then the decoder."""
    return [name for name in (*StageSpec.model_fields, "decoder") if name in slots()]


def _kinds() -> Iterator[tuple[str, type[BaseModel]]]:
    for slot in _in_order():
        for kind, cls in slots()[slot].kinds().items():
            yield (f"{slot}.{kind}" if kind else slot), cls


def _reference(name: str, cls: type[BaseModel]) -> Reference:
    fields = tuple(
        Entry(info.alias or field, _values(info.annotation, info.metadata), _default(info))
        for field, info in cls.model_fields.items()
        if field != "kind"
    )
    return Reference(name, inspect.getdoc(cls) or "", fields)


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return kind_of(type(value)) or "{}"
    if value == {}:
        return "{}"
    return value if isinstance(value, str) and value else shown(value)


def _values(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """Return what a field takes, in words."""
    allowed = next((one.text for one in metadata if isinstance(one, Allowed)), None)
    if allowed is not None:
        return allowed
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return _values(inner, [*metadata, *marks])
    classes = classes_in(annotation, metadata)
    if classes:
        listed = get_origin(annotation) is tuple
        kinds = [kind_of(cls) for cls in classes]
        words = " | ".join(kinds) if all(kinds) else "a mapping"
        return f"a list of {words}" if listed and all(kinds) else "a list" if listed else words
    if get_origin(annotation) is Literal:
        return " | ".join(shown(one) if one is None else str(one) for one in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(_values(one, metadata) for one in get_args(annotation))
    if get_origin(annotation) is tuple:
        inner, *rest = get_args(annotation)
        number = "" if rest == [Ellipsis] else f"{1 + len(rest)} "
        return f"a list of {number}{_plural(_values(inner))}"
    return _bounded(annotation, metadata)


_NAMES: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "true | false",
    str: "text",
    types.NoneType: "null",
}
_BOUNDS = ((Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<="))


def _bounded(annotation: Any, metadata: list[Any] | tuple[Any, ...]) -> str:
    name = _NAMES.get(annotation, "a mapping")
    if annotation not in (int, float):
        return name
    marks = [one for mark in metadata for one in (getattr(mark, "metadata", None) or [mark])]
    bounds = [
        f"{sign} {_number(getattr(mark, key))}"
        for mark in marks
        for kind, key, sign in _BOUNDS
        if isinstance(mark, kind)
    ]
    return " ".join([name, ", ".join(bounds)]).strip()


def _number(value: float) -> str:
    """Return large powers of ten as such."""
    return f"{value:.0e}".replace("e+", "e") if value >= MAX_COUNT else f"{value:g}"


def _plural(words: str) -> str:
    head, _, rest = words.partition(" ")
    return f"{head}s {rest}".strip() if head in ("integer", "number") else words


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
