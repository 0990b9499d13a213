"""What are deep supervision and CMMB's kernel 5 worth? Paired ablations on fine structures.

    python benchmarks/ablations.py --quick
    python benchmarks/ablations.py --full --device cuda

SegResMamba, narrow, with one head and with three (nnU-Net gives the coarsest no weight), and with
kernels 5 and 3 where CMMB changes the grid. A pair has one learning rate, chosen for the first, and
per seed one sequence of batches; weights start from the same seed, but not alike, for heads and
kernels draw some. FUE is ablated in decoder_tradeoff.py, scan orders in placement.py. Rates, tests
and curves are as in decoder_tradeoff.py.
"""

from collections.abc import Callable
from functools import partial

import phantom_data
import report
from arms import kernel_arms, supervision_arms
from decoder_tradeoff import FULL, FULL_SPLIT, QUICK, QUICK_SPLIT
from experiment import Arm, Bench

from archspec.phantom.detail import DetailTask
from blocks.base import Grid

EXPERIMENTS = {
    "supervision": (supervision_arms, (("three heads", "one head"),)),
    "kernel": (kernel_arms, (("kernel 5", "kernel 3"),)),
}
NOTES = (
    "Synthetic data. Test Dice is the mean over classes, scored at full resolution.",
    "Surface Dice has a tolerance of one voxel.",
)


def benches(name: str, make: Callable[[Grid], list[Arm]], full: bool) -> list[Bench]:
    """Return a pair by the structures' radius."""
    found = []
    for level in DetailTask.levels if full else ("2",):
        task = DetailTask.at_level(level)
        number = 960 + DetailTask.levels.index(level)
        word = f"Dataset{number}_detail{level.replace('.', '')}"
        split = FULL_SPLIT if full else QUICK_SPLIT
        dataset = phantom_data.prepare(word, task, split, seed=0)
        found.append(
            Bench(
                name,
                dataset.name,
                task.name,
                level,
                task.decided,
                tuple(make(task.shape)),
                tolerance=min(task.spacing),
                also=("surface",),
            )
        )
    return found


def main() -> None:
    """Run what is asked for."""
    parser = report.options(__doc__.splitlines()[0], "ablations")
    parser.add_argument("--experiment", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    given = parser.parse_args()
    experiments = {}
    for name in given.experiment:
        make, pairs = EXPERIMENTS[name]
        experiments[name] = (partial(benches, name, make, given.full), pairs)
    report.conduct(given, experiments, FULL if given.full else QUICK, NOTES)


if __name__ == "__main__":
    main()
