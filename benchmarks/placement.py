"""Where should which mixer sit? The papers' claims as experiments on phantoms.

    python benchmarks/placement.py --quick
    python benchmarks/placement.py --full --device cuda --experiment reach axis data

reach: Mamba early and attention late, the reverse, each alone, and convolutions, at equal MACs, on
       a relation beyond what convolutions see. Instance norm in one arm shows its leak.
axis:  one, two and three scan orders of ToM along depth, width and their diagonal, equal widths.
data:  Dice against the number of training cases.

Each arm's learning rate is the best of three on the validation cases of seed 0, at the end: on
reach attention starts late and wants a low rate, which any earlier rung would rule out. Test cases
are scored once per training, at its end. Every training's curve goes into the table of curves; a
second run skips what is there.
"""

from collections.abc import Callable
from functools import partial

import phantom_data
import report
from arms import macs_of, matched, order_arms, placement_arms, seconds_of
from experiment import Arm, Bench, Budget
from phantom_data import Split

from archspec.phantom.axis import AxisTask
from archspec.phantom.mixed_ct import MixedCTTask
from archspec.phantom.reach import ReachTask
from search.space.settings import MatchSpec

RATES = (4e-3, 2e-3, 1e-3)
QUICK = Budget(seeds=2, steps=972, rates=RATES, choose_at=4)
FULL = Budget(seeds=5, steps=4860, rates=RATES, choose_at=4)
QUICK_SPLIT = Split(train=64, validation=12, test=48)
FULL_SPLIT = Split(train=128, validation=32, test=64)
QUICK_VOLUME = (16, 32, 144)

NOTES = (
    "Synthetic data. M is ToM, A attention, two blocks per stage; side accuracy 0.5 is chance.",
    "The ResEnc U-Net has nnU-Net's instance norm, which shows local networks the whole volume.",
)

PLACEMENT_PAIRS = (
    ("MMAA", "AAMM"),
    ("MMAA", "MMMM"),
    ("MMAA", "AAAA"),
    ("MMAA", "conv"),
    ("conv, instance", "conv"),
    ("MMAA", "ResEnc U-Net"),
)
ORDER_PAIRS = (
    ("three orders", "two orders"),
    ("three orders", "forward"),
    ("two orders", "forward"),
    ("three orders", "conv"),
)


def reach(full: bool, match: str) -> list[Bench]:
    """Return the placements at matched cost, by distance, and at three budgets where full."""
    benches = []
    for index, distance in enumerate((24, 48, 96, 144)):
        if not full and distance != 96:
            continue
        volume = (16, 32, 192) if full else QUICK_VOLUME
        task = ReachTask(distance=distance, volume=volume)
        dataset = phantom_data.prepare(
            f"Dataset{910 + index}_Reach{distance}", task, _split(full), seed=0
        )
        for factor in (1.0, 2.0, 4.0) if full else (1.0,):
            arms = placement_arms(task.shape)
            target = _target(arms[0], match, factor, dataset.num_classes)
            arms = matched(arms, target, classes=dataset.num_classes)
            setting = f"at {target.target / 1e6:.0f} MMAC"
            if match == "latency":
                setting = f"at {1e3 * target.target:.0f} ms"
            benches.append(
                Bench(
                    experiment="reach",
                    dataset=dataset.name,
                    task=task.name,
                    level=str(distance),
                    decided=task.decided,
                    arms=tuple(arms),
                    setting=setting,
                )
            )
    return benches


def axis(full: bool, match: str) -> list[Bench]:
    """Return ToM's orders along every direction; widths are equal, so more orders cost more."""
    benches = []
    for index, level in enumerate(AxisTask.levels):
        task = AxisTask.at_level(level)
        dataset = phantom_data.prepare(
            f"Dataset{920 + index}_Axis{level}", task, _split(full), seed=0
        )
        arms = tuple(order_arms(task.shape))
        benches.append(Bench("axis", dataset.name, task.name, level, task.decided, arms))
    return benches


def data(full: bool, match: str) -> list[Bench]:
    """Return Mamba with attention against convolutions and a residual U-Net, by training cases."""
    sizes = (4, 8, 16, 32)
    task = MixedCTTask()
    split = Split(train=64, validation=12, test=48, subsets=sizes)
    dataset = phantom_data.prepare("Dataset930_Data", task, split, seed=0)
    arms = [
        arm for arm in placement_arms(task.shape) if arm.name in ("MMAA", "conv", "ResEnc U-Net")
    ]
    target = _target(arms[0], match, 1.0, dataset.num_classes)
    arms = matched(arms, target, classes=dataset.num_classes, channels=dataset.num_channels)
    return [
        Bench("data", dataset.name, "data", str(size), task.decided, tuple(arms), fold=fold)
        for size, fold in ((4, 1), (8, 2), (16, 3), (32, 4), (64, 0))
    ]


EXPERIMENTS: dict[str, tuple[Callable[[bool, str], list[Bench]], tuple[tuple[str, str], ...]]] = {
    "reach": (reach, PLACEMENT_PAIRS),
    "axis": (axis, ORDER_PAIRS),
    "data": (data, (("MMAA", "conv"), ("MMAA", "ResEnc U-Net"))),
}


def _split(full: bool) -> Split:
    return FULL_SPLIT if full else QUICK_SPLIT


def _target(arm: Arm, match: str, factor: float, classes: int) -> MatchSpec:
    """Return the cost of an arm at the host's own widths, times a factor."""
    if match == "macs":
        return MatchSpec(macs=factor * macs_of(arm, classes=classes), multiple=1)
    seconds = seconds_of(arm, classes=classes)
    return MatchSpec(latency=factor * seconds, multiple=1, tolerance=0.1)


def main() -> None:
    """Run what is asked for."""
    parser = report.options(__doc__.splitlines()[0], "placement")
    parser.add_argument("--experiment", nargs="+", choices=EXPERIMENTS, default=["reach"])
    given = parser.parse_args()
    experiments = {}
    for name in given.experiment:
        make, pairs = EXPERIMENTS[name]
        experiments[name] = (partial(make, given.full, given.match), pairs)
    report.conduct(given, experiments, FULL if given.full else QUICK, NOTES)


if __name__ == "__main__":
    main()
