"""The YAML text of a spec or a space to begin with, its costs in comments."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from archspec.costs.describe import describe_plan
from archspec.costs.description import Description, Share
from archspec.costs.flops import CONVENTION
from archspec.network.plan import plan
from archspec.spec.json_schema import editor_line
from archspec.spec.load import load
from archspec.spec.yaml_file import dump_inline
from archspec.starter.budget import Budget, widest
from archspec.starter.layout import Layout, Tree

STEPS = 5400
_RATE = {"training.lr": 1e-3}
_WIDTH = 98
_HEAD = ("schema_version", "name", "title", "in_channels", "num_classes", "patch_size", "init")


@dataclass(frozen=True, slots=True)
class Starter:
    """The text, and the widest network in it: of a spec itself, of a space the dearest mixer's."""

    text: str
    widest: Description

    def summary(self) -> str:
        """Return the costs of the widest network in a few words."""
        found = self.widest
        return (
            f"{found.flops / 1e9:.4g} GFLOPs, {found.params / 1e6:.2f} M parameters, training "
            f"under AMP at batch {found.training.batch} in about "
            f"{found.training.amp.total / 2**30:.2f} GiB"
        )


def starter(layout: Layout, budget: Budget, *, told: str, plans: str | None = None) -> Starter:
    """Return the layout's spec, or space, as wide as the budget allows.

    `told` is a sentence for the head: how it came about. A space tries first what nnU-Net planned
    under the name `plans`, where there are such.

    Raises:
        SpecError: no network of the layout keeps the budget.
    """
    features = widest(layout, budget)
    found = [_described(layout.spec(features, mixer), layout, budget) for mixer in layout.mixers]
    dearest = max(found, key=lambda one: one.flops)
    if layout.is_space:
        lines = _space(layout, budget, features, dearest, plans)
    else:
        lines = _spec(layout, features, dearest)
    costs = _costs(dearest, budget, space=layout.is_space)
    head = textwrap.wrap(
        f"{told} {costs} All fields, and what else can stand there: archspec list --fields all",
        _WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )
    pointer = editor_line("space" if layout.is_space else "spec")
    return Starter("\n".join([pointer, *(f"# {line}" for line in head), *lines, ""]), dearest)


def _described(tree: Tree, layout: Layout, budget: Budget) -> Description:
    return describe_plan(plan(load(tree), layout.sizes), batch=budget.batch)


def _costs(found: Description, budget: Budget, *, space: bool) -> str:
    flops = f" of {budget.flops / 1e9:.4g}" if budget.flops else ""
    memory = f" of {budget.memory / 2**30:.2f}" if budget.memory else ""
    return (
        f"{'The widest network with one block in each stage' if space else 'It'} costs "
        f"{found.flops / 1e9:.4g}{flops} GFLOPs in a forward pass of one patch ({CONVENTION}), and "
        f"about {found.training.amp.total / 2**30:.2f}{memory} GiB in training under AMP at batch "
        f"{budget.batch}, by estimate; it has {found.params / 1e6:.2f} M parameters."
    )


def _spec(layout: Layout, features: int, found: Description) -> Iterator[str]:
    (mixer,) = layout.mixers
    tree = layout.spec(features, mixer)
    yield from _body(tree, [_share(one.share, found) for one in found.stages], found)
    yield f"training: {dump_inline(tree['training'])}"


def _space(
    layout: Layout, budget: Budget, features: int, found: Description, plans: str | None
) -> Iterator[str]:
    tree = layout.space(features)
    yield from _body(tree, ["" for _ in found.stages], found)
    yield f"training: {dump_inline(tree['training'])}"
    yield "# archspec list --fields search says what else can stand here"
    yield "search:"
    yield f"  steps: {STEPS}  # optimizer steps of each training"
    yield f"  batch_size: {budget.batch}"
    limits: dict[str, Any] = {}
    if budget.flops is not None:
        limits["gflops"] = budget.flops / 1e9
    if budget.memory is not None:
        limits["memory"] = f"{budget.memory / 1e9:.12g}GB"
    if limits:
        yield f"  limits: {dump_inline(limits)}  # what is above is not trained"
    yield "  test_share: 0.2  # of the cases: they neither train nor choose, and judge the front"
    yield "  anchors:  # tried first; a hole that one does not name takes its first value"
    yield f"    - {dump_inline(_RATE)}"
    if plans is not None:
        yield "    # what nnU-Net planned for the dataset, narrowed: the line to beat"
        planned = {"plans": plans, "width": max(features // 2, 4), **_RATE}
        yield f"    - {dump_inline(planned)}"


def _body(tree: Tree, shares: list[str], found: Description) -> Iterator[str]:
    """Yield the lines of what a spec and a space have alike."""
    for name in _HEAD:
        yield f"{name}: {dump_inline(tree[name])}"
    yield "encoder:"
    yield "  # What each stage has where it says nothing else: a strided convolution, then blocks"
    yield "  defaults:"
    for name, part in tree["encoder"]["defaults"].items():
        yield f"    {name}: {dump_inline(part)}"
    yield "  stages:"
    for stage, share, at in zip(tree["encoder"]["stages"], shares, found.stages, strict=True):
        grid = "x".join(map(str, at.grid))
        yield f"    # {grid}{share}"
        yield from _stage(stage)
    yield f"# {_share(found.decoder.share, found).removeprefix(', ')}"
    yield f"decoder: {dump_inline(tree['decoder'])}"
    yield "# Outputs at the finest grids, whose losses are added in training"
    yield f"deep_supervision: {dump_inline(tree['deep_supervision'])}"


def _stage(stage: Tree) -> Iterator[str]:
    """Yield a stage on one line where it has room, many members of a hole on lines of theirs."""
    line = f"    - {dump_inline(stage)}"
    if len(line) <= 100:
        yield line
        return
    before = "    - "
    for name, part in stage.items():
        if isinstance(part, dict) and len(part.get("choice", ())) > 2:
            yield f"{before}{name}:"
            yield "        choice:"
            for member in part["choice"]:
                yield f"          - {dump_inline(member)}"
        else:
            yield f"{before}{name}: {dump_inline(part)}"
        before = "      "


def _share(share: Share, found: Description) -> str:
    flops = 2 * share.macs + share.scan_flops
    saved = share.saved_bytes / max(1, found.training.float32.saved)
    return f", {flops / found.flops:.0%} of the FLOPs, {saved:.0%} of what backward keeps"
