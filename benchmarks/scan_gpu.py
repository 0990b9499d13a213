"""Time the Triton scan against mamba-ssm's kernel on layers shaped like SegMamba's.

    python benchmarks/scan_gpu.py
    python benchmarks/scan_gpu.py --mamba-ssm-library build/mamba/selective_scan_cuda.so

One JSON object a line, as each layer ends; `benchmarks/gpu_suite.py` gathers them. --once EDGE runs
our kernels once at that size, for a profiler; EDGE 0 means 130 tokens, for a memory checker.
Forward + backward of three directions (forward, reverse, inter-slice), bfloat16, batch 1, N = 16:

- ours: `blocks.scan.backends.triton_backend`, one call, tokens first.
- fork: mamba-ssm's kernel as SegMamba's fork feeds it: one call per direction, u and z permuted
  before it, its gated output permuted back and added.
- cross: one call of that kernel with the directions folded into channels (one group of B and C
  each), one gather of u before, one of the output after, one gate.

For both, delta, B and C are given in scan order and channels first, free of charge: projections
would write them so. Without the extension, both are "not measured". The floor counts operations
and bytes against the rates below, an H200's; whichever is slowest wins. --rehearse runs all of it
on a CPU at a tiny size, where times mean nothing.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scan_variants import STATES, make_runs
from torch import Tensor

LAYERS = ((64, 96), (32, 192), (16, 384), (8, 768))
"""Edge of the grid and channels D of each stage."""
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


def timed_ms(call: Callable[[], object], device: str) -> float:
    """Return the time of one call: by the GPU's own clock where there is one."""
    if device == "cpu":
        begin = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def measure(
    run: Callable[[], Tensor], leaves: list[Tensor], grad: Tensor, repeats: int
) -> dict[str, float]:
    """Return median ms of forward + backward, of forward, and peak MB beyond the inputs."""
    device = grad.device.type

    def both() -> None:
        torch.autograd.grad(run(), leaves, grad)

    def forward() -> None:
        with torch.no_grad():
            run()

    figures = {}
    for name, call in (("ms", both), ("forward_ms", forward)):
        times = [timed_ms(call, device) for _ in range(3 + repeats)]
        figures[name] = statistics.median(times[-repeats:])
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        both()
        figures["peak_mb"] = (torch.cuda.max_memory_allocated() - before) / 1e6
    return figures


def kernel_times(run: Callable[[], Tensor], leaves: list[Tensor], grad: Tensor) -> dict[str, float]:
    """Return microseconds on the GPU by kernel, of one forward and backward."""
    with torch.profiler.profile() as profile:
        torch.autograd.grad(run(), leaves, grad)
        if grad.is_cuda:
            torch.cuda.synchronize()
    found = {one.key[:60]: round(one.device_time_total, 1) for one in profile.key_averages()}
    return dict(sorted(((k, v) for k, v in found.items() if v), key=lambda pair: -pair[1])[:12])


def compare_layer(
    edge: int, channels: int, kernel: Any, device: str, repeats: int
) -> dict[str, Any]:
    """Measure one layer by every variant, one guarded from the other."""
    row: dict[str, Any] = {"grid": edge, "channels": channels}
    row["floor_ms"] = floor_ms(edge**3, channels, 3)
    runs, grad = make_runs(edge, channels, kernel, device)
    results: dict[str, Tensor] = {}
    for name in ("ours", "fork", "cross"):
        if name not in runs:
            row[name] = NOT_MEASURED
            continue
        try:
            results[name] = runs[name][0]().detach().float()
            row[name] = measure(*runs[name], grad, repeats)
            if "ours" in results:
                want = results["ours"]
                row[name]["difference_from_ours"] = (
                    (results[name] - want).norm() / want.norm()
                ).item()
        except Exception as error:  # one variant that fails must not cost the others
            row[name] = f"failed: {error!r}"[:600]
    ours, fork = row["ours"], row["fork"]
    if isinstance(ours, dict):
        row["floor_over_ours"] = row["floor_ms"] / ours["ms"]
        if isinstance(fork, dict):
            row["fork_time_over_ours"] = fork["ms"] / ours["ms"]
            row["ours_memory_over_fork"] = ours["peak_mb"] / fork["peak_mb"]
        try:
            row["kernels_us"] = kernel_times(*runs["ours"], grad)
        except Exception as error:  # a profiler may be refused
            row["kernels_us"] = f"failed: {error!r}"[:600]
    return row


def run_once(edge: int, channels: int, device: str) -> None:
    """Run our kernels forward and backward."""
    runs, grad = make_runs(edge, channels, None, device)
    run, leaves = runs["ours"]
    torch.autograd.grad(run(), leaves, grad)
    print(json.dumps({"ran": list(grad.shape)}))


def load_kernel(library: Path | None) -> Any:
    """Import mamba-ssm's extension, from a folder or as installed; None where there is none."""
    if library is not None:
        sys.path.insert(0, str(library.parent))
    try:
        return importlib.import_module("selective_scan_cuda")
    except ImportError as error:
        print(f"mamba-ssm's extension: {error}")
        return None


def main() -> int:
    """Measure everything, print one line per layer; return 1 where ours failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mamba-ssm-library", type=Path, help="selective_scan_cuda.so, if built")
    parser.add_argument("--once", type=int, metavar="EDGE")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    if not (torch.cuda.is_available() or arguments.rehearse):
        raise SystemExit("no CUDA device: nothing was measured")
    device = "cpu" if arguments.rehearse else "cuda"
    if arguments.once is not None:
        run_once(2 if arguments.rehearse else arguments.once, LAYERS[0][1], device)
        return 0
    kernel = load_kernel(arguments.mamba_ssm_library)
    rows = []
    for edge, channels in ((2, 8),) if arguments.rehearse else LAYERS:
        try:
            row = compare_layer(edge, channels, kernel, device, 1 if arguments.rehearse else 15)
        except Exception as error:  # such as too little memory for the inputs
            row = {"grid": edge, "channels": channels, "ours": f"failed: {error!r}"[:600]}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return int(not all(isinstance(row["ours"], dict) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
