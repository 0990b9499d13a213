"""How many draws of every bundled space are networks, at patches as nnU-Net plans them?

    python benchmarks/space_validity.py --out benchmarks/results/space_validity.json

Draws at random, seed 0, for one channel and three classes, by plan and cost alone: nothing is
built. A draw is invalid where no network of it can be planned, or no widths match its budget; one
that exceeds the space's own limits is valid, and counted beside. Anchors are checked alike, those
that are specs included. Padding is the median factor by which voxels grow inside the network.
"""

import argparse
import collections
import datetime
import importlib.metadata
import json
import platform
import statistics
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import BaseTrial

from archspec.costs.flops import CONVENTION, cost_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan
from blocks.base import Grid, SpecError
from search.space.first import first_of
from search.space.limits import check_limits
from search.space.references import reference_of
from search.space.space import Space, list_spaces, load_space

PATCHES: tuple[Grid, ...] = (
    (40, 56, 40),
    (48, 64, 48),
    (16, 320, 256),
    (128, 128, 128),
    (512, 512),
    (320, 320),
    (16, 32, 48),
)


class Tried:
    """Draws of one space at one patch; networks that differ in the recipe alone are made once."""

    def __init__(self, space: Space, patch: Grid) -> None:
        self.space = space
        self.sizes = InputSizes(in_channels=1, num_classes=3, patch_size=patch)
        self.known: dict[str, tuple[Plan, bool] | str] = {}

    def draw(self, trial: BaseTrial) -> tuple[Plan, bool] | str:
        """Return the plan and whether it exceeds a limit, or why there is none."""
        if reference_of(trial) is None:
            try:
                self.space.suggest(trial)
            except SpecError as error:
                return error.line
            if self.space.settings.match is not None:
                self.space.settings.match.drawn(trial)
        own = {k: v for k, v in trial.params.items() if not k.startswith("training.")}
        key = f"{reference_of(trial)} {own}"
        if key not in self.known:
            self.known[key] = self._made(trial)
        return self.known[key]

    def _made(self, trial: BaseTrial) -> tuple[Plan, bool] | str:
        settings = self.space.settings
        try:
            planned = self.space.draw(trial, self.sizes)
        except SpecError as error:
            return error.line
        cost, batch = cost_plan(planned), settings.batch_size
        found = check_limits(settings.limits, cost, batch=batch, amp=False)
        return planned, any(one.constraint > 0 for one in found)


def row(space: Space, patch: Grid, draws: int) -> dict[str, Any]:
    """Return the shares for one space at one patch."""
    tried = Tried(space, patch)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [tried.draw(study.ask()) for _ in range(draws)]
    anchors = [tried.draw(anchor.trial()) for anchor in first_of(space)]
    valid = [one for one in drawn if not isinstance(one, str)]
    why = collections.Counter(one for one in drawn if isinstance(one, str))
    return {
        "space": space.name,
        "patch": list(patch),
        "valid": len(valid) / draws,
        "over_limits": sum(over for _, over in valid) / max(len(valid), 1),
        "padding": statistics.median(planned.padding for planned, _ in valid) if valid else None,
        "narrowest": min(
            (stage.out.channels for planned, _ in valid for stage in planned.stages), default=None
        ),
        "invalid": dict(why.most_common()),
        "anchors": len(anchors),
        "anchors_invalid": [one for one in anchors if isinstance(one, str)],
        "anchors_over_limits": sum(one[1] for one in anchors if not isinstance(one, str)),
    }


def line(found: dict[str, Any]) -> str:
    """Return one row for the terminal."""
    wrong, over = len(found["anchors_invalid"]), found["anchors_over_limits"]
    patch = " x ".join(map(str, found["patch"]))
    padding = "-" if found["padding"] is None else f"{found['padding']:.2f}"
    return (
        f"{found['space']:18} {patch:16}{found['valid']:7.1%}{found['over_limits']:8.1%}"
        f"{padding:>9}{found['narrowest'] or '-':>11}{found['anchors']:9}{wrong:9}{over:6}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--space", action="append", choices=list_spaces())
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        f"{'space':18} {'patch':16}{'valid':>7}{'over':>8}{'padding':>9}{'narrowest':>11}"
        f"{'anchors':>9}{'invalid':>9}{'over':>6}"
    )
    rows = []
    for name in given.space or list_spaces():
        space = load_space(name)
        for patch in PATCHES:
            rows.append(row(space, patch, given.draws))
            print(line(rows[-1]), flush=True)
    if given.out is None:
        return
    packages = ("archspec-seg", "torch", "optuna", "numpy")
    found = {
        "draws": given.draws,
        "seed": 0,
        "in_channels": 1,
        "num_classes": 3,
        "convention": CONVENTION,
        "rows": rows,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "date": datetime.date.today().isoformat(),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
