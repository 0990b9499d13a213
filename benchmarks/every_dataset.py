"""Every bundled network and space on datasets that nnU-Net planned; trained and predicted by it.

    python benchmarks/every_dataset.py 4:3d_fullres 4:2d 27:3d_fullres 27:2d 5:2d --out OUT.csv

Needs nnU-Net's three variables, the datasets preprocessed, and raw images to predict. Per dataset
and configuration, one row each:

- `export`: every bundled spec, without further options;
- `search`: every bundled space, `--dry-run`;
- `train`: a small host with each mixer, and with each decoder, through `nnUNetv2_train` for two
  epochs of two iterations with its validation, and `nnUNetv2_predict` of one case.

`result` is `ok`, or the one line in which the command refuses; exit codes other than 0 and 2 end
the script. A row that is in the CSV already is not done again.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import archspec
from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from blocks.registry import slots
from search.space.space import list_spaces

FIELDS = ("dataset", "configuration", "what", "name", "result", "seconds")
BIN = Path(sys.executable).parent
RAW, RESULTS = "nnUNet_raw", "nnUNet_results"


def kinds(slot: str) -> list[str]:
    """Return the kinds of a slot of components."""
    return list(slots()[slot].kinds())


def host(mixer: str, decoder: str, axes: int) -> str:
    """Return a small spec: a strided stem, the mixer in two stages, the decoder."""
    fused = ", fue: true" if decoder == "concat" else ""
    heads = 1 if decoder == "mlp" else 2
    return f"""\
schema_version: 1
name: {mixer}-{decoder}
patch_size: {[32] * axes}
encoder:
  stages:
    - {{width: 8, downsample: {{kernel_size: 7, stride: 4}}, mixer: {{kind: conv}}}}
    - {{width: 16, downsample: {{stride: 2}}, mixer: {{kind: {mixer}}}}}
    - {{width: 24, downsample: {{stride: 2}}, mixer: {{kind: {mixer}}}}}
decoder: {{kind: {decoder}{fused}}}
deep_supervision: {{heads: {heads}}}
training: {{epochs: 2, iterations: 2}}
"""


def run(*words: str) -> str:
    """Run a command; return ok or its one line of refusal."""
    done = subprocess.run([str(BIN / words[0]), *words[1:]], capture_output=True, text=True)
    if done.returncode == 0:
        return "ok"
    lines = done.stderr.strip().splitlines()
    if words[0] != "archspec" or done.returncode != 2 or len(lines) != 1:
        sys.exit(f"{words}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return lines[0]


def train(dataset: PreprocessedDataset, spec: str) -> str:
    """Export the spec, train it and predict a validation case, by stock commands."""
    name, trainer = "every_dataset", "nnUNetTrainerArchSpec"
    configuration = dataset.configuration
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "host.yaml"
        file.write_text(spec)
        exported = run(
            *("archspec", "export", str(file), "--dataset", dataset.name, "--force"),
            *("--configuration", configuration, "--plans-name", name),
        )
        if exported != "ok":
            return exported
        chosen = ("-p", name, "-tr", trainer, "-device", "cpu")
        run("nnUNetv2_train", dataset.name, configuration, "0", *chosen)
        results = Path(os.environ[RESULTS]) / dataset.name
        model = results / f"{trainer}__{name}__{configuration}"
        case = first_case(model)
        images, masks = Path(folder) / "images", Path(folder) / "masks"
        images.mkdir()
        for image in (Path(os.environ[RAW]) / dataset.name / "imagesTr").glob(f"{case}_0*"):
            shutil.copy(image, images)
        run(
            *("nnUNetv2_predict", "-i", str(images), "-o", str(masks), "-d", dataset.name),
            *("-c", configuration, "-f", "0", "-npp", "0", "-nps", "0", *chosen),
        )
        ending = dataset.dataset_json["file_ending"]
        if not (masks / f"{case}{ending}").is_file():
            sys.exit(f"{case}: no mask was predicted")
        shutil.rmtree(model)
        (dataset.folder / f"{name}.json").unlink()
    return "ok"


def first_case(model: Path) -> str:
    """Return the first case of fold 0 that nnU-Net validated."""
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    return Path(summary["metric_per_case"][0]["prediction_file"]).name.split(".")[0]


def tasks(dataset: PreprocessedDataset) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield what is to be done: (what, name, command or the spec to train)."""
    chosen = ("--configuration", dataset.configuration)
    for name in archspec.list_specs():
        words = ("export", name, "--dataset", dataset.name, *chosen, "--force")
        yield "export", name, ("archspec", *words, "--plans-name", "every_dataset")
    for name in list_spaces():
        words = ("search", name, "--data", dataset.name, *chosen, "--dry-run")
        yield "search", name, ("archspec", *words, "--seconds-per-step", "1")
    axes = len(dataset.patch_size)
    for mixer in kinds("mixer"):
        yield "train", f"{mixer}-sum", (host(mixer, "sum", axes),)
    for decoder in kinds("decoder"):
        if decoder != "sum":
            yield "train", f"conv-{decoder}", (host("conv", decoder, axes),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", metavar="ID:CONFIGURATION")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    done = set()
    if asked.out.is_file():
        with asked.out.open(newline="") as file:
            done = {tuple(row[field] for field in FIELDS[:4]) for row in csv.DictReader(file)}
    else:
        asked.out.write_text(",".join(FIELDS) + "\n")
    for text in asked.datasets:
        number, _, configuration = text.partition(":")
        dataset = find_dataset(number, configuration=configuration)
        for what, name, words in tasks(dataset):
            key = (dataset.name, configuration, what, name)
            if key in done:
                continue
            started = time.perf_counter()
            result = train(dataset, *words) if what == "train" else run(*words)
            row = (*key, result, f"{time.perf_counter() - started:.0f}")
            print(*row, flush=True)
            with asked.out.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(row)


if __name__ == "__main__":
    main()
