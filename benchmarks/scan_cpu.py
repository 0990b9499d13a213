"""Time the CPU backends of the selective scan, their memory, and two SegMamba networks.

    OMP_WAIT_POLICY=passive python benchmarks/scan_cpu.py --out benchmarks/results/scan_cpu.json

With that policy torch's idle threads sleep; else they spin and take time from the next in turn.
The backends take turns, so that a busy machine slows all alike; figures are medians of the
process's CPU time and of wall time, ratios are between medians of one series. Memory is the peak of
forward and backward in a fresh process, beside the bytes of inputs, outputs and gradients alone.
Backends that are too slow at a size get fewer runs, or none: `RUNS` says so, and so does the JSON.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MODULES = {
    "numba": "numba_backend",
    "kscan": "kscan",
    "reference": "reference",
    "loop": "",  # plain PyTorch below, differentiated by autograd
}
CHANNELS, STATES, EDGES = 96, 16, (8, 16, 32, 64)
RUNS = {  # edge of the grid: runs at 1 thread, at 2 threads; 0 is skipped
    "numba": {8: (15, 15), 16: (15, 15), 32: (9, 9), 64: (5, 5)},
    "kscan": {8: (15, 15), 16: (9, 9), 32: (7, 3), 64: (1, 0)},
    "reference": {8: (7, 7), 16: (7, 3), 32: (1, 0), 64: (0, 0)},
    "loop": {8: (7, 7), 16: (3, 1), 32: (1, 0), 64: (0, 0)},
}
NETWORKS = ("numba", "kscan")
NETWORK_RUNS = 2
SMALL = [f"encoder.stages.{i}.width={16 << i}" for i in range(4)]
SMALL += ["decoder.bottleneck_width=256", "patch_size=[64,64,64]", "in_channels=1"]


def cpu_name() -> str:
    """Return the processor's name as Linux knows it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def scan_inputs(length: int) -> list[Tensor]:
    """Return a scan's inputs with Mamba's initialisation, one direction."""
    torch.manual_seed(0)
    tokens = (1, 1, length)
    return [
        torch.randn(*tokens, CHANNELS),
        torch.randn(*tokens, CHANNELS) - 4,
        -torch.arange(1.0, STATES + 1).expand(1, CHANNELS, STATES).contiguous(),
        torch.randn(*tokens, STATES),
        torch.randn(*tokens, STATES),
        torch.ones(1, CHANNELS),
        torch.zeros(1, CHANNELS),
        torch.randn(1, length, CHANNELS),
    ]


def loop(inputs: list[Tensor], grad: Tensor | None) -> list[Tensor]:
    """Run the plain loop over all tokens, and let autograd go back through it.

    Tokens are taken apart by unbind: indexing would make autograd fill a tensor of full size for
    each of them.
    """
    leaves = [t.detach().requires_grad_(grad is not None) for t in inputs]
    u, delta, A, B, C, D, bias, z = leaves
    dt = F.softplus(delta + bias.unsqueeze(-2))
    decays = torch.exp(dt.unsqueeze(-1) * A.unsqueeze(-3))
    increments = (dt * u).unsqueeze(-1) * B.unsqueeze(-2)
    h, outputs = torch.zeros_like(decays[:, :, 0]), []
    for decay, increment, c in zip(
        decays.unbind(2), increments.unbind(2), C.unbind(2), strict=True
    ):
        h = decay * h + increment
        outputs.append((h * c.unsqueeze(-2)).sum(-1))
    y = torch.stack(outputs, dim=2) + D.unsqueeze(-2) * u
    out = y.squeeze(1) * F.silu(z)
    grads = () if grad is None else torch.autograd.grad(out, leaves, grad)
    return [out.detach(), *grads]


def scan(name: str, inputs: list[Tensor], grad: Tensor | None) -> list[Tensor]:
    """Run forward, and backward where there is a gradient."""
    if name == "loop":
        return loop(inputs, grad)
    module = importlib.import_module(f"blocks.scan.backends.{MODULES[name]}")
    out, boundaries = module.selective_scan(*inputs, (1,))
    if grad is None:
        return [out, boundaries]
    grads = module.selective_scan_backward(grad, *inputs, boundaries, (1,))
    return [out, boundaries, *grads]


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Return a call's CPU and wall time in milliseconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def time_scans(names: list[str], edge: int, threads: int) -> dict[str, Any]:
    """Time the backends in turns at one size."""
    torch.set_num_threads(threads)
    inputs = scan_inputs(edge**3)
    grad = torch.randn_like(inputs[-1])
    runs = {name: RUNS[name][edge][threads - 1] for name in names}
    samples: dict[str, dict[str, list[tuple[float, float]]]] = {
        name: {"forward": [], "forward+backward": []} for name in names
    }
    for turn in range(max(runs.values())):
        for name in names:
            if turn < runs[name]:
                if turn == 0 and runs[name] > 1:
                    scan(name, inputs, grad)
                for kind, cotangent in (("forward", None), ("forward+backward", grad)):
                    samples[name][kind].append(timed(partial(scan, name, inputs, cotangent)))
    found: dict[str, Any] = {"tokens": edge**3, "threads": threads}
    for kind in ("forward", "forward+backward"):
        rows = {}
        for name in names:
            pairs = samples[name][kind]
            if not pairs:
                rows[name] = {"runs": 0, "why": "left out: it takes too long at this size"}
                continue
            cpu, wall = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows[name] = {"runs": len(pairs), "cpu_ms": round(cpu, 2), "wall_ms": round(wall, 2)}
        fastest = rows.get("numba", {}).get("cpu_ms")
        for row in rows.values():
            if fastest and "cpu_ms" in row:
                row["cpu_ratio_to_numba"] = round(row["cpu_ms"] / fastest, 2)
        found[kind] = rows
    return found


def size(tensors: list[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def status(field: str) -> int:
    """Return a size from Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure_memory(name: str, edge: int) -> None:
    """Print the peak of one forward and backward; meant for a fresh process."""
    torch.set_num_threads(1)
    warm = scan_inputs(512)
    scan(name, warm, torch.randn_like(warm[-1]))
    del warm
    inputs = scan_inputs(edge**3)
    grad = torch.randn_like(inputs[-1])
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = status("VmRSS")
    outputs = scan(name, inputs, grad)
    peak = status("VmHWM")
    given, made = size([*inputs, grad]), size(outputs)
    result = {
        "tokens": edge**3,
        "tensors_mb": round((given + made) / 2**20, 1),
        "growth_mb": round((peak - before) / 2**20, 1),
        "ratio": round((given + peak - before) / (given + made), 3),
    }
    print(json.dumps(result))


def measure_networks() -> None:
    """Print seconds of SegMamba's forward, and of a training step of a small one."""
    import archspec

    torch.manual_seed(0)
    whole = archspec.build("segmamba-released", patch_size=(64, 64, 64)).eval()
    image = torch.randn(1, 4, 64, 64, 64)
    small = archspec.build(archspec.load("segmamba", overrides=SMALL))
    optimizer = torch.optim.SGD(small.parameters(), lr=1e-2)
    patch, labels = image[:, :1], torch.randint(0, 4, (1, 64, 64, 64))

    def forward() -> None:
        with torch.no_grad():
            whole(image)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(small(patch), labels).backward()
        optimizer.step()

    found: dict[str, Any] = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        runs = {"segmamba-released forward 1x4x64^3": forward, "small training step 1x1x64^3": step}
        for label, run in runs.items():
            run()
            cpu, wall = (
                statistics.median(column)
                for column in zip(*(timed(run) for _ in range(NETWORK_RUNS)), strict=True)
            )
            found[f"{label}, {threads} threads"] = {
                "runs": NETWORK_RUNS,
                "cpu_s": round(cpu / 1e3, 2),
                "wall_s": round(wall / 1e3, 2),
            }
    print(json.dumps(found))


def in_fresh_process(arguments: list[str], **environment: str) -> Any:
    """Run this file again; return what it printed, or why it failed."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def show(series: dict[str, Any]) -> None:
    """Print one size's medians."""
    for kind in ("forward", "forward+backward"):
        cells = [
            f"{name} {row['cpu_ms']:9.1f} cpu {row['wall_ms']:9.1f} wall"
            if row["runs"]
            else f"{name} skipped"
            for name, row in series[kind].items()
        ]
        place = f"L={series['tokens']:<7} threads={series['threads']} {kind:17}"
        print(place + " | ".join(cells), flush=True)


def main() -> None:
    """Run the sections and write the figures with machine, versions and date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--edges", type=int, nargs="+", choices=EDGES, default=list(EDGES))
    parser.add_argument("--memory-edge", type=int, default=32)
    parser.add_argument("--skip-networks", action="store_true")
    parser.add_argument("--memory-of", choices=MODULES, help=argparse.SUPPRESS)
    parser.add_argument("--networks-here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.memory_of:
        return measure_memory(arguments.memory_of, arguments.memory_edge)
    if arguments.networks_here:
        return measure_networks()
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}, no GPU used",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": importlib.metadata.version("numba"),
        "shape": f"B 1, K 1, D {CHANNELS}, N {STATES}, float32",
        "scan": [],
    }
    for edge in arguments.edges:
        for threads in (1, 2):
            result["scan"].append(time_scans(arguments.backends, edge, threads))
            show(result["scan"][-1])
    size_of = ["--memory-edge", str(arguments.memory_edge)]
    result["memory"] = {
        name: in_fresh_process(["--memory-of", name, *size_of]) for name in arguments.backends
    }
    print("memory", result["memory"], flush=True)
    if not arguments.skip_networks:
        result["networks"] = {
            name: in_fresh_process(["--networks-here"], ARCHSPEC_SCAN=name) for name in NETWORKS
        }
        print("networks", result["networks"])
    result["load_after"] = os.getloadavg()
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
