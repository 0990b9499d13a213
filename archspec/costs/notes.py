"""What a researcher would want to be told about a network's costs."""

import math

from archspec.costs.flops import Cost
from archspec.network.plan import Plan

_MUCH = 0.4
_MANY_TOKENS = 64  # tokens per channel from which full attention is worth a word


def notes(planned: Plan, cost: Cost, saved: dict[str, int]) -> tuple[str, ...]:
    """Return a line each; `saved` are the bytes kept for backward by path."""
    return (*_attention(planned), *_most(planned, cost, saved))


def _attention(planned: Plan) -> list[str]:
    found = []
    for index, stage in enumerate(planned.stages):
        tokens, width = math.prod(stage.out.grid), stage.out.channels
        reduced = stage.spec.mixer.divisor(stage.out.ndim) != (1,) * stage.out.ndim
        if stage.spec.mixer.kind == "attention" and not reduced and tokens > _MANY_TOKENS * width:
            found.append(
                f"stage {index} attends among {tokens:,} tokens of width {width}: products of "
                "queries and keys dominate; mixer.reduction or a scan is cheaper"
            )
    return found


def _most(planned: Plan, cost: Cost, saved: dict[str, int]) -> list[str]:
    found = []
    parts = [f"stages.{index}" for index in range(len(planned.stages))] + ["decoder"]
    for what, of, whole in (
        ("FLOPs", {path: cost.by_path[path].flops for path in parts}, cost.flops),
        ("parameters", {path: cost.by_path[path].params for path in parts}, cost.params),
        ("bytes saved for backward", {p: saved.get(p, 0) for p in parts}, saved["Global"]),
    ):
        most = max(of, key=lambda path: of[path])
        if of[most] >= _MUCH * whole:
            name = most.replace("stages.", "stage ")
            found.append(f"{name} holds {of[most] / whole:.0%} of all {what}")
    return found
