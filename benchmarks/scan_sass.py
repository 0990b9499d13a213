"""Count what the Triton kernels of a ToM layer cost on GPUs, without one: from their machine code.

    python benchmarks/scan_sass.py --label after
    python benchmarks/scan_sass.py --label before --tree DIR    another tree's kernels, DIR/blocks

Counted per kernel and architecture: instructions of the innermost loops per cell, registers, bytes
of stack; for a layer's step: launches, of Triton's kernels and of PyTorch's, on grids of 8 and 64,
and bytes that have to be moved. A cell is one position of one state of one channel of one direction
in a scan, one position of one channel in a convolution. No time is measured: those written are what
the counts would take on an H200, bytes at the rate of a copy, instructions at every issue slot and,
as predicted, at the share `ISSUED` of them.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from recorded_launches import Launch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scan_sass.json"
ARCHITECTURES = (75, 86, 90, 120)
DTYPES = {"bfloat16": torch.bfloat16, "float32": None, "float16": torch.float16}
LAYER = (64, 96)
"""Edge of the grid and channels of the layer whose step is counted."""
STATES = 16
MORE_STATES = 64
"""Counted in bfloat16 only, for the kernels whose tile holds states."""
WARP_INSTRUCTIONS_PER_S = 132 * 4 * 1.98e9
BYTES_PER_S = 4.3e12
ISSUED = 0.65
"""The share of issue slots that a kernel is assumed to fill; 1 is the bound."""
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
TARGET = re.compile(r"0x([0-9a-f]+)")


def instructions(sass: str) -> list[tuple[int, str, str]]:
    """Return address, name and operands of each instruction; padding after the end left out."""
    found = [(int(a, 16), name, rest) for a, name, rest in INSTRUCTION.findall(sass)]
    while found and (found[-1][1] == "NOP" or jumps_to(found[-1]) == found[-1][0]):
        found.pop()
    return found


def jumps_to(instruction: tuple[int, str, str]) -> int | None:
    """Return the address that a branch may go to, None for other instructions."""
    _, name, rest = instruction
    target = TARGET.search(rest) if name.split(".")[0] in ("BRA", "UBRA") else None
    return None if target is None else int(target.group(1), 16)


def loops(code: list[tuple[int, str, str]]) -> list[tuple[int, int]]:
    """Return first and last address of every loop: what lies before a jump back."""
    ends: dict[int, int] = {}
    for one in code:
        target = jumps_to(one)
        if target is not None and target < one[0]:
            ends[target] = max(one[0], ends.get(target, 0))
    return sorted(ends.items())


def loop_counts(code: list[tuple[int, str, str]]) -> tuple[list[int], list[int]]:
    """Return the instructions of each innermost loop, and those of each outermost one."""
    found = loops(code)

    def holds(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one != other and one[0] <= other[0] and other[1] <= one[1]

    def sizes(chosen: list[tuple[int, int]]) -> list[int]:
        return [sum(low <= address <= high for address, *_ in code) for low, high in chosen]

    inner = [one for one in found if not any(holds(one, other) for other in found)]
    outer = [one for one in found if not any(holds(other, one) for other in found)]
    return sizes(inner), sizes(outer)


def named(launch: "Launch") -> dict[str, Any]:
    """Return the launch's constants by name."""
    names = launch.kernel.arg_names
    return {names[index]: value for (index,), value in launch.constants.items()}


def label(launch: "Launch") -> str:
    """Return the kernel's name, and whether it is what all directions but the last launch."""
    return launch.name + (", not last" if named(launch).get("LAST") is False else "")


def counted(dtypes: list[str], only: list[str] | None) -> Iterator[tuple[str, "Launch"]]:
    """Yield each kernel of a layer's step by name and precision; scans with more states too."""
    import recorded_launches

    for low in dtypes:
        for states in (STATES, MORE_STATES) if low == "bfloat16" else (STATES,):
            launches, _ = recorded_launches.tom_step(8, LAYER[1], DTYPES[low], states=states)
            for name, launch in {label(one): one for one in launches}.items():
                tiled = "BLOCK_N" in launch.kernel.arg_names
                if (only and name not in only) or (states != STATES and not tiled):
                    continue
                yield f"{name} {low}" + ("" if states == STATES else f" N={states}"), launch


def count(launch: "Launch", architecture: int) -> dict[str, Any]:
    """Compile one launch; return its figures."""
    import recorded_launches

    code = recorded_launches.compiled(launch, architecture)
    found = instructions(recorded_launches.dumped(code, "-sass"))
    inner, outer = loop_counts(found)
    names = [name.split(".")[0] for _, name, _ in found]
    constants = named(launch)
    figures: dict[str, Any] = recorded_launches.usage(code)
    figures |= {"instructions": len(found), "loops": inner}
    threads = 32 * launch.options.get("num_warps", 4)
    # what a turn of the innermost loops does: STEPS positions, or a tile
    cells = constants.get("STEPS", 1) * constants.get("BLOCK_D", 0) * constants.get("BLOCK_N", 1)
    cells *= constants.get("BLOCK_L", 1)
    turned = sum(inner) or len(found)
    if launch.name == "conv_backward_input" and inner != outer:  # a loop of taps in one of orders
        turned = sum(outer) + sum(inner) * (constants["WIDTH"] - 1)
    if cells:
        figures["per_cell"] = round(turned * threads / cells, 2)
    figures |= {name.lower(): names.count(name) for name in ("SHFL", "BAR", "MUFU")}
    return figures


def predict(launches: list["Launch"], kernels: Any) -> dict[str, Any]:
    """Return what a layer's step at `LAYER` would take on an H200, by the counts of sm_90.

    Bytes are those of all tensors of a launch, once; of those with directions, where there is a
    launch for each, its share.
    """
    edge, channels = LAYER
    elements = 3 * edge**3 * channels
    rows: dict[str, Any] = {}
    for launch in launches:
        row = rows.setdefault(label(launch), {"launches": 0, "megabytes": 0.0})
        row["launches"] += 1
        row["megabytes"] += launch.bytes / 1e6
    for name, row in rows.items():
        row["megabytes"] = round(row["megabytes"], 1)
        row["bytes_us"] = round(row["megabytes"] * 1e12 / BYTES_PER_S)
        per_cell = kernels[f"{name} bfloat16 sm_90"].get("per_cell", 0)
        cells = elements * (1 if name.startswith("conv") else STATES)
        if name.startswith("scan"):
            cells *= row["launches"] / 3
        row["issue_us"] = round(1e6 * per_cell * cells / 32 / WARP_INSTRUCTIONS_PER_S)
        row["predicted_us"] = round(max(row["bytes_us"], row["issue_us"] / ISSUED))
    scans = [row for name, row in rows.items() if not name.startswith("conv")]
    return {
        "kernels": rows,
        "scan_issue_ms": sum(row["issue_us"] for row in scans) / 1e3,
        "scan_predicted_ms": sum(row["predicted_us"] for row in scans) / 1e3,
        "conv_predicted_ms": (
            sum(r["predicted_us"] for r in rows.values()) - sum(r["predicted_us"] for r in scans)
        )
        / 1e3,
    }


def main() -> None:
    """Count, and write the figures under their label beside those that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", required=True)
    parser.add_argument("--tree", type=Path, default=ROOT, help="whose kernels; else this tree's")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", help="kernels; the others stay as they are")
    parser.add_argument("--arch", nargs="*", type=int, default=ARCHITECTURES)
    parser.add_argument("--dtype", nargs="*", choices=DTYPES, default=list(DTYPES))
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.tree.resolve()))
    import recorded_launches
    import triton

    kernels: dict[str, Any] = {}
    for name, launch in counted(arguments.dtype, arguments.only):
        for architecture in arguments.arch:
            key = f"{name} sm_{architecture}"
            kernels[key] = count(launch, architecture)
            print(key, kernels[key], flush=True)
    kept = json.loads(arguments.out.read_text("utf-8")) if arguments.out.is_file() else {}
    chosen = (arguments.dtype, arguments.arch)
    if arguments.only or chosen != (list(DTYPES), ARCHITECTURES):
        kernels = kept.get(arguments.label, {"kernels": {}})["kernels"] | kernels
    kept[arguments.label] = {"triton": triton.__version__, "kernels": kernels}
    for edge in (8, LAYER[0]):
        launches, others = recorded_launches.tom_step(edge, LAYER[1], torch.bfloat16)
        steps = {"triton": len(launches), "torch": others}
        kept[arguments.label][f"launches_{edge}"] = steps | {
            "all": len(launches) + sum(others.values())
        }
    kept[arguments.label]["step"] = predict(launches, kernels)
    arguments.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
