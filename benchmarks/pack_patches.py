"""Pack a preprocessed dataset into a small file, to search on a GPU where nnU-Net is not installed.

    python benchmarks/pack_patches.py 902 packed --space mixers
    nnUNet_preprocessed=packed archspec search mixers --data 902 --device cuda --trials 20 --out run

The first line needs nnU-Net, the second does not. Batch size and test share are the space's.
"""

import argparse
import sys
from pathlib import Path

from archspec.nnunet.dataset import find_dataset
from blocks.base import SpecError
from search.space.space import load_space
from search.trials.host import TrainingHost
from search.trials.patch_set import pack


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="id or name, preprocessed by nnU-Net")
    parser.add_argument("out", type=Path, help="a folder to write into")
    parser.add_argument("--space", required=True, help="the space that is to be searched")
    parser.add_argument("--patches", type=int, default=128)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="that of the search")
    given = parser.parse_args()
    try:
        settings = load_space(given.space).settings
        file = pack(
            find_dataset(given.dataset, configuration=given.configuration),
            given.out,
            num_patches=given.patches,
            batch_size=settings.batch_size,
            test_share=settings.test_share,
            host=TrainingHost(fold=given.fold, seed=given.seed),
        )
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
