"""What is deep supervision worth? A paired ablation on fine structures.

    python benchmarks/ablations.py --quick
    python benchmarks/ablations.py --full --device cuda

SegResMamba, narrow, with one head and with three (nnU-Net gives the coarsest no weight). The pair
has one learning rate, chosen for one head, and per seed one sequence of batches; weights start from
the same seed, but not alike, for heads draw some. FUE is ablated in decoder_tradeoff.py, scan
orders in placement.py. Rates, tests and curves are as in decoder_tradeoff.py.
"""

from functools import partial

import phantom_data
import report
from arms import supervision_arms
from decoder_tradeoff import FULL, FULL_SPLIT, QUICK, QUICK_SPLIT
from experiment import Bench

from archspec.phantom.detail import DetailTask

PAIRS = (("three heads", "one head"),)
NOTES = (
    "Synthetic data. Test Dice is the mean over classes, scored at full resolution.",
    "Surface Dice has a tolerance of one voxel.",
)


def supervision(full: bool) -> list[Bench]:
    """Return one and three heads by the structures' radius."""
    benches = []
    for level in DetailTask.levels if full else ("2",):
        task = DetailTask.at_level(level)
        number = 960 + DetailTask.levels.index(level)
        name = f"Dataset{number}_detail{level.replace('.', '')}"
        split = FULL_SPLIT if full else QUICK_SPLIT
        dataset = phantom_data.prepare(name, task, split, seed=0)
        benches.append(
            Bench(
                "supervision",
                dataset.name,
                task.name,
                level,
                task.decided,
                tuple(supervision_arms(task.shape)),
                tolerance=min(task.spacing),
                also=("surface",),
            )
        )
    return benches


def main() -> None:
    """Run what is asked for."""
    given = report.options(__doc__.splitlines()[0], "ablations").parse_args()
    experiments = {"supervision": (partial(supervision, given.full), PAIRS)}
    report.conduct(given, experiments, FULL if given.full else QUICK, NOTES)


if __name__ == "__main__":
    main()
