"""Specs, overrides and sizes: bundled ones and ones put together from the schema, changed."""

import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from archspec.costs.flops import cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.spec.bundled import bundled, bundled_names
from archspec.spec.find import list_specs
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec, StageSpec
from archspec.spec.tree import thawed, walk
from archspec.spec.yaml_file import dump, parse
from blocks.decoders import AnyDecoder
from blocks.registry import classes_in
from tests.fuzz.cases import Case, WrongError
from tests.fuzz.foreign import around_timm, of_library
from tests.fuzz.mutate import (
    INTEGERS,
    ODD_WORDS,
    WORDS,
    YAML_TEXTS,
    all_keys,
    break_text,
    mutate,
    raw,
    scalar,
)

for _name in ("primus-s", "unetr", "timm-convnext-tiny"):
    resolve(_name)  # imports libraries, and PyTorch's compiler, before a case is measured

_LARGEST_BUILT = 40
"""Blocks of a network that is built too: deeper ones take long, and have nothing new."""


def make(draws: random.Random, folder: Path) -> Case:
    """Write or think up a spec, with overrides and sizes."""
    tree = base(draws)
    for _ in range(draws.choice((0, 0, 0, 1, 1, 1, 2, 5))):
        tree = mutate(tree, draws, keys())
    overrides = [override(tree, draws) for _ in range(draws.choice((0, 0, 0, 0, 0, 1, 1, 2)))]
    if draws.random() < 0.005:
        overrides *= 501
    source, sizes = given(tree, draws, folder), input_sizes(draws)
    built = draws.random() < 0.03

    def then(planned: Plan) -> None:
        check_numbers(planned)
        tree = planned.spec.tree()
        if load(parse(dump(tree), "again").tree) != planned.spec:
            raise WrongError("it is another one when it is written and read again")
        if built and sum(stage.spec.depth for stage in planned.stages) <= _LARGEST_BUILT:
            cost_plan(planned)

    if draws.random() < 0.1:
        return Case(lambda: load(source, overrides=overrides))
    return Case(lambda: resolve(source, sizes, overrides=overrides), then)


def base(draws: random.Random) -> Any:
    """Return the tree of a bundled spec, or of one that the schema allows."""
    turn = draws.random()
    if turn < 0.05:
        return around_timm(draws) if turn < 0.03 else of_library(draws)
    if turn < 0.6:
        tree = trees()[draws.choice(sorted(trees()))]
        return tree if draws.random() < 0.3 else {**tree, "claims": [], "sources": []}
    ndim = draws.choice((2, 3))
    return {
        "name": "made-up",
        "patch_size": [draws.choice((16, 32, 48, 64)) for _ in range(ndim)],
        "encoder": {"stages": [stage(draws) for _ in range(draws.choice((1, 2, 3, 4, 6)))]},
        "decoder": component(AnyDecoder, draws),
        "deep_supervision": {"heads": draws.choice((1, 1, 2, 3, 5))},
        **({"training": draws.choice(_TRAININGS)} if draws.random() < 0.05 else {}),
    }


_TRAININGS: tuple[dict[str, Any], ...] = (
    {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9},
    {"optimizer": "adamw", "lr": 0.01, "momentum": 0.9},
    {"optimizer": "sgd", "lr": 0.01, "betas": [0.9, 0.99]},
)


def stage(draws: random.Random) -> dict[str, Any]:
    """Return a stage of which every part is one that its class takes."""
    found: dict[str, Any] = {"width": draws.choice((1, 4, 8, 12, 16, 24, 32))}
    for name, field in StageSpec.model_fields.items():
        if name != "width" and (field.is_required() or draws.random() < 0.3):
            found[name] = component(field.annotation, draws, field.metadata)
            if found[name] is None:
                found[name] = value(StageSpec, name, draws)
    if draws.random() < 0.05:
        found["post"] = {"kind": "mixer", "mixer": draws.choice(_REFUSED_SOMEWHERE)}
    return found


_REFUSED_SOMEWHERE: tuple[dict[str, Any], ...] = (
    {"kind": "mamba", "orders": ["dhw", "whd"]},
    {"kind": "mamba", "orders": ["hw", "-hw"]},
    {"kind": "tom", "num_slices": 3},
    {"kind": "attention", "num_heads": 3, "reduction": 3},
    {"kind": "conv", "kernel_size": [3, 3]},
)
"""Mixers that need some number of axes, channels or positions."""


def component(annotation: Any, draws: random.Random, metadata: Sequence[Any] = ()) -> Any:
    """Return one component of a union, some of its fields set; None where it is none."""
    found = classes_in(annotation, metadata)
    if not found:
        return None
    member = draws.choice(found)
    tree = {name: value(member, name, draws) for name in _some(member, draws)}
    if "kind" in member.model_fields:
        tree["kind"] = member.model_fields["kind"].default
    return tree


def _some(member: type[BaseModel], draws: random.Random) -> list[str]:
    names = [name for name in member.model_fields if name != "kind" and _is_known(member, name)]
    return [
        name for name in names if member.model_fields[name].is_required() or draws.random() < 0.15
    ]


_PLAIN = (*(None, False, True, 0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0),)
_LISTS = ((1, 3), (3, 1, 1), (2, 1), (1, 2, 1), (2, 2, 2), (2, 2), (3, 3, 3), (4, 4), (1, 1, 1))
_MORE_LISTS = ((8,), (8, 8, 8), (4, 8, 16, 16), (1, 2, 3, 4, 5))
_ORDERS = (("dhw", "-whd"), ("hw", "-wh"), ("dhw", "dhw"), ("hw", "hw"), ("-hwd", "hw", "a"))


def _is_known(member: type[BaseModel], name: str) -> bool:
    field = member.model_fields[name]
    return bool(classes_in(field.annotation, field.metadata) or values(member, name))


def value(member: type[BaseModel], name: str, draws: random.Random) -> Any:
    """Return a value that the class takes for a field by itself, mostly a usual one."""
    field = member.model_fields[name]
    if (inner := component(field.annotation, draws, field.metadata)) is not None:
        return inner
    taken = values(member, name)
    usual = [one for one in taken if not isinstance(one, int) or one <= 64]
    return draws.choice(usual if usual and draws.random() < 0.9 else taken)


@functools.cache
def values(member: type[BaseModel], name: str) -> tuple[Any, ...]:
    """Return values that the class takes for a field by itself, both sides of its bounds too."""
    words = _literals(member.model_fields[name].annotation)
    found = []
    for value in (
        *_PLAIN,
        *_LISTS,
        *_MORE_LISTS,
        *_ORDERS,
        *WORDS,
        *INTEGERS,
        *words,
        *((w,) for w in words),
    ):
        try:
            member.model_validate({name: value})
        except ValidationError as error:
            if any(one["loc"][:1] == (name,) for one in error.errors()):
                continue
        found.append(list(value) if isinstance(value, tuple) else value)
    return tuple(found)


def _literals(annotation: Any) -> list[str]:
    inner = [word for part in get_args(annotation) for word in _literals(part)]
    return [*inner, *(word for word in get_args(annotation) if isinstance(word, str))]


@functools.cache
def trees() -> dict[str, Any]:
    """Return the bundled specs as plain trees."""
    return {name: thawed(bundled(name).tree) for name in list_specs()}


@functools.cache
def keys() -> tuple[str, ...]:
    """Return words that keys may be: those of all components and specs, and some that none has."""
    fields = [*StageSpec.model_fields.values(), *ArchSpec.model_fields.values()]
    parts = [
        *(one for field in fields for one in classes_in(field.annotation, field.metadata)),
        *classes_in(AnyDecoder),
        *(ArchSpec, StageSpec),
    ]
    own = {name for part in parts for name in part.model_fields}
    others = {key for tree in trees().values() for key in all_keys(tree)}
    return tuple(sorted(own | others | {"defaults", "search", "choice", "int", "<<", "", "0", "x"}))


def given(tree: Any, draws: random.Random, folder: Path) -> Any:
    """Return what names the spec: mostly its file, also a mapping, or a name of any kind."""
    turn = draws.random()
    file = folder / draws.choice(("net.yaml", "net.yaml", "a b.yml", "\u00e4\u4e2d'#.yaml"))
    if turn < 0.12:
        return tree if isinstance(tree, dict) else {"name": tree}
    if turn < 0.125:
        return {
            "name": draws.choice(([0] * 30_000, functools.reduce(lambda t, _: [t], range(70), 1)))
        }
    if turn < 0.16:
        names = (*list_specs(), *bundled_names("search"), *WORDS, *ODD_WORDS, "unet.yaml")
        return draws.choice(
            (draws.choice(names), draws.choice(names) + ".yaml", f"{folder}/no.yaml")
        )
    if turn < 0.17:
        return draws.choice((str(folder / "\x00.yaml"), Path("x" * 5000), folder, 1, None, [tree]))
    text = written(tree, draws)
    for _ in range(draws.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 2))):
        text = break_text(text, draws)
    content = text.encode("utf-8", errors="surrogatepass")
    if turn < 0.19:
        content = draws.choice((content[:200] + b"\xff\xfe", content * 2, b"", b"a: " * 400_000))
    file.write_bytes(content)
    return draws.choice((file, str(file)))


def written(tree: Any, draws: random.Random) -> str:
    """Return the tree as YAML in one of the ways that people write it."""
    flow = draws.choice((None, None, False, True))
    text: str = yaml.safe_dump(tree, sort_keys=False, default_flow_style=flow, allow_unicode=True)
    return raw(text, YAML_TEXTS)


def override(tree: Any, draws: random.Random) -> str:
    """Return an override of a node that is there, or of one that is not."""
    path = [str(part) for part in draws.choice([path for path, _ in walk(tree)])]
    for _ in range(draws.choice((0, 0, 0, 0, 0, 1, 2))):
        part = draws.choice((*keys(), "0", "-1", "99", "*", "a\x1bb", "9" * 30, *ODD_WORDS))
        path[draws.randrange(len(path) + 1) :] = [part] * draws.choice((1, 1, 1, 1, 1, 2, 70))
    left = draws.choice(
        (".".join(path), "".join(f"[{p}]" if p.isdigit() else f".{p}" for p in path))
    )
    value = scalar(draws) if draws.random() < 0.5 else draws.choice((1, 2, 4, 8, 16, 32, 64, 0.5))
    texts = (
        str(value)[:6000],
        raw(
            yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip(), YAML_TEXTS
        ),
        draws.choice(YAML_TEXTS),
        "",
    )
    shape = "{}={}" if draws.random() < 0.9 else draws.choice(("{} = {}", "{}", "={1}", "{}:{}"))
    return shape.format(left, draws.choice(texts))


def input_sizes(draws: random.Random) -> InputSizes:
    """Return the spec's own sizes, sensible ones, or any."""
    if draws.random() < 0.6:
        return InputSizes(exact=draws.random() < 0.2)
    ndim = draws.choice((2, 3, 3))
    usual = tuple(draws.choice((1, 4, 7, 16, 31, 32, 48, 64, 96, 128, 200)) for _ in range(ndim))
    patch: Any = draws.choice((None, usual, usual, usual, (draws.choice(INTEGERS),) * ndim))
    channels: Any = draws.choice((None, 1, 2, 4))
    if draws.random() < 0.1:
        patch, channels = scalar(draws), scalar(draws)
    spacing = tuple(draws.choice((0.0, 0.5, 1.0, 1.5, 3.0, 8.0, 1e9, -1.0)) for _ in range(ndim))
    return InputSizes(
        in_channels=channels,
        num_classes=draws.choice((None, None, 2, 5, draws.choice(INTEGERS))),
        patch_size=tuple(patch) if isinstance(patch, list) else patch,
        spacing=draws.choice((None, spacing, (1.0,) * ndim)),
        exact=draws.random() < 0.3,
        fit_stages=draws.random() < 0.3,
    )


def check_numbers(planned: Plan) -> None:
    """Raise where the shapes of a plan are not positive integers."""
    for one in planned.stages:
        for shape in (one.inp, one.mixed, one.out):
            if not all(type(n) is int and n > 0 for n in (shape.channels, *shape.grid)):
                raise WrongError(f"{one.path} is planned at {shape}")
