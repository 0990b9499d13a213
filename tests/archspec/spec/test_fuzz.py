"""Seeded random changes of specs: each gives a spec that plans, or SpecError in one line."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from archspec.network.plan import plan
from archspec.spec.find import list_specs
from archspec.spec.load import load, validate
from archspec.spec.tree import walk
from archspec.spec.yaml_file import dump, parse
from blocks.errors import MAX_LINES, SpecError

TEXT = Path(__file__).with_name("net.yaml").read_text(encoding="utf-8")

REPLACEMENTS: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 10**9, 10**30, 0.5, 1e-30, 1e30, float("inf")),
    *("", "x", "conv", "mamba", "layer", "instance", "group(3)", "group(0)", "mlp", "a\nb"),
    *([], {}, [1, 2], [2, 2, 2], [0], [[1]]),
    *({"kind": "conv"}, {"kind": None}, {"kind": ["x"]}, {"a": {"b": 1}}),
]


def mutate(tree: dict[str, Any], rng: random.Random) -> None:
    """Change one node: replace, drop, rename, double, or swap it with another one's value."""
    path = rng.choice([path for path, _ in walk(tree)][1:])
    holder: Any = tree
    for key in path[:-1]:
        holder = holder[key]
    key, action = path[-1], rng.choice(["replace", "replace", "drop", "rename", "double", "swap"])
    if action == "replace":
        holder[key] = copy.deepcopy(rng.choice(REPLACEMENTS))
    elif action == "drop":
        del holder[key]
    elif action == "swap":
        other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif action == "rename":
        holder[f"{key}s"[: rng.randint(1, len(key) + 1)]] = holder.pop(key)
    else:
        holder[rng.choice([*holder, "kind", "extra"])] = copy.deepcopy(holder[key])


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.long] * (n >= 70)) for n in range(200)]
)
def test_mutated_spec_plans_or_is_refused(seed: int) -> None:
    rng = random.Random(seed)
    tree = load(rng.choice(list_specs())).tree()
    for _ in range(rng.choice([1, 1, 2, 4])):
        if tree:
            mutate(tree, rng)
    try:
        plan(load(tree))
    except SpecError as error:
        assert len(str(error).splitlines()) == min(len(error.problems), MAX_LINES)
    try:
        plan(validate(parse(dump(tree), "net.yaml")))
    except SpecError as error:
        assert len(str(error).splitlines()) == min(len(error.problems), MAX_LINES)


@pytest.mark.parametrize("seed", range(100))
def test_mutated_text_plans_or_is_refused(seed: int) -> None:
    rng = random.Random(seed)
    text = list(TEXT)
    for _ in range(rng.choice([1, 2, 5])):
        position = rng.randrange(len(text))
        text[position] = rng.choice(["", "\n", " ", "\t", *":[]{},-&*!|>'\"#%@`?~0e.\u00e9\ud800"])
    try:
        plan(validate(parse("".join(text), "net.yaml")))
    except SpecError as error:
        assert len(str(error).splitlines()) == min(len(error.problems), MAX_LINES)
        assert str(error).startswith(("net.yaml", "encoder.", "decoder.", "patch_size"))
