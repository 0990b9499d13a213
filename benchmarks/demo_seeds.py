"""Run the demo's search on several seeds: what its cheapest and its best network score.

    python benchmarks/demo_seeds.py --seeds 0 1 2 --out benchmarks/results/demo_seeds.json

Each seed has data, sampler and trainings of its own. Twin-side Dice is the mean of the two twin
classes: 0.5 and less is a coin flip, since it needs the far landmark. `either_twin` scores the
twins' union: finding them is easy.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def cpu_name() -> str:
    """Return the processor's name as Linux knows it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run_seed(seed: int, folder: Path, trials: int) -> dict[str, Any]:
    """Run the demo up to its report; return both ends of its front."""
    command = [sys.executable, "-m", "archspec", "demo", "--search-only"]
    command += ["--seed", str(seed), "--trials", str(trials), "--out", str(folder)]
    subprocess.run(command, check=True)
    with (folder / "run" / "pareto.csv").open(encoding="utf-8") as file:
        front = list(csv.DictReader(file))
    scores = ("gflops", "dice", "twin_same", "twin_other", "either_twin")
    ends = {
        name: {score: float(row[score]) for score in scores}
        for name, row in (("cheapest", front[0]), ("best", front[-1]))
    }
    return {
        "seed": seed,
        "front_points": len(front),
        **{
            name: {
                "gflops": row["gflops"],
                "dice": row["dice"],
                "twin_side": (row["twin_same"] + row["twin_other"]) / 2,
                "either_twin": row["either_twin"],
            }
            for name, row in ends.items()
        },
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean, lowest and highest over the seeds."""
    found: dict[str, Any] = {}
    for end in ("cheapest", "best"):
        for score in ("gflops", "dice", "twin_side", "either_twin"):
            values = [run[end][score] for run in runs]
            found[f"{end} {score}"] = {
                "mean": statistics.mean(values),
                "lowest": min(values),
                "highest": max(values),
            }
    return found


def main() -> None:
    """Run all seeds and write the figures with versions and date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    import nnunetv2  # noqa: F401  fails here, not after the first search, where it is missing
    import torch

    runs = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run_seed(seed, Path(folder) / "demo", arguments.trials))
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}, no GPU used",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "trials": arguments.trials,
        "runs": runs,
        "summary": summarise(runs),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, values in result["summary"].items():
        print(f"{name:22}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
