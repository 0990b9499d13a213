"""Time the Triton scan against mamba-ssm's kernel on layers shaped like SegMamba's.

    python benchmarks/scan_gpu.py --out scan_gpu.json --mamba-ssm-source mamba_ssm-2.3.2.post1

Forward + backward of three directions (forward, reverse, inter-slice), bfloat16, batch 1, N = 16:

- ours: `blocks.scan.backends.triton_backend`, one call, tokens first.
- fork: mamba-ssm's kernel as SegMamba's fork feeds it: one call per direction, u and z permuted
  before it, its gated output permuted back and added.
- cross: one call of that kernel with the directions folded into channels (one group of B and C
  each), one gather of u before, one of the output after, one gate.

For both, delta, B and C are given in scan order and channels first, free of charge: projections
would write them so. Without the extension, both are "not measured". The floor counts operations
and bytes against the rates below; whichever is slowest wins.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scan_variants import STATES, make_runs
from torch import Tensor

LAYERS = ((64, 96), (32, 192), (16, 384), (8, 768))
"""Edge of the grid and channels D of each stage."""
TARGETS = {"fork_time_over_ours": 1.5, "ours_memory_over_fork": 0.5}
NOT_MEASURED = "not measured"
# H200: 132 processors at 1.98 GHz with 16 special-function and 128 float32 lanes; copied bytes/s.
SPECIAL_PER_S = 132 * 16 * 1.98e9
FLOAT32_PER_S = 132 * 128 * 1.98e9
BYTES_PER_S = 4.3e12
# Per direction, token, channel and state: one exp a pass; float32 instructions forward, backward.
FLOAT32_FORWARD, FLOAT32_BACKWARD = 4, 15


def floor_ms(length: int, channels: int, directions: int) -> float:
    """Return the least time of forward and backward by counted operations and bytes."""
    cells = length * channels * STATES
    forward_bytes = 3 * length * channels * 2 + 2 * length * STATES * 2
    backward_bytes = 5 * length * channels * 2 + 2 * length * STATES * (2 + 4)
    passes = ((forward_bytes, FLOAT32_FORWARD), (backward_bytes, FLOAT32_BACKWARD))
    return sum(
        1e3 * directions * max(cells / SPECIAL_PER_S, cells * n / FLOAT32_PER_S, size / BYTES_PER_S)
        for size, n in passes
    )


def measure(run: Callable[[], Tensor], leaves: list[Tensor], grad: Tensor) -> dict[str, float]:
    """Return median ms of forward + backward, of forward, and peak MB beyond the inputs."""

    def both() -> None:
        torch.autograd.grad(run(), leaves, grad)

    def forward() -> None:
        with torch.no_grad():
            run()

    figures = {}
    for name, call in (("ms", both), ("forward_ms", forward)):
        for _ in range(3):
            call()
        times = []
        for _ in range(15):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        figures[name] = statistics.median(times)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    both()
    figures["peak_mb"] = (torch.cuda.max_memory_allocated() - before) / 1e6
    return figures


def compare_layer(edge: int, channels: int, kernel: Any) -> dict[str, Any]:
    """Measure one layer by every variant, one guarded from the other."""
    runs, grad = make_runs(edge, channels, kernel)
    row: dict[str, Any] = {"grid": edge, "channels": channels}
    row["floor_ms"] = floor_ms(edge**3, channels, 3)
    want = runs["ours"][0]().detach().float()
    for name in ("ours", "fork", "cross"):
        if name not in runs:
            row[name] = NOT_MEASURED
            continue
        try:
            found = runs[name][0]().detach().float()
            row[name] = measure(*runs[name], grad)
            row[name]["difference_from_ours"] = ((found - want).norm() / want.norm()).item()
        except Exception as error:  # one variant that fails must not cost the others
            row[name] = f"failed: {error}"
    ours, fork = row["ours"], row["fork"]
    if isinstance(ours, dict):
        row["floor_over_ours"] = row["floor_ms"] / ours["ms"]
        if isinstance(fork, dict):
            row["fork_time_over_ours"] = fork["ms"] / ours["ms"]
            row["ours_memory_over_fork"] = ours["peak_mb"] / fork["peak_mb"]
    return row


def compare_step(library: Path | None) -> dict[str, Any]:
    """Measure a whole SegMamba's training step by both backends, in processes of their own."""
    found: dict[str, Any] = {}
    script = Path(__file__).parent / "train_step.py"
    for scan in ("triton", "mamba_ssm"):
        if scan == "mamba_ssm" and library is None:
            found[scan] = NOT_MEASURED
            continue
        paths = [str(library.parent)] if library else []
        paths += [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        environment = os.environ | {"ARCHSPEC_SCAN": scan, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, str(script), "--spec", "segmamba-released"]
        try:
            done = subprocess.run(
                [*command, "--precision", "bf16"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            found[scan] = json.loads(done.stdout.strip().splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
            found[scan] = f"failed: {error!r}; {done.stderr[-800:] if 'done' in locals() else ''}"
    return found


def load_kernel(library: Path | None) -> Any:
    """Import mamba-ssm's extension, from a folder or as installed; None where there is none."""
    if library is not None:
        sys.path.insert(0, str(library.parent))
    try:
        return importlib.import_module("selective_scan_cuda")
    except ImportError as error:
        print(f"mamba-ssm's extension: {error}")
        return None


def main() -> None:
    """Measure everything, print one line per layer, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mamba-ssm-source", type=Path)
    parser.add_argument("--mamba-ssm-library", type=Path, help="selective_scan_cuda.so, if built")
    parser.add_argument("--no-step", action="store_true", help="leave out the whole network")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing was measured")
    library = arguments.mamba_ssm_library
    if library is None and arguments.mamba_ssm_source is not None:
        from mamba_build import build

        library = build(arguments.mamba_ssm_source.resolve(), arguments.out.parent / "mamba")
    kernel = load_kernel(library)
    import triton

    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(),
        "versions": [platform.python_version(), torch.__version__, triton.__version__],
        "targets": TARGETS,
        "layers": [],
    }
    for edge, channels in LAYERS:
        result["layers"].append(compare_layer(edge, channels, kernel))
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(result["layers"][-1]), flush=True)
    if not arguments.no_step:
        result["segmamba_step"] = compare_step(library if kernel is not None else None)
        print(json.dumps(result["segmamba_step"]), flush=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
