"""Write the volume of every label of every case, from which terciles of persons are made.

    nnUNet_raw=... python benchmarks/real/volumes.py

Labels are read as nnU-Net reads them; a voxel of this dataset is 1 cubic millimetre.
"""

import csv
from pathlib import Path

import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.paths import nnUNet_raw
from protocol import HERE, person_of, read_protocol

FILE = HERE / "results" / "volumes.csv"


def main() -> None:
    """Write the table beside the others."""
    dataset = read_protocol().tree["dataset"]
    folder = Path(nnUNet_raw) / dataset["name"] / "labelsTr"
    rows = []
    for file in sorted(folder.glob("*.nii.gz")):
        label, properties = SimpleITKIO().read_seg(str(file))
        voxel = float(np.prod(properties["spacing"]))
        case = file.name.removesuffix(".nii.gz")
        sizes = [
            round(voxel * float((label == k + 1).sum())) for k in range(len(dataset["classes"]))
        ]
        rows.append((case, person_of(case), *sizes))
    with FILE.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("case", "person", *(f"{name.lower()}_mm3" for name in dataset["classes"])))
        writer.writerows(rows)
    print(f"{len(rows)} cases in {FILE}")


if __name__ == "__main__":
    main()
