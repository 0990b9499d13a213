"""Networks as text: shapes, costs and memory by stage, or several networks side by side."""

import math
from collections.abc import Sequence
from typing import Any

from archspec.costs.flops import CONVENTION, Cost, cost_plan
from archspec.costs.memory import training_memory
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.spec.load import SpecLike
from archspec.text import table
from blocks.base import Grid

MIB, GIB = 2**20, 2**30
_MUCH = 0.4
_MANY_TOKENS = 64  # tokens per channel from which full attention is worth a word


class Description(dict[str, Any]):
    """What `archspec describe --json` prints; as text, the page of `archspec describe`."""

    def __str__(self) -> str:
        return describe_text(self)


def describe(
    spec: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
    batch: int = 2,
) -> Description:
    """Say what a network is and costs, without building it; `print` shows a page.

    Costs are those of one forward pass at batch 1, the FLOP convention named beside them; memory is
    an estimate, in bytes, for training at `batch`.

    Raises:
        SpecError: the spec is wrong, or does not fit the sizes.
    """
    return describe_json(
        resolve(spec, in_channels=in_channels, num_classes=num_classes, patch_size=patch_size),
        batch=batch,
    )


def describe_json(planned: Plan, *, batch: int = 2) -> Description:
    """Return shapes, costs of one forward pass at batch 1, memory of training at `batch`.

    The FLOP convention is named in it; bytes are estimates.
    """
    cost = cost_plan(planned)
    memory = {
        name: training_memory(planned, batch=batch, amp=amp)
        for name, amp in (("float32", False), ("amp", True))
    }
    saved = memory["float32"].saved_by_path
    stages = [
        {
            "stage": index,
            "mixer": stage.spec.mixer.kind,
            "depth": stage.spec.depth,
            "width": stage.out.channels,
            "grid": list(stage.out.grid),
            **_share(cost, saved, f"stages.{index}"),
        }
        for index, stage in enumerate(planned.stages)
    ]
    found = {
        "name": planned.spec.name,
        "input": [1, planned.in_channels, *planned.patch_size],
        "num_classes": planned.num_classes,
        "convention": CONVENTION,
        "params": cost.params,
        "macs": cost.macs,
        "scan_flops": cost.scan_flops,
        "flops": cost.flops,
        "by_kind": cost.by_kind,
        "training": {
            "batch": batch,
            "optimizer": planned.spec.training.optimizer,
            **{
                name: {
                    "total": found.total,
                    "parameters": found.parameters,
                    "gradients": found.gradients,
                    "optimizer": found.optimizer,
                    "saved": found.saved,
                    "transient": found.transient,
                }
                for name, found in memory.items()
            },
        },
        "stages": stages,
        "decoder": {
            "kind": planned.spec.decoder.kind,
            "outputs": [list(grid) for grid in planned.output_grids],
            **_share(cost, saved, "decoder"),
        },
        "notes": _notes(planned, cost, saved),
    }
    return Description(found)


def _share(cost: Cost, saved: dict[str, int], path: str) -> dict[str, Any]:
    part = cost.by_path[path]
    return {
        "params": part.params,
        "macs": part.macs,
        "scan_flops": part.scan_flops,
        "by_kind": part.by_kind,
        "saved_bytes": saved.get(path, 0),
    }


def _notes(planned: Plan, cost: Cost, saved: dict[str, int]) -> list[str]:
    """Return what a researcher would want to be told."""
    notes = []
    for index, stage in enumerate(planned.stages):
        tokens, width = math.prod(stage.out.grid), stage.out.channels
        reduced = stage.spec.mixer.divisor(stage.out.ndim) != (1,) * stage.out.ndim
        if stage.spec.mixer.kind == "attention" and not reduced and tokens > _MANY_TOKENS * width:
            notes.append(
                f"stage {index} attends among {tokens:,} tokens of width {width}: products of "
                "queries and keys dominate; mixer.reduction or a scan is cheaper"
            )
    parts = [f"stages.{index}" for index in range(len(planned.stages))] + ["decoder"]
    for what, of, whole in (
        ("FLOPs", {path: cost.by_path[path].flops for path in parts}, cost.flops),
        ("parameters", {path: cost.by_path[path].params for path in parts}, cost.params),
        ("bytes saved for backward", {p: saved.get(p, 0) for p in parts}, saved["Global"]),
    ):
        most = max(of, key=lambda path: of[path])
        if of[most] >= _MUCH * whole:
            name = most.replace("stages.", "stage ")
            notes.append(f"{name} holds {of[most] / whole:.0%} of all {what}")
    return notes


def describe_text(found: dict[str, Any]) -> str:
    """Return a page of at most 80 columns."""
    rows = [
        (
            f"stage {stage['stage']}",
            f"{stage['depth']} x {stage['mixer']}",
            str(stage["width"]),
            "x".join(str(size) for size in stage["grid"]),
            *_numbers(stage, found),
        )
        for stage in found["stages"]
    ]
    decoder = found["decoder"]
    outputs = f"{len(decoder['outputs'])} output{'s' * (len(decoder['outputs']) > 1)}"
    rows.append(("decoder", decoder["kind"], "", outputs, *_numbers(decoder, found)))
    head = ("", "blocks", "width", "grid", "params", "GMAC", "scan GF", "saved")
    kinds = ", ".join(f"{k} {_giga(n)}" for k, n in found["by_kind"].items() if n and k != "scan")
    return "\n".join(
        [
            f"{found['name']}: input {_shape(found)}, {found['num_classes']} classes",
            *table([head, *rows], left=2),
            f"total: {found['params']:,} parameters",
            f"{_giga(found['flops'])} GFLOP = 2 x {_giga(found['macs'])} GMAC + "
            f"{_giga(found['scan_flops'])} scan GFLOP ({CONVENTION})",
            f"GMAC: {kinds}",
            *_memory_lines(found),
            "Norms, activations and interpolation are not counted. FLOPs are not speed.",
            *(f"note: {note}" for note in found["notes"]),
        ]
    )


def _numbers(part: dict[str, Any], found: dict[str, Any]) -> tuple[str, str, str, str]:
    share = part["saved_bytes"] / max(1, found["training"]["float32"]["saved"])
    return (
        f"{part['params']:,}",
        _giga(part["macs"]),
        _giga(part["scan_flops"]) if part["scan_flops"] else "",
        f"{share:.0%}",
    )


def kinds_text(found: dict[str, Any]) -> str:
    """Return a table of at most 80 columns: GMAC by stage and kind of operation, shares below."""
    kinds = [kind for kind, count in found["by_kind"].items() if count and kind != "scan"]
    parts = {f"stage {part['stage']}": part for part in found["stages"]}
    parts["decoder"] = found["decoder"]
    rows = [(f"GMAC of {found['name']}", *kinds)]
    for name, part in parts.items():
        counts = (part["by_kind"][kind] for kind in kinds)
        rows.append((name, *(_giga(count) if count else "" for count in counts)))
    whole = max(1, found["macs"])
    rows.append(("of all", *(f"{found['by_kind'][kind] / whole:.1%}" for kind in kinds)))
    return "\n".join(table(rows))


def _memory_lines(found: dict[str, Any]) -> list[str]:
    training = found["training"]
    single, half = training["float32"], training["amp"]
    parts = ", ".join(
        f"{name} {single[key] / MIB:,.0f}"
        for name, key in (
            ("parameters", "parameters"),
            (training["optimizer"], "optimizer"),
            ("saved", "saved"),
            ("transient", "transient"),
        )
    )
    return [
        f"training at batch {training['batch']}: about {single['total'] / GIB:.2f} GiB in float32, "
        f"{half['total'] / GIB:.2f} GiB under AMP (estimate)",
        f"  in float32, MiB: {parts}",
    ]


def compare_text(descriptions: Sequence[dict[str, Any]]) -> str:
    """Return one table for several networks with the same input; ratios are to the first."""
    first = descriptions[0]
    head = ("", "params", "", "GMAC", "", "scan GF", "train GiB", "", "AMP GiB")
    rows = [head]
    for found in descriptions:
        single, half = found["training"]["float32"]["total"], found["training"]["amp"]["total"]
        rows.append(
            (
                found["name"],
                f"{found['params'] / 1e6:.2f} M",
                _ratio(found["params"], first["params"]),
                f"{found['macs'] / 1e9:.2f}",
                _ratio(found["macs"], first["macs"]),
                f"{found['scan_flops'] / 1e9:.2f}" if found["scan_flops"] else "",
                f"{single / GIB:.2f}",
                _ratio(single, first["training"]["float32"]["total"]),
                f"{half / GIB:.2f}",
            )
        )
    return "\n".join(
        [
            f"input {_shape(first)}, {first['num_classes']} classes; forward at batch 1 "
            f"({CONVENTION});",
            f"memory of training at batch {first['training']['batch']}, float32 and AMP (estimate)",
            *table(rows),
            "Norms, activations and interpolation are not counted. FLOPs are not speed.",
        ]
    )


def _shape(found: dict[str, Any]) -> str:
    return " x ".join(str(size) for size in found["input"])


def _giga(number: int) -> str:
    return f"{number / 1e9:.3f}"


def _ratio(number: float, first: float) -> str:
    return f"x{number / first:.2f}" if first else ""
