"""A network as text: shapes and costs by stage."""

from typing import Any

from archspec.costing import CONVENTION, cost_plan
from archspec.planning import Plan


def describe_json(planned: Plan) -> dict[str, Any]:
    """Return shapes and costs; the FLOP convention is named in it."""
    cost = cost_plan(planned)
    stages = [
        {
            "stage": index,
            "mixer": stage.spec.mixer.kind,
            "depth": stage.spec.depth,
            "width": stage.out.channels,
            "grid": list(stage.out.grid),
            "params": cost.by_path[f"stages.{index}"].params,
            "macs": cost.by_path[f"stages.{index}"].macs,
            "scan_flops": cost.by_path[f"stages.{index}"].scan_flops,
        }
        for index, stage in enumerate(planned.stages)
    ]
    decoder = cost.by_path["decoder"]
    return {
        "name": planned.spec.name,
        "input": [1, planned.in_channels, *planned.patch_size],
        "num_classes": planned.num_classes,
        "convention": CONVENTION,
        "params": cost.params,
        "macs": cost.macs,
        "scan_flops": cost.scan_flops,
        "flops": cost.flops,
        "activation_bytes": cost.activation_bytes,
        "stages": stages,
        "decoder": {
            "kind": planned.spec.decoder.kind,
            "params": decoder.params,
            "macs": decoder.macs,
            "outputs": [list(grid) for grid in planned.output_grids],
        },
    }


def describe_text(planned: Plan) -> str:
    """Return a table of at most 80 columns."""
    found = describe_json(planned)
    shape = " x ".join(str(size) for size in found["input"])
    rows = [
        (
            f"stage {stage['stage']}",
            f"{stage['depth']} x {stage['mixer']}",
            str(stage["width"]),
            "x".join(str(size) for size in stage["grid"]),
            f"{stage['params']:,}",
            f"{stage['macs'] / 1e9:.3f}",
            f"{stage['scan_flops'] / 1e9:.3f}",
        )
        for stage in found["stages"]
    ]
    decoder = found["decoder"]
    rows.append(
        (
            "decoder",
            decoder["kind"],
            "",
            f"{len(decoder['outputs'])} output(s)",
            f"{decoder['params']:,}",
            f"{decoder['macs'] / 1e9:.3f}",
            "",
        )
    )
    head = ("", "blocks", "width", "grid", "params", "GMAC", "scan GF")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(
        [
            f"{found['name']}: input {shape}, {found['num_classes']} classes",
            *lines,
            f"total: {found['params']:,} parameters",
            f"{found['flops'] / 1e9:.3f} GFLOP = 2 x {found['macs'] / 1e9:.3f} GMAC + "
            f"{found['scan_flops'] / 1e9:.3f} scan GFLOP ({CONVENTION})",
            f"saved for backward at batch 1: about {found['activation_bytes'] / 2**20:.1f} MiB "
            "(float32, estimate)",
            "Norms, activations and interpolation are not counted. FLOPs are not speed.",
        ]
    )
