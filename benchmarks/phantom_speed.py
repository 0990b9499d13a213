"""How long the phantoms take: CPU seconds per volume, its compressed files included.

    python benchmarks/phantom_speed.py --out benchmarks/results/phantom_speed.json

One process, each task at its last level. `per_64_cubed` scales by voxels and channels to one
channel of 64^3.
"""

import argparse
import datetime
import json
import math
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from archspec.phantom.dataset import write_dataset
from archspec.phantom.task import Task
from archspec.phantom.tasks import TASKS


def measure(task: Task, folder: Path, num_volumes: int) -> dict[str, Any]:
    """Return CPU seconds of writing that many volumes."""
    num_cases = task.num_cases or num_volumes
    began = time.process_time()
    out = folder / f"Dataset901_{task.name}"
    write_dataset(out, task, num_cases=num_cases, num_test_cases=0, seed=0)
    seconds = (time.process_time() - began) / num_cases
    voxels = math.prod(task.shape) * len(task.channels)
    return {
        "level": task.level,
        "shape": list(task.shape),
        "channels": len(task.channels),
        "volumes": num_cases,
        "seconds_per_volume": round(seconds, 4),
        "per_64_cubed": round(seconds * 64**3 / voxels, 4),
    }


def main() -> None:
    """Measure all tasks and write the figures with versions and date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--volumes", type=int, default=20)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, task in TASKS.items():
            hardest = task.at_level(task.levels[-1])
            measure(hardest, Path(folder) / "warm", 5)
            found[name] = measure(hardest, Path(folder), options.volumes)
            print(f"{name:12}{found[name]['seconds_per_volume']:.3f} s per volume")
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "versions": {"numpy": np.__version__, "python": platform.python_version()},
        "tasks": found,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
