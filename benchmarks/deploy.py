"""What a network costs on a CPU where it is deployed: sizes of its files, times beside PyTorch's.

    python benchmarks/deploy.py --out benchmarks/results/deploy.json

Times are CPU seconds of this process, on one thread, so that other work on the machine counts
little; every round runs each way once, and what is told of a way is the median of its ratios to
eager PyTorch in the same round. Compiling is not counted.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import archspec
from archspec.network.segnet import SegNet
from archspec.saved.onnx import write_onnx
from archspec.saved.pt2 import write_pt2
from archspec.saved.save import info_of

NETWORKS = ("small-unet", "segmaformer", "segmamba")
Way = Callable[[], object]


def session(file: Path, image: np.ndarray[Any, Any]) -> Way:
    """Return a run of an ONNX file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: opened.run(None, {"image": image})


def files(net: SegNet, folder: Path) -> dict[str, Path]:
    """Write the network in every form; return the files by target."""
    info, found = info_of(net), {}
    found["safetensors"] = archspec.save(net, folder / "net.safetensors")
    found["pt2"] = write_pt2(net, info, folder / "net.pt2").path
    found["onnx"] = write_onnx(net, info, folder / "net.onnx").path
    found["onnx --half"] = write_onnx(net, info, folder / "half.onnx", half=True).path
    return found


def ways(net: SegNet, written: dict[str, Path], *, compiled: bool) -> dict[str, Way]:
    """Return what runs one patch, eager PyTorch first."""
    x = torch.randn(1, net.planned.in_channels, *net.planned.patch_size)
    found: dict[str, Way] = {"torch": lambda: net(x)}
    for name in ("onnx", "onnx --half"):
        found[name] = session(written[name], x.numpy())
    if compiled:
        fast = torch.compile(net, fullgraph=True)
        found["torch.compile"] = lambda: fast(x)
    return found


def seconds(way: Way) -> float:
    start = time.process_time()
    way()
    return time.process_time() - start


def measured(name: str, patch: int, rounds: int, *, compiled: bool) -> dict[str, Any]:
    """Return sizes and times of a bundled spec's network with its start weights."""
    torch.manual_seed(0)
    net = archspec.build(name, patch_size=(patch,) * len(archspec.load(name).patch_size)).eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        written = files(net, Path(folder))
        sizes = {target: file.stat().st_size for target, file in written.items()}
        run = ways(net, written, compiled=compiled)
        for way in run.values():
            way()  # compiles, and takes its memory
        times = [{way: seconds(do) for way, do in run.items()} for _ in range(rounds)]
    ratios = {
        way: round(statistics.median(one[way] / one["torch"] for one in times), 3)
        for way in run
        if way != "torch"
    }
    return {
        "network": name,
        "patch_size": list(net.planned.patch_size),
        "parameters": sum(value.numel() for value in net.parameters()),
        "bytes": sizes,
        "torch_cpu_seconds": round(statistics.median(one["torch"] for one in times), 4),
        "ratio_to_torch": ratios,
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on; the load is the number of processes that want a core."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    packages = ("torch", "onnxruntime", "onnx", "onnxscript")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": next(line.split(": ")[1] for line in lines if line.startswith("model name")),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {**machine(), "rounds": given.rounds, "networks": []}
    for name in given.networks:
        one = measured(name, given.patch, given.rounds, compiled=not given.no_compile)
        found["networks"].append(one)
        print(json.dumps(one), flush=True)
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
