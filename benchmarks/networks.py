"""Every bundled network side by side: cost, memory estimated and measured, time on this CPU.

    python benchmarks/networks.py --out benchmarks/results/networks.json

Estimates are for 1 x 4 x 128^3 with 4 classes, SGD with momentum; measurements for one training
step at 1 x 4 x 64^3 in float32 on one thread, each network in a process of its own. MONAI's
SwinUNETR stands beside them where monai is installed.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import archspec
from archspec.costs.flops import CONVENTION, cost_plan
from archspec.costs.memory import module_memory, training_memory

LARGE, SMALL = (128, 128, 128), (64, 64, 64)


def bundled(name: str) -> dict[str, Any]:
    """Return the estimates for a bundled spec."""
    planned = archspec.plan(name, in_channels=4, num_classes=4, patch_size=LARGE)
    cost = cost_plan(planned)
    return {
        "params": cost.params,
        "macs": cost.macs,
        "scan_flops": cost.scan_flops,
        **{
            f"memory_{label}": training_memory(planned, batch=1, amp=amp, optimizer="sgd").total
            for label, amp in (("float32", False), ("amp", True))
        },
    }


def swin_unetr() -> dict[str, Any]:
    """Return the estimates for MONAI's SwinUNETR; its attention is not the fused kernel."""
    from monai.networks.nets import SwinUNETR

    net = SwinUNETR(in_channels=4, out_channels=4, feature_size=48).to("meta")
    x = torch.empty(1, 4, *LARGE, device="meta")
    return {
        "params": sum(p.numel() for p in net.parameters()),
        **{
            f"memory_{label}": module_memory(net, x, amp=amp).total
            for label, amp in (("float32", False), ("amp", True))
        },
    }


def measured(name: str, repeats: int) -> dict[str, Any]:
    """Profile one training step in a fresh process."""
    sizes = [f"-s{field}=4" for field in ("in_channels", "num_classes")]
    patch = ",".join(str(n) for n in SMALL)
    command = [sys.executable, "-m", "archspec", "profile", name, *sizes, "--patch", patch]
    done = subprocess.run(
        [*command, "--repeats", str(repeats), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    found = json.loads(done.stdout)
    return {
        "step_seconds": found["measured"]["step_seconds"],
        "forward_seconds": found["measured"]["forward_seconds"],
        "peak_bytes": found["measured"]["peak_bytes"],
        "estimated_bytes": found["estimated"]["memory_bytes"],
        "scan_backend": found["scan_backend"],
        "hardware": found["hardware"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--names", default="*", help="shell pattern of bundled specs")
    options = parser.parse_args()
    networks = {}
    for name in archspec.list_specs(options.names):
        networks[name] = {**bundled(name), "measured": measured(name, options.repeats)}
        print(line(name, networks[name]), flush=True)
    if importlib.util.find_spec("monai") is not None:
        networks["monai SwinUNETR"] = swin_unetr()
        print(line("monai SwinUNETR", networks["monai SwinUNETR"]))
    found = {
        "convention": CONVENTION,
        "estimates": "1 x 4 x 128^3, 4 classes, SGD with momentum",
        "measurements": "1 x 4 x 64^3, float32, one thread, medians of wall times",
        "repeats": options.repeats,
        "networks": networks,
        "machine": platform.machine(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def line(name: str, found: dict[str, Any]) -> str:
    """Return one row for the terminal."""
    row = f"{name:22}{found['params'] / 1e6:8.2f} M"
    row += f"{found['macs'] / 1e9:9.2f} GMAC" if "macs" in found else " " * 14
    row += f"{found['memory_float32'] / 2**30:7.2f} {found['memory_amp'] / 2**30:6.2f} GiB"
    step = found.get("measured", {})
    return row + (f"{step['step_seconds']:8.2f} s" if "step_seconds" in step else "")


if __name__ == "__main__":
    main()
