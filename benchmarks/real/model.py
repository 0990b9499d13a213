"""Make the data, the spec and the zip of a model that stock nnU-Net trains.

    python benchmarks/real/model.py data RAW WORK
    python benchmarks/real/model.py spec unet-8 --hours 2 -o unet-8.yaml
    python benchmarks/real/model.py pack MODEL -o unet-8.zip

`data` copies the raw dataset without the persons of the protocol's test part, so that neither
nnU-Net's plans nor its training see one of them, and their cases to WORK/test, to score. `spec`
takes a network and its learning rate of the record, and as many steps as fit into the hours of CPU
at its recorded time of a step. `pack` writes one fold of a trained model folder as
nnUNetv2_install_pretrained_model_from_zip takes it, without what only going on needs.
models/hippocampus/README.md has the commands between them.
"""

import argparse
import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from program import Records
from protocol import HERE, parts_of, read_protocol
from standings import standing

from archspec.spec.yaml_file import dump
from blocks.base import SpecError

_ITERATIONS = 50
_VALIDATION = 0.07
"""nnU-Net validates ten batches after 50: forward alone, a third of a step each."""
_ONLY_TO_GO_ON = ("optimizer_state", "grad_scaler_state", "logging", "_best_ema")
_SAME_DATE = (1980, 1, 1, 0, 0, 0)


def copy_data(raw: Path, work: Path) -> int:
    """Copy the dataset without the test part to `work`/raw; return the number of cases.

    Images and labels of the test part go to `work`/test, where nnU-Net does not find them.

    Raises:
        SpecError: a case's person is not in the protocol.
        FileExistsError: the copy is there.
    """
    protocol = read_protocol()
    name = protocol.tree["dataset"]["name"]
    source, target = raw / name, work / "raw" / name
    content = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending = content["file_ending"]
    cases = [file.name.removesuffix(ending) for file in (source / "labelsTr").glob(f"*{ending}")]
    parts = parts_of(protocol.tree["split"], cases, protocol.tree["split"]["fold"])
    kept = sorted(parts.train + parts.validation)
    for folder, suffix in (("imagesTr", f"_0000{ending}"), ("labelsTr", ending)):
        for place, part in ((target, kept), (work / "test", parts.test)):
            (place / folder).mkdir(parents=True)
            for case in part:
                shutil.copy(source / folder / f"{case}{suffix}", place / folder)
    content["numTraining"] = len(kept)
    for place in (target, work / "test"):
        (place / "dataset.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return len(kept)


def spec_of(network: str, hours: float, results: Path) -> dict[str, Any]:
    """Return the network's spec at its learning rate, with so many CPU hours of steps.

    Raises:
        SpecError: the network is not on record yet.
    """
    protocol = read_protocol()
    found = standing(Records(results, protocol), network)
    if found is None:
        raise SpecError("is not on record yet", where=network)
    steps = hours * 3600 / (found.seconds * (1 + _VALIDATION))
    tree: dict[str, Any] = protocol.plan(network, found.rate).spec.tree()
    tree["training"] |= {"epochs": max(1, round(steps / _ITERATIONS)), "iterations": _ITERATIONS}
    return tree


def pack(model: Path, fold: str, out: Path) -> int:
    """Write the fold of a trained model folder as a zip; return its bytes.

    The archive's dates are fixed, so that equal models make equal files.
    """
    checkpoint = model / f"fold_{fold}" / "checkpoint_final.pth"
    content = torch.load(checkpoint, map_location="cpu", weights_only=False)
    for key in _ONLY_TO_GO_ON:
        content.pop(key, None)
    root = Path(model.parent.name, model.name)
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder, checkpoint.name)
        torch.save(content, stripped)
        files = {root / f"fold_{fold}" / checkpoint.name: stripped}
        for name in ("dataset.json", "plans.json", "dataset_fingerprint.json"):
            files[root / name] = model / name
        with zipfile.ZipFile(out, "x", zipfile.ZIP_DEFLATED) as archive:
            for name, file in files.items():
                entry = zipfile.ZipInfo(name.as_posix(), _SAME_DATE)
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return out.stat().st_size


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    data = verbs.add_parser("data")
    data.add_argument("raw", type=Path)
    data.add_argument("work", type=Path)
    spec = verbs.add_parser("spec")
    spec.add_argument("network")
    spec.add_argument("--hours", type=float, default=2.0)
    spec.add_argument("-o", dest="out", type=Path, required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("model", type=Path)
    packing.add_argument("--fold", default="all")
    packing.add_argument("-o", dest="out", type=Path, required=True)
    args = parser.parse_args()
    try:
        if args.verb == "data":
            print(f"{copy_data(args.raw, args.work)} cases in {args.work / 'raw'}")
        elif args.verb == "spec":
            tree = spec_of(args.network, args.hours, HERE / "results")
            with args.out.open("x", encoding="utf-8") as file:
                file.write(dump(tree))
            training = tree["training"]
            print(f"{args.out}: {training['epochs']} epochs of {training['iterations']} steps")
        else:
            print(f"{args.out}: {pack(args.model, args.fold, args.out) / 1e6:.2f} MB")
    except (SpecError, FileExistsError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
