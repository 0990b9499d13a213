"""The replay of search_third.py on what it was not tuned on: a forest over the recorded networks.

    python benchmarks/real/replay.py

The forest learns the curves of the protocol's 40 networks, which it gives back as they are, and
stands in for all networks of its hosts, mixers and decoders. The first budget is that of the table
the sampler was tuned on, in trainings of an average network; the second, 15 % of what was really
trained, is so small that TPE hardly gets past its random draws; it is replayed on the forest and on
the 40 recorded curves alone, where a network is one name among 40 and nothing tells of another's
Dice but FLOPs. As long as some of the 40 lack their training, this only says how well early rungs
rank those that have one.
"""

import argparse
import datetime
import itertools
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from optuna.trial import FixedTrial
from program import WEIGHTS, Records, make_job
from protocol import HERE, Protocol, read_protocol
from scipy.stats import kendalltau
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold
from standings import known_rate

sys.path.insert(0, str(Path(__file__).parents[1]))

from search_curves import Params, name_of
from search_replay import CostModel, Table
from search_third import (
    HARDWARE,
    SHARE,
    Noise,
    ceilings,
    compared,
    digest,
    page,
    replays,
    versions,
)
from search_third import OUT as TUNED

from archspec.costs.flops import cost_plan
from blocks.base import SpecError
from search.space.holes import Hole
from search.space.space import load_space

OUT = TUNED.with_name("search_third_real.json")
_TREES = 300
_FOLDS = 5


@dataclass(frozen=True)
class Surrogate:
    """The space that the forest stands in for."""

    open_holes: list[Hole]

    @classmethod
    def of(cls, protocol: Protocol) -> "Surrogate":
        mixers = sorted(protocol.tree["rates"]["of_mixer"])
        options = {
            "decoder": ("concat", "fue", "mlp", "sum"),
            "early": tuple(mixers),
            "host": tuple(protocol.tree["hosts"]),
            "late": tuple(mixers),
            "norm": ("layer", "instance_affine"),
        }
        return cls([Hole(name, "choice", found) for name, found in options.items()])

    def networks(self) -> list[Params]:
        """Return the values of all holes for every network."""
        names = [hole.name for hole in self.open_holes]
        every = itertools.product(*(hole.options for hole in self.open_holes))
        return [dict(zip(names, values, strict=True)) for values in every]

    def features(self, networks: list[Params], flops: list[int]) -> np.ndarray:
        """Return a column per option, and log10 FLOPs."""
        options = [(hole.name, option) for hole in self.open_holes for option in hole.options]
        rows = [[params[name] == option for name, option in options] for params in networks]
        return np.column_stack([np.array(rows, float), np.log10(flops)])


def params_of(protocol: Protocol, name: str) -> Params:
    """Return the values of the surrogate's holes for a network of the protocol."""
    found = {"norm": "layer", **protocol.tree["networks"][name]}
    if found.pop("fue", False):
        found["decoder"] = "fue"
    return found


def flops_of(protocol: Protocol, networks: list[Params]) -> list[int]:
    """Return the FLOPs of networks of the surrogate."""
    space = load_space(protocol.folder / "space.yaml")
    firsts = {hole.name: hole.options[0] for hole in space.holes()}
    found = []
    for given in networks:
        values = {**firsts, **protocol.tree["hosts"][given["host"]], **given}
        values |= {"decoder": "concat", "fue": True} if given["decoder"] == "fue" else {}
        found.append(cost_plan(space.draw(FixedTrial(values))).flops)
    return found


def curves(records: Records, network: str, weights: str, seed: int = 0) -> list[float]:
    """Return the Dice of a network at the protocol's rungs, empty where it was not trained."""
    rate, rungs = known_rate(records, network), records.protocol.tree["training"]["rungs"]
    if rate is None:
        return []
    key = make_job(records.protocol, network, seed, rate).key
    found = {int(row["rung"]): float(row[weights]) for row in records.rungs.matching(**key)}
    return [found[rung] for rung in rungs if rung in found] if rungs[-1] in found else []


def ranks(records: Records, names: list[str]) -> list[str]:
    """Return Kendall's tau of every rung with the last, in averaged weights, for both weights."""
    last = [curves(records, name, "ema")[-1] for name in names]
    found = []
    for index, step in enumerate(records.protocol.tree["training"]["rungs"][:-1]):
        taus = [
            kendalltau([curves(records, name, weights)[index] for name in names], last)[0]
            for weights in WEIGHTS
        ]
        both = ", ".join(f"{w} {tau:.2f}" for w, tau in zip(WEIGHTS, taus, strict=True))
        found.append(f"step {step}: tau with the last rung: {both}")
    return found


def forest(features: np.ndarray, dice: np.ndarray) -> tuple[ExtraTreesRegressor, str]:
    """Return the forest, and its error on networks that it did not see."""
    predicted = np.empty_like(dice)
    for seen, unseen in KFold(_FOLDS, shuffle=True, random_state=0).split(features):
        fold = ExtraTreesRegressor(_TREES, random_state=0).fit(features[seen], dice[seen])
        predicted[unseen] = fold.predict(features[unseen])
    error = np.abs(predicted - dice).mean(0)[-1]
    usual = np.abs(dice - dice.mean(0)).mean(0)[-1]
    tau = kendalltau(predicted[:, -1], dice[:, -1])[0]
    told = f"cross-validated error {error:.4f} Dice (of the mean: {usual:.4f}), tau {tau:.2f}"
    return ExtraTreesRegressor(_TREES, random_state=0).fit(features, dice), told


def cost_model(records: Records, names: list[str]) -> CostModel:
    """Return CPU seconds of steps and validations by a line in FLOPs each."""
    rows = [row for name in names for row in records.rungs.matching(network=name, seed=0)]
    flops = [int(row["flops"]) for row in rows]
    cases = len({row["case"] for row in records.validation.rows})
    step = [float(row["step_cpu"]) + float(row["batch_cpu"]) for row in rows]
    scored = [cases * float(row["case_cpu"]) for row in rows]
    lines = [np.polyfit(flops, seconds, 1)[::-1] for seconds in (step, scored)]
    return CostModel(0.0, *((float(fixed), float(slope)) for fixed, slope in lines))


def noise_of(records: Records, names: list[str]) -> Noise:
    """Return how rungs move with the training's seed, from networks with several."""
    moved, freedom = [], 0
    for name in names:
        seeds = {int(row["seed"]) for row in records.rungs.matching(network=name)}
        rows = [found for seed in sorted(seeds) if (found := curves(records, name, "ema", seed))]
        if len(rows) > 1:
            moved.append(np.array(rows) - np.mean(rows, axis=0))
            freedom += len(rows) - 1
    if not moved:
        raise SpecError("no network has two seeds, so that nothing tells the noise of the table")
    stacked = np.vstack(moved)
    return Noise(stacked.T @ stacked / freedom, len(moved))


def listed(table: Table, names: list[str]) -> tuple[Surrogate, Table]:
    """Return the named networks alone, as a space of one hole, and their table."""
    keys = {name_of({"network": name}): name for name in names}
    return Surrogate([Hole("network", "choice", tuple(names))]), replace(
        table,
        flops={key: table.flops[name] for key, name in keys.items()},
        dice={key: table.dice[name] for key, name in keys.items()},
    )


def main() -> None:
    """Say what is on record; with all of it, replay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--rows", type=Path, default=Path("replays.jsonl"), help="one per line")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    protocol = read_protocol()
    records = Records(given.results, protocol)
    names = [name for name in protocol.networks if curves(records, name, "ema")]
    print(f"{len(names)} of {len(protocol.networks)} networks have their training")
    if len(names) > 2:
        print("\n".join(ranks(records, names)))
    if len(names) < len(protocol.networks):
        print("The replay stays open until all have.")
        return
    tuned = json.loads(TUNED.read_text(encoding="utf-8"))
    if (frozen := tuned["sampler"]) != digest():
        raise SystemExit(f"the sampler is {digest()} now, but {frozen} was tuned and frozen")
    space = Surrogate.of(protocol)
    own = [params_of(protocol, name) for name in names]
    dice = np.array([curves(records, name, "ema") for name in names])
    model, told = forest(space.features(own, flops_of(protocol, own)), dice)
    print(f"forest over {len(names)} networks: {told}")
    every = space.networks()
    flops = flops_of(protocol, every)
    predicted = model.predict(space.features(every, flops))
    keys = [name_of(params) for params in every]
    table = Table(
        tuple(protocol.tree["training"]["rungs"]),
        dict(zip(keys, flops, strict=True)),
        {key: tuple(map(float, row)) for key, row in zip(keys, predicted, strict=True)},
        cost_model(records, names),
    )
    noise = noise_of(records, names)
    content = {
        "date": datetime.date.today().isoformat(),
        "hardware": HARDWARE,
        "versions": versions(),
        "protocol": protocol.digest,
        "sampler": digest(),
        "networks": len(table.flops),
        "forest": told,
        "noise": {"networks": noise.networks, "deviations": noise.deviations},
        "budgets": [],
    }
    small = SHARE * len(names)
    for label, recorded, budget in (
        ("forest", (space, table), tuned["budget"]),
        ("forest", (space, table), small),
        ("recorded", listed(table, [name_of(params) for params in own]), small),
    ):
        file = given.rows.with_suffix(f".{label}.{budget:g}.jsonl")
        rows = replays(file, given.seeds, budget, noise, recorded)
        found = {
            "table": label,
            "budget": budget,
            "ceilings": ceilings(recorded[1], budget),
            "methods": compared(rows),
        }
        content["budgets"].append(found)
        print(f"{label}, budget {budget:g} average trainings, noise {noise.deviations}")
        print(page(found))
    given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
