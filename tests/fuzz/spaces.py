"""Search spaces: bundled ones, and specs into which holes are put, changed."""

import copy
import functools
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

from archspec.spec.find import space_tree
from archspec.spec.tree import thawed, walk
from blocks.errors import SpecError
from search.space.space import Space, list_spaces, load_space
from tests.fuzz.cases import Case, check_refusal
from tests.fuzz.mutate import (
    FLOATS,
    INTEGERS,
    ODD_WORDS,
    WORDS,
    at,
    break_text,
    mutate,
    near,
    scalar,
)
from tests.fuzz.specs import base, keys, override, trees, written

_KEYS = (
    "choice",
    "int",
    "float",
    "log",
    "step",
    "name",
    "tie",
    "search",
    "holes",
    "anchors",
    "match",
)
_KEYS += (
    "macs",
    "macs_per_voxel",
    "seconds",
    "limits",
    "gflops",
    "memory",
    "params",
    "rungs",
    "eta",
)
_KEYS += ("steps", "patch_size", "stopper", "test_share", "batch_size", "stages_from_dataset")


def make(draws: random.Random, folder: Path) -> Case:
    """Write a space, with overrides."""
    bundled = draws.random() < 0.4
    tree = copy.deepcopy(_bundled(draws.choice(list_spaces())) if bundled else opened(draws))
    for _ in range(draws.choice((0, 0, 0, 1, 1, 3))):
        tree = mutate(tree, draws, (*_KEYS, *_KEYS, *keys()))
    for _ in range(draws.choice((0, 0, 0, 1))):
        put_hole(tree, draws)
    overrides = tuple(override(tree, draws) for _ in range(draws.choice((0, 0, 0, 0, 0, 1, 3))))
    text = written(tree, draws)
    if draws.random() < 0.05:
        text = break_text(text, draws)
    file = folder / "space.yaml"
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    source = file if draws.random() < 0.97 else draws.choice((*list_spaces(), *WORDS, str(folder)))
    seed = draws.randrange(2**31)
    return Case(lambda: load_space(source, overrides=overrides), lambda space: use(space, seed))


def opened(draws: random.Random) -> Any:
    """Return a spec with holes that can be filled, and mostly a section `search` beside it."""
    tree = copy.deepcopy(base(draws))
    parts = (("encoder",), ("decoder",), ("network",))
    fields = [path for path, node in walk(tree) if path[:1] in parts]
    for path in draws.sample(fields[1:], min(len(fields) - 1, draws.choice((1, 2, 4)))):
        with suppress(LookupError, TypeError):  # in what another one has replaced
            holder = at(tree, path[:-1])
            holder[path[-1]] = around(path[-1], holder[path[-1]], draws)
    if draws.random() < 0.7:
        tree["search"] = settings(draws)
    return tree


def around(key: str | int, value: Any, draws: random.Random) -> Any:
    """Return a hole in which the value is one of several like it."""
    if isinstance(value, dict):
        others = [tree[key] for tree in _stages() if key in tree]
        found = {"choice": [value, *draws.sample(others, min(2, len(others)))]}
    elif key == "width" and isinstance(value, int):
        found = {"int": [value, 4 * value], "step": value}
    else:
        found = {"choice": [value, near(value, draws)]}
    return found | ({"name": draws.choice(("w", "v", "d"))} if draws.random() < 0.2 else {})


def settings(draws: random.Random) -> dict[str, Any]:
    """Return a section `search`, most of whose values are right."""
    macs = draws.choice((40e6, {"choice": [20e6, 40e6]}, 1e9, draws.choice(FLOATS)))
    parts = {
        "steps": draws.choice((9, 27, 1000)),
        "rungs": draws.choice((1, 3, 64, 65)),
        "batch_size": draws.choice((1, 2, 16_384, 16_385)),
        "limits": {"gflops": draws.choice(FLOATS), "memory": draws.choice(("12GB", "0GB", "1"))},
        "anchors": [draws.choice(_ANCHORS) for _ in range(draws.choice((1, 2, 201)))],
        "holes": {draws.choice(_PATTERNS): hole(draws)},
        "match": draws.choice(({"macs": macs}, {"macs_per_voxel": macs}, {"seconds": 0.1})),
        "patch_size": draws.choice(("exact", [16, 16, 16], [32, 32], [0, 1, 1], None)),
        "test_share": draws.choice((0.0, 0.25, 1.0)),
    }
    return {name: parts[name] for name in parts if draws.random() < 0.15}


@functools.cache
def _stages() -> list[Any]:
    """Return the stages of all bundled specs, their defaults among them."""
    encoders = [tree["encoder"] for tree in trees().values() if "encoder" in tree]
    return [one for part in encoders for one in (part.get("defaults", {}), *part["stages"])]


_ANCHORS: tuple[Any, ...] = ({}, {"encoder.stages.0.width": 4}, {"*": 1}, {"a.*": None}, {"w": 8})
_ANCHORS += ({"spec": "unet"}, {"spec": "nobody"}, {"plans": "nnUNetPlans"}, {"spec": 1, "w": 2})
_PATTERNS = ("encoder.stages.*.width", "encoder.stages.*.depth", "encoder.*", "decoder.width", "*")
_PATTERNS += (
    "encoder.stages.0.mixer",
    "encoder.stages.*.mixer",
    "x.y",
    "encoder.stages[1].width",
    "",
)


def hole(draws: random.Random) -> Any:
    """Return a hole of any kind: half of them can be filled."""
    some = draws.choice((4, 8, 16, 32, 64))
    right = (
        {"choice": [some, 2 * some]},
        {"choice": [some, 3 * some], "name": "w"},
        {"tie": "w"},
        {"int": [some, 4 * some], "step": draws.choice((1, 4, 8))},
        {"int": [2, some], "log": True},
        {"choice": [{"kind": "conv"}, {"kind": "identity"}, {"kind": "mamba", "d_state": 4}]},
        {"choice": [{"kind": "sum"}, {"kind": "mlp", "width": {"choice": [8, 16]}}]},
        {"float": [0.01, 0.5], "log": True},
    )
    if draws.random() < 0.5:
        return copy.deepcopy(draws.choice(right))
    return draws.choice(
        (
            {"choice": [scalar(draws) for _ in range(draws.randrange(5))]},
            {
                "int": [draws.choice(INTEGERS), draws.choice(INTEGERS)],
                "step": draws.choice(INTEGERS),
            },
            {"float": [draws.choice(FLOATS), draws.choice(FLOATS)], "log": scalar(draws)},
            {"choice": [1, 2], "name": draws.choice((*WORDS, *ODD_WORDS, None, 1))},
            {"choice": list(range(1, draws.choice((300, 999, 1001, 2001))))},
            {"tie": scalar(draws)},
            {"choice": [hole(draws), {"tie": "w"}]},
            {draws.choice(_KEYS): scalar(draws), "choice": [1, 2]},
        )
    )


def put_hole(tree: Any, draws: random.Random) -> None:
    """Put a hole in place of a node, in the tree itself."""
    paths = [path for path, _ in walk(tree)][1:]
    if paths:
        path = draws.choice(paths)
        at(tree, path[:-1])[path[-1]] = hole(draws)


@functools.cache
def _bundled(name: str) -> Any:
    return thawed(space_tree(name).tree)


def use(space: Space, seed: int) -> None:
    """Do with a space what a search does before it trains."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert space.size().text()
    for one in space.holes():
        assert one.shown.isprintable()
    space.anchors()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    for _ in range(2):
        try:
            space.suggest(study.ask())
        except SpecError as error:
            check_refusal(error)
