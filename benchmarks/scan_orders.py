"""Do scans along the axes see relations along a diagonal? Phantoms, plans, `archspec bench`.

    python benchmarks/scan_orders.py --out benchmarks/results/scan_orders

The task is the phantom `axis`: twins told apart by a landmark 22 voxels away along depth, width or
the diagonal between them, all three in every image; the two datasets differ in which of them
decides. Along width neighbours follow each other in every network's first order; along the
diagonal they do in none. The networks have one host, whose other parts look no further than the
kernels of its strides, and differ in the orders in which ToM reads the grid; widths make up for
what more scans cost. The control is a depthwise convolution of 5, which sees 50 voxels around.

Test cases come in pairs that differ in the deciding landmark's side alone, so that a network which
does not see it scores the mean of right and wrong. A second call goes on.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import phantom_data
import yaml
from numpy.typing import NDArray
from phantom_data import Split

import archspec
from archspec.phantom.axis import AxisTask
from archspec.scoring.statistics import hierarchical_bootstrap
from search.space.match import match_spec
from search.space.settings import MatchSpec

DATASETS = {"width": "Dataset962_AlongWidth", "diagonal": "Dataset963_Diagonal"}
SPLIT = Split(train=96, validation=0, test=48)
FOLD = 1
"""The split's last, which validates on the test cases: nothing is chosen by them."""
SEEDS, STEPS, MARGIN = 3, 540, 0.05
BASELINE = "toms-three"
KEPT = ("bench.json", "rows.csv", "table.md")
Scores = dict[tuple[str, str], NDArray[np.float64]]


def scans(*orders: str) -> dict[str, Any]:
    """Return ToM with these orders, all of which start with Mamba's spread of time steps."""
    return {"kind": "tom", "d_state": 8, "init": "mamba", "orders": list(orders)}


MIXERS = {
    "forward": scans("dhw"),
    "both-ways": scans("dhw", "-dhw"),
    "toms-three": scans("forward", "reverse", "inter_slice"),
    "six": scans("dhw", "hwd", "wdh", "-dhw", "-hwd", "-wdh"),
    "conv": {"kind": "conv", "kernel_size": 5, "groups": "in", "act": "gelu"},
}
WIDTH_OF_SIX = 16


def network(name: str, width: int) -> dict[str, Any]:
    """Return the host, that of specs/search/mixers.yaml without its depthwise convolutions."""
    stem, down = {"kernel_size": 7, "stride": 4}, {"kernel_size": 2, "stride": 2}
    stages = [{"width": width, "downsample": stem}, {"width": 2 * width, "downsample": down}]
    defaults = {
        "depth": 2,
        "block": {"kind": "residual", "norm": "layer"},
        "mixer": MIXERS[name],
        "ffn": {"kind": "mlp", "ratio": 2},
    }
    training = {
        "optimizer": "adamw",
        "lr": 4e-3,
        "weight_decay": 1e-2,
        "schedule": "cosine",
        "warmup": 0.1,
        "clip": 1.0,
    }
    return {
        "name": name,
        "num_classes": 4,
        "patch_size": list(AxisTask.shape),
        "encoder": {"defaults": defaults, "stages": stages},
        "decoder": {"kind": "mlp", "width": 32, "fuse_norm": "layer", "act": "gelu"},
        "training": training,
    }


def networks(folder: Path) -> list[Path]:
    """Write the networks, each with the widths at which it costs what `six` does."""
    folder.mkdir(parents=True, exist_ok=True)
    target = MatchSpec(macs=archspec.cost(network("six", WIDTH_OF_SIX)).macs, multiple=1)
    files = []
    for name in MIXERS:
        found = match_spec(network(name, WIDTH_OF_SIX), target)
        tree = network(name, WIDTH_OF_SIX)
        for stage, planned in zip(tree["encoder"]["stages"], found.encoder.stages, strict=True):
            stage["width"] = planned.width
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return files


def bench(files: list[Path], out: Path) -> None:
    """Run the command, or go on with it."""
    line = [sys.executable, "-m", "archspec", "bench", *map(str, files)]
    line += ["--data", *(name[7:10] for name in DATASETS.values()), "--folds", str(FOLD)]
    line += ["--seeds", str(SEEDS), "--steps", str(STEPS), "--baseline", BASELINE]
    line += ["--margin", str(MARGIN), "--device", "cpu", "--out", str(out)]
    print(*line[2:], flush=True)
    subprocess.run(
        [*line, *(["--resume"] if (out / "settings.json").is_file() else [])], check=True
    )


def scores(folder: Path) -> Scores:
    """Return the mean Dice of the classes by network and direction, as (seeds, cases)."""
    with (folder / "cases.csv").open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["score"] == "mean"]
    found: Scores = {}
    for direction, dataset in DATASETS.items():
        for name in MIXERS:
            own = [one for one in lines if (one["network"], one["dataset"]) == (name, dataset)]
            own.sort(key=lambda line: (int(line["seed"]), line["case"]))
            values = np.array([float(line["dice"]) for line in own])
            found[name, direction] = values.reshape(SEEDS, -1)
    return found


def contrasts(found: Scores) -> list[tuple[str, float, float, float]]:
    """Return what each network loses on the diagonal, and how much more than the convolution.

    Cases of one number show the same scene in both datasets, every second one with another
    landmark's side changed. Networks are compared by the difference itself, case by case.
    """
    rows = []
    for name in MIXERS:
        lost = hierarchical_bootstrap(found[name, "diagonal"], found[name, "width"], seed=0)
        rows.append((f"{name}: diagonal - width", *lost))
    own = {name: found[name, "diagonal"] - found[name, "width"] for name in MIXERS}
    for name in MIXERS:
        if name != "conv":
            more = hierarchical_bootstrap(own[name], own["conv"], seed=0)
            rows.append((f"{name}: the same, less conv's", *more))
    return rows


def keep(folder: Path, out: Path) -> None:
    """Copy what is small, and write the score of every case and what the diagonal costs."""
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(folder / name, out / name)
    found = scores(folder)
    with (out / "cases.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("network", "direction", "seed", "dice of cases 97 to 144"))
        for (name, direction), values in found.items():
            for seed, own in enumerate(values):
                writer.writerow((name, direction, seed, " ".join(f"{one:.3f}" for one in own)))
    lines = ["mean Dice of the classes, difference and 95 % interval over cases and seeds"]
    lines += [
        f"{what:38} {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        for what, mean, low, high in contrasts(found)
    ]
    (out / "diagonal.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    """Make the data, train what is missing, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    work = Path(tempfile.gettempdir()) / "archspec-scan-orders"
    parser.add_argument("--work", type=Path, default=work, help="data and trainings")
    parser.add_argument("--out", type=Path, required=True, help="results to keep")
    given = parser.parse_args()
    phantom_data.enter(given.work)
    for direction, dataset in DATASETS.items():
        phantom_data.prepare(dataset, AxisTask.at_level(direction), SPLIT, seed=0)
    bench(networks(given.work / "networks"), given.work / "bench")
    keep(given.work / "bench", given.out)


if __name__ == "__main__":
    main()
