"""Two specs against each other: what differs, and what each difference costs."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from archspec.costs.flops import CONVENTION, Cost, cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, plan
from archspec.network.resolve import resolve
from archspec.spec.load import SpecLike, load
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import split_path, with_node
from archspec.text import table
from blocks.base import Grid, SpecError

_NOT_STRUCTURE = {"name", "title", "sources", "claims", "schema_version"}
_SIZES = {"in_channels", "num_classes", "patch_size"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One change, at one or several stages; `params` and `macs` are what it alone does to A.

    None: it does not fit A alone.
    """

    paths: tuple[str, ...]
    before: Any
    after: Any
    params: int | None
    macs: int | None

    @property
    def where(self) -> str:
        """Return the path; stages that change alike are listed together."""
        stages = [m[1] for path in self.paths if (m := re.search(r"\.stages\.(\d+)", path))]
        if len(self.paths) == 1:
            return self.paths[0]
        return re.sub(r"\.stages\.\d+", f".stages.{','.join(stages)}", self.paths[0])


@dataclass(frozen=True, slots=True)
class Diff:
    """Two networks at A's input: what each difference does to A alone, and both costs."""

    a: Plan
    b: Plan
    cost_a: Cost
    cost_b: Cost
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return a page: the differences with what each does to A alone, then both costs."""
        size = " x ".join(str(n) for n in self._input())
        lines = [f"{self.a.spec.name} -> {self.b.spec.name} at input {size}"]
        for change in self.differences:
            text = f"{change.where}: {_value(change.before)} -> {_value(change.after)}"
            lines += textwrap.wrap(
                f"{text}  [{_consequence(change)}]",
                80,
                initial_indent="  ",
                subsequent_indent="      ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        if not self.differences:
            lines.append("  the same network")
        if not self._adds_up():
            lines.append(
                "Each change is costed alone on the first; changes interact, so they do not"
            )
            lines.append("add up to the difference of the two networks.")
        rows = [("", self.a.spec.name, self.b.spec.name, "ratio")]
        for what, unit, first, second in (
            ("parameters, M", 1e6, self.cost_a.params, self.cost_b.params),
            ("GMAC", 1e9, self.cost_a.macs, self.cost_b.macs),
            ("scan GFLOP", 1e9, self.cost_a.scan_flops, self.cost_b.scan_flops),
        ):
            ratio = f"x{second / first:.3f}" if first else ""
            rows.append((what, f"{first / unit:.3f}", f"{second / unit:.3f}", ratio))
        return "\n".join([*lines, *table(rows), f"Forward pass at batch 1, {CONVENTION}."])

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec diff --json` prints."""
        return {
            "a": self.a.spec.name,
            "b": self.b.spec.name,
            "input": list(self._input()),
            "convention": CONVENTION,
            "params": [self.cost_a.params, self.cost_b.params],
            "macs": [self.cost_a.macs, self.cost_b.macs],
            "scan_flops": [self.cost_a.scan_flops, self.cost_b.scan_flops],
            "differences": [{**asdict(d), "paths": list(d.paths)} for d in self.differences],
        }

    def _input(self) -> tuple[int, ...]:
        return (1, self.a.in_channels, *self.a.patch_size)

    def _adds_up(self) -> bool:
        """Say whether the differences, each alone, make up that of the two networks."""
        alone = [(change.params, change.macs) for change in self.differences]
        whole = (self.cost_b.params - self.cost_a.params, self.cost_b.macs - self.cost_a.macs)
        return whole == tuple(
            sum(n or 0 for n in column) for column in zip((0, 0), *alone, strict=True)
        )


def diff(
    a: SpecLike,
    b: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
) -> Diff:
    """Say in what two networks differ and what that costs, at A's input; `print` shows a page.

    Raises:
        SpecError: a spec is wrong, or does not fit the sizes; without a patch size, one is 2-D and
            one 3-D.
    """
    sizes = InputSizes(in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    first = resolve(a, sizes)
    if patch_size is None:
        other = load(b)
        check_dimensions(first.spec.name, first.patch_size, other.name, other.patch_size)
    return diff_plans(first, resolve(b, first.sizes))


def check_dimensions(a: str, patch_a: Grid, b: str, patch_b: Grid) -> None:
    """Refuse to build B in A's number of dimensions where its own is another."""
    if len(patch_a) != len(patch_b):
        raise SpecError(
            f"a {len(patch_b)}-D network",
            where=b,
            suggestion=(
                f"{a} is {len(patch_a)}-D, and they are compared at one input; describe each alone"
            ),
        )


def diff_plans(a: Plan, b: Plan) -> Diff:
    """Compare two networks planned at the same input."""
    base = cost_plan(a)
    found = []
    for group in _grouped(a.spec, b.spec):
        alone = _cost_alone(a, group)
        found.append(
            Difference(
                tuple(path for path, _, _ in group),
                group[0][1],
                group[0][2],
                None if alone is None else alone.params - base.params,
                None if alone is None else alone.macs - base.macs,
            )
        )
    return Diff(a, b, base, cost_plan(b), tuple(found))


def changes(a: ArchSpec, b: ArchSpec) -> list[tuple[str, str, str]]:
    """Return (where, before, after) as text for all that differs; nothing is planned or costed."""
    found = []
    for group in _grouped(a, b):
        _, before, after = group[0]
        where = Difference(tuple(path for path, _, _ in group), before, after, None, None).where
        found.append((where, _value(before), _value(after)))
    return found


def _consequence(change: Difference) -> str:
    if change.params is None or change.macs is None:
        return "does not fit alone"
    if not change.params and not change.macs:
        return "trained otherwise" if change.where.startswith("training") else "same cost"
    return f"{change.params:+,} parameters, {change.macs / 1e9:+.3f} GMAC"


def _grouped(a: ArchSpec, b: ArchSpec) -> list[list[tuple[str, Any, Any]]]:
    """Return (path, before, after) of all that differs; stages that change alike in one group."""
    grouped: dict[tuple[str, str, str], list[tuple[str, Any, Any]]] = {}
    for path, before, after in _walk("", _structure(a), _structure(b)):
        anywhere = re.sub(r"\.stages\.\d+", ".stages.*", path)
        grouped.setdefault((anywhere, repr(before), repr(after)), []).append((path, before, after))
    return list(grouped.values())


def _structure(spec: ArchSpec) -> dict[str, Any]:
    tree = spec.tree()
    return {name: v for name, v in tree.items() if name not in _NOT_STRUCTURE | _SIZES}


def _walk(path: str, a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """Return (path, before, after); a component of another kind is one difference."""
    if a == b:
        return []
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.get("kind") == b.get("kind"):
        keys = list(a) + [key for key in b if key not in a]
        return [
            found
            for key in keys
            for found in _walk(f"{path}.{key}".lstrip("."), a.get(key), b.get(key))
        ]
    if path.endswith("stages"):
        pairs = enumerate(zip(a, b, strict=False))
        common = [found for i, (one, two) in pairs for found in _walk(f"{path}.{i}", one, two)]
        number = [] if len(a) == len(b) else [(path, a, a[: len(b)] + b[len(a) :])]
        return common + number
    return [(path, a, b)]


def _cost_alone(a: Plan, group: list[tuple[str, Any, Any]]) -> Cost | None:
    """Return the cost of A with only these nodes changed, None if that is no network."""
    tree = a.spec.tree()
    for path, _, after in group:
        tree = with_node(tree, split_path(path), after)
    try:
        return cost_plan(plan(load(tree), a.sizes))
    except SpecError:
        return None


def _value(value: Any) -> str:
    """Return a component as {kind, field: value, ...}, stages by their number, else the value.

    Fields of a component that are null say nothing.
    """
    if isinstance(value, Mapping):
        fields = (f"{k}: {v}" for k, v in value.items() if k != "kind" and v is not None)
        return f"{{{', '.join([str(value.get('kind', '')), *fields])}}}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return f"{len(value)} stages"
    return str(value)
