"""Measure one training step of a bundled spec on a CUDA device: time and peak memory, as JSON.

    python benchmarks/train_step.py --spec segmamba-released --precision bf16

One process per measurement, so that memory starts from nothing. ARCHSPEC_SCAN picks the scan's
backend. The loss is a mean square: no loss function's cost is in the figures.
"""

import argparse
import json
import os
import statistics

import torch

WARM_STEPS = 3


def measure(
    spec: str, precision: str, patch_size: int, channels: int, device: str, steps: int
) -> dict[str, object]:
    """Return the median step in ms and the peak memory in MB (10^6 bytes); a CPU has neither."""
    import archspec

    torch.manual_seed(0)
    shape = (patch_size,) * 3
    net = archspec.build(spec, in_channels=channels, num_classes=4, patch_size=shape)
    net.to(device)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    x = torch.randn(1, channels, *shape, device=device)
    times = []
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # as trials and nnU-Net train
        torch.cuda.reset_peak_memory_stats()

    def step() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = net(x)
        loss = logits.float().square().mean()
        loss.backward()
        optimiser.step()
        return loss

    for _ in range(WARM_STEPS + steps):
        if device == "cpu":
            loss = step()
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        loss = step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    found = {
        "spec": spec,
        "precision": precision,
        "scan": os.environ.get("ARCHSPEC_SCAN", "default"),
        "input": [1, channels, *shape],
        "loss": loss.item(),
    }
    if device == "cuda":
        found["median_ms"] = round(statistics.median(times[WARM_STEPS:]), 2)
        found["steps_ms"] = [round(t, 2) for t in times]
        found["peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return found


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--patch-size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: no figures")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing was measured")
    sizes = (given.patch_size, given.channels)
    print(json.dumps(measure(given.spec, given.precision, *sizes, given.device, given.steps)))


if __name__ == "__main__":
    main()
