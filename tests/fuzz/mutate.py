"""Changes of trees and texts: structure-aware, so that most of them get past the parser."""

import copy
import json
import math
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from archspec.spec.tree import children, walk

Tree = Any
Path = tuple[str | int, ...]

_EDGES = (1, 2, 16, 63, 64, 200, 500, 1000, 1024, 8192, 16_384, 20_000, 10**6, 10**9, 10**12)
_POWERS = (2**31, 2**32, 2**53, 2**63, 2**64, 10**18, 10**30)
INTEGERS = sorted({n + d for n in (*_EDGES, *_POWERS) for d in (-1, 0, 1)} | {-1, -2, -(2**63)})
"""Both sides of every bound, and of what machines count up to."""
FLOATS = (0.0, -0.0, 0.5, 1.0, 1 - 1e-16, -0.1, 5e-324, 1e-7, 1e12, 1e13, 1e18, 1e100, 1e101)
ODD_FLOATS = (1e308, math.inf, -math.inf, math.nan)
WORDS = (
    *("", " ", "none", "auto", "exact", "a", "true", "null", "1", "1.5", "~", "layer", "instance"),
    *("batch", "group1", "group8", "group0", "group(2)", "kind", "conv", "mamba", "none ", "NONE"),
    *("a.b", "*", "a b", "../x", "/", "\\", "%s", "{0}", "$HOME", "x" * 201, "y" * 3000),
)
ODD_WORDS = (
    *("a\nb", "\t", "\r\n", "\x00", "\x1b[2J", "\x7f", "\u00e4", "\u4e2d\u6587", "\U0001f600"),
    *("\u202e", "\u2028", "\ufeff", "e\u0301", "\u0660", "\u00bd", "\uff11"),
)
DEEP = "[" * 70 + "]" * 70
YAML_TEXTS = (
    *("1e400", "-1e400", ".inf", ".nan", "1" + "0" * 400, "9" * 5000, "0x1F", "0o17", "1_000"),
    *("12:30:45", "yes", "!!python/object/apply:os.getcwd []", "!!binary aGk=", "!!set {a, b}"),
    *("&a [*a]", "*nobody", "&a 1", "!", "!x 1", "[", "{", "'", '"', '"\\ud800"', '"\\x00"', "|"),
    *("{<<: {a: 1}}", "{? [1]: 2}", "{1: 2, 1: 3}", "{null: 1}", "2024-01-01", DEEP, "[[1], [2]]"),
    *("{a: {b: {c: 1}}}", "%", "@", "`", "#", ":", "- 1", "? a", "!!int a", "!!float x", "!!str 1"),
    *("[1,2", "{a: 1", "---", "...", "%YAML 1.1", "*", "&", "<<", "=", "0b1", "+1", ".5", "5."),
)
JSON_TEXTS = (
    *("1e400", "-1e400", "NaN", "Infinity", "1" + "0" * 400, "9" * 5000, "2.5", "-0", "1E5"),
    *('"a\\nb"', '"\\u001b[2J"', '"\\ud800"', '"\\u0000"', "[", "{", "[1,]", '{"a":1,"a":2}'),
    *("true", "null", "[]", "{}", "[[1]]", '{"a": 1}', '"0"', "tru", "'a'", "// x", DEEP),
    *("[" * 20_000 + "]" * 20_000, '{"a":' * 5000 + "1" + "}" * 5000, "65536", "1,", ""),
)
_TOKEN = re.compile(r"""(["']?)zz(\d+)zz\1""")


def scalar(draws: random.Random) -> Any:
    """Return a value that may stand, or must not stand, anywhere."""
    return draws.choice(
        (
            lambda: draws.choice(INTEGERS),
            lambda: draws.randrange(10),
            lambda: draws.choice(FLOATS),
            lambda: draws.choice(ODD_FLOATS),
            lambda: draws.choice(WORDS),
            lambda: draws.choice(ODD_WORDS),
            lambda: draws.choice((None, True, False)),
            lambda: [draws.choice(INTEGERS) for _ in range(draws.randrange(5))],
            lambda: [draws.randrange(1, 8)] * draws.choice((1, 2, 3, 4)),
            lambda: draws.choice(([], {}, [[]], {"a": 1}, {"kind": "none"}, [None], {"": ""})),
            lambda: f"zz{draws.randrange(10**6)}zz",
        )
    )()


def raw(text: str, among: Sequence[str]) -> str:
    """Return the text with each `zz7zz` replaced by one that no writer would write."""
    return _TOKEN.sub(lambda found: among[int(found[2]) % len(among)], text)


def near(value: Any, draws: random.Random) -> Any:
    """Return a value like this one: the next, the opposite, of another type, or in a list."""
    if isinstance(value, bool) or value is None:
        return draws.choice((not value, str(value).lower(), int(bool(value)), None))
    if isinstance(value, int):
        steps = (value + 1, value - 1, 2 * value, 3 * value, value // 2, value + 8, value + 2)
        if draws.random() < 0.6:
            return draws.choice(steps)
        steps = (-value, value * 1000)
        return draws.choice((*steps, float(value), str(value), [value], [value] * 2, [value] * 3))
    if isinstance(value, float):
        whole = int(value) if math.isfinite(value) else 0
        return draws.choice((-value, value * 1e6, value / 1e6, whole, str(value), 1 - value))
    if isinstance(value, str):
        cut = draws.randrange(len(value) + 1)
        return draws.choice((value[:cut], value[cut:], value.upper(), f"{value}s", [value]))
    return [value]


def mutate(tree: Tree, draws: random.Random, keys: Sequence[str]) -> Tree:
    """Return the tree with one change at one node, which other nodes lend parts to."""
    tree = copy.deepcopy(tree)
    paths = [path for path, _ in walk(tree)]
    if len(paths) < 2:
        return scalar(draws)
    path = draws.choice(paths[1:])
    holder = at(tree, path[:-1])
    key, value = path[-1], holder[path[-1]]
    change = draws.choice(_CHANGES)
    if change == "value":
        holder[key] = scalar(draws)
    elif change == "near":
        holder[key] = near(value, draws)
    elif change == "drop":
        del holder[key]
    elif change == "graft":
        holder[key] = copy.deepcopy(at(tree, draws.choice(paths)))
    elif change == "repeat" and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(value) for _ in range(draws.choice((1, 2, 15, 40)))]
    elif change == "shuffle" and isinstance(value, list):
        draws.shuffle(value)
    elif change == "rename" and isinstance(holder, dict):
        name = draws.choice((draws.choice(keys), f"{key}s", str(key)[:-1], str(key).upper()))
        holder[name] = holder.pop(key)
    elif change == "wrap":
        holder[key] = draws.choice(([value], {str(key): value}, {draws.choice(keys): value}))
    elif isinstance(value, dict):
        value[draws.choice(keys)] = scalar(draws)
    elif isinstance(value, list):
        value.append(scalar(draws))
    else:
        holder[key] = near(value, draws)
    return tree


_CHANGES = (
    "value",
    "value",
    "near",
    "near",
    "near",
    "drop",
    "graft",
    "repeat",
    "shuffle",
    "rename",
)
_CHANGES += ("wrap", "insert", "insert")


def at(tree: Tree, path: Path) -> Any:
    """Return the node there."""
    for key in path:
        tree = tree[key]
    return tree


def all_keys(tree: Tree) -> list[str]:
    """Return the keys of all mappings in the tree."""
    return [
        str(key) for _, node in walk(tree) if isinstance(node, dict) for key, _ in children(node)
    ]


_BOMBS = (
    "a: &a [1, 1, 1, 1, 1, 1, 1]\n"
    + "".join(f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]\n" for x, y in pairwise("abcdefghi")),
    "b0: &b0 1\n" + "".join(f"b{n + 1}: &b{n + 1} [*b{n}]\n" for n in range(80)),
)
"""Aliases that stand for too much, or too deep."""


def break_text(text: str, draws: random.Random) -> str:
    """Return the text with one change that a writer of trees would not make."""
    lines = text.split("\n")
    row = draws.randrange(len(lines))
    place = draws.randrange(len(text) + 1)
    change = draws.choice(
        ("cut", "line", "twice", "indent", "sign", "ends", "merge", "alias", "many")
    )
    if change == "cut":
        return text[:place]
    if change == "line":
        del lines[row]
    elif change == "twice":
        lines[row:row] = [lines[row]] * draws.choice((1, 2, 50))
    elif change == "indent":
        lines[row] = draws.choice((" ", "    ", "\t", "- ", "? ", "# ", ": ")) + lines[row]
    elif change == "sign":
        return text[:place] + draws.choice((*ODD_WORDS, *"{}[],:&*!|>'\"%@`#-?\t")) + text[place:]
    elif change == "ends":
        return draws.choice(("\ufeff", "---\n", "%YAML 1.1\n---\n", "\n\n")) + draws.choice(
            (
                text,
                text.replace("\n", "\r\n"),
                f"{text}\n---\n{text}",
                f"{text}\n...\n",
                f"{text}\x00",
            )
        )
    elif change == "merge":
        lines.append(draws.choice(("<<: {name: merged}", *_BOMBS)))
    elif change == "alias":
        lines[row] = re.sub(r": ", ": &one ", lines[row], count=1)
        lines.append("other: *one")
    else:
        unit = draws.choice(
            ("[],", "a: 1\n", "- {kind: conv}\n", "{a: ", "- ", "[", "&a [*a,", "? ")
        )
        return f"{text}\nmany: {unit * draws.choice((3, 70, 5000, 30_000))}"
    return "\n".join(lines)


def damage(content: bytes, draws: random.Random) -> bytes | None:
    """Return what is left of a file; None for nothing at all."""
    length = min(draws.choice((1, 4, 32, 512, 4096)), max(1, len(content) // 2))
    place = draws.randrange(max(1, len(content) - length))
    behind = content[place + length :]
    return draws.choice(
        (
            lambda: content[: draws.randrange(len(content) + 1)],
            lambda: content[:place] + draws.randbytes(length) + behind,
            lambda: content[:place] + bytes(length) + behind,
            lambda: content[:place] + behind,
            lambda: content[:place] + content[place : place + length] * 3 + behind,
            lambda: content + draws.randbytes(length),
            lambda: draws.randbytes(len(content)),
            lambda: bytes([draws.randrange(256)]) * len(content),
            lambda: b"",
            lambda: None,
        )
    )()


def to_json(tree: Tree) -> str:
    """Return the tree as JSON, some values as no writer would write them."""
    return raw(json.dumps(tree), JSON_TEXTS)
