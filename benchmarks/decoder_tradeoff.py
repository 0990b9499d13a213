"""What does a cheaper decoder cost? Sum, concat, concat with FUE and MLP on fine structures.

    python benchmarks/decoder_tradeoff.py --quick
    python benchmarks/decoder_tradeoff.py --full --device cuda

detail:     tubes and lesions a few voxels thin; the MLP decoder fuses at stride 4. Surface Dice,
            at a voxel's tolerance, is compared too.
skip-noise: speckle in shallow features that must not pass the skips; FUE weighs skips. Side
            accuracy is that of the kind of organ; Dice is compared too.

All decoders sit on the host of specs/search/decoders.yaml, with one kind of head, at equal MACs.
Concat with FUE has concat's weights, rate and seeds: a paired ablation. Memory is the estimate
for a training step. Other rates are chosen after a third of the steps; tests and curves are as in
placement.py.
"""

from functools import partial

import phantom_data
import report
from arms import decoder_arms, macs_of, matched, seconds_of
from experiment import Bench, Budget
from phantom_data import Split

from archspec.phantom.tasks import task_class
from search.space.settings import MatchSpec

RATES = (4e-3, 2e-3, 1e-3)
QUICK = Budget(seeds=3, steps=486, rates=RATES, choose_at=3)
FULL = Budget(seeds=5, steps=4860, rates=RATES, choose_at=3)
QUICK_SPLIT = Split(train=32, validation=8, test=24)
FULL_SPLIT = Split(train=64, validation=16, test=64)
WIDTHS = ("encoder.stages.*.width", "decoder.width")
LEVELS = {"detail": (("2",), ("1", "1.5", "2", "3")), "skip-noise": ((), ())}
PAIRS = (
    ("sum", "concat"),
    ("sum", "mlp"),
    ("concat", "mlp"),
    ("concat + FUE", "concat"),
)
ALSO = {"detail": ("surface",), "skip-noise": ("mean",)}
NOTES = (
    "Synthetic data. Test Dice is the mean over classes, scored at full resolution.",
    "Surface Dice has a tolerance of one voxel. Side accuracy is that of the kind of organ.",
    "MiB is the estimate for a training step in float32; no decoder has a skip at full resolution.",
)


def benches(name: str, full: bool, match: str) -> list[Bench]:
    """Return the decoders at matched cost on every level of a task."""
    kind, found = task_class(name), []
    levels = LEVELS[name][full] or (kind.levels if full else kind.levels[1:2])
    for level in levels:
        task = kind.at_level(level)
        number = {"detail": 940, "skip-noise": 950}[name] + kind.levels.index(level)
        word = f"{name}{level}".replace("-", "").replace(".", "")
        split = FULL_SPLIT if full else QUICK_SPLIT
        dataset = phantom_data.prepare(f"Dataset{number}_{word}", task, split, seed=0)
        sizes = {"classes": dataset.num_classes, "channels": dataset.num_channels}
        arms = decoder_arms(task.shape)
        summed = next(arm for arm in arms if arm.name == "sum")
        target = MatchSpec(macs=macs_of(summed, **sizes), multiple=1, widths=WIDTHS)
        if match == "latency":
            seconds = seconds_of(summed, **sizes)
            target = MatchSpec(latency=seconds, multiple=1, widths=WIDTHS, tolerance=0.1)
        arms = matched(arms, target, **sizes)
        found.append(
            Bench(
                name,
                dataset.name,
                name,
                level,
                task.decided,
                tuple(arms),
                tolerance=min(task.spacing) if name == "detail" else None,
                also=ALSO[name],
            )
        )
    return found


def main() -> None:
    """Run what is asked for."""
    parser = report.options(__doc__.splitlines()[0], "decoder_tradeoff")
    parser.add_argument("--task", nargs="+", choices=LEVELS, default=list(LEVELS))
    given = parser.parse_args()
    tasks = {name: (partial(benches, name, given.full, given.match), PAIRS) for name in given.task}
    report.conduct(given, tasks, FULL if given.full else QUICK, NOTES)


if __name__ == "__main__":
    main()
