"""Print every table of the protocol from what is on record; draw the front.

    python benchmarks/real/report.py [--figure docs/experiments/hippocampus.png]

Any line can be made again: delete its rows, and start the recorder (README.md). Test cases are not
looked at before the selection is on record; what is missing is said with its hours.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from answers import Compared, confirmatory, curve_at, exploratory, in_smallest, tau_of_long
from front import draw_front
from left import left
from program import WEIGHTS, Records
from protocol import HERE, read_protocol
from standings import Standing, standing

RESULTS = HERE / "results"
CURVE = ("unet-4", "unet-8", "unet-16", "unet-32")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, help="draw the front into this PNG")
    given = parser.parse_args()
    records = Records(given.results, read_protocol())
    print("\n".join(report(records)))
    if given.figure is not None:
        curve, space = both(records)
        steps = records.protocol.tree["training"]["steps"]
        title = f"MSD Hippocampus after {steps:,} steps, protocol {records.protocol.digest}"
        draw_front(curve, space, _kinds(records), title, given.figure)


def both(records: Records) -> tuple[list[Standing], list[Standing]]:
    """Return what is on record of the width curve and of the space."""
    curve = [found for name in CURVE if (found := standing(records, name)) is not None]
    space = [
        found
        for name in records.protocol.networks
        if (found := standing(records, name)) is not None
    ]
    return curve, space


def _kinds(records: Records) -> dict[str, tuple[str, str]]:
    """Return each network's mixer and decoder."""
    found = {}
    for name, values in records.protocol.tree["networks"].items():
        mixers = {values["early"], values["late"]}
        if values["host"] in ("full", "large"):
            mixers = {values["late"]}  # their early stage is a convolution always
        decoder = "fue" if values.get("fue") else values["decoder"]
        found[name] = (mixers.pop() if len(mixers) == 1 else "mixed", decoder)
    return found


def report(records: Records) -> Iterator[str]:
    """Yield the lines of all tables."""
    tree = records.protocol.tree
    curve, space = both(records)
    split = tree["split"]
    persons = sum(map(len, split["folds"]))
    yield (
        f"Protocol {records.protocol.digest}: {tree['dataset']['name']}, after "
        f"{tree['training']['steps']:,} steps of batch {tree['training']['batch_size']}. "
        f"{persons} persons in training and validation (fold {split['fold']}), "
        f"{len(split['test'])} in the test part."
    )
    yield "Latency of a case and time of a training step are in calibration convolutions."
    yield "Dice is the mean over cases of the mean over both classes, averaged weights."
    yield "The published 0.89 to 0.90 is of five folds by case after 250,000 steps."
    yield from _margin(records)
    yield from ("", "Learning rates (validation, seed 0)", *_rates(records))
    yield from ("", "Width curve of nnU-Net's planned network", *_table(curve, []))
    yield from ("", "Networks of the space", *_table(space, curve))
    yield from ("", "Confirmatory questions (test, Holm over all)", *_confirmed(records))
    yield from ("", "Exploratory (test, no p)", *_explored(records, space))
    yield from ("", "Longer training", *_long(records))
    yield from _again(records)
    yield from ("", "Not on record yet, in CPU hours of one thread like the recorder's")
    for one in left(records):
        if one.done < one.total:
            done = f"{one.trained:3} of {one.total:3} trained"
            tested = f", {one.done:3} with their test cases" * (one.done < one.trained)
            yield f"  {one.step:12} {done}{tested}, {one.hours:5.1f} h left"


def _margin(records: Records) -> Iterator[str]:
    margin = records.decided("margin")
    if margin is None:
        yield "The margin is not decided: the pilot is not on record."
        return
    yield (
        f"Margin {100 * margin['margin']:g} points (power {margin['power']:.2f}; SD of persons' "
        f"differences {100 * margin['person_sd']:.2f}, of seeds' means "
        f"{100 * margin['seed_sd']:.2f} points)."
    )


def _rates(records: Records) -> Iterator[str]:
    tree = records.protocol.tree
    steps = tree["training"]["steps"]
    ladders = next(step for step in tree["program"] if step["step"] == "rates")
    for network in ladders["networks"]:
        rows = records.rungs.matching(network=network, seed=tree["rates"]["seed"], rung=steps)
        found = sorted((float(row["lr"]), float(row["ema"])) for row in rows)
        yield f"  {network:16}" + "".join(f"  {lr:g}: {score:.4f}" for lr, score in found)


def _table(rows: Sequence[Standing], curve: Sequence[Standing]) -> Iterator[str]:
    """Yield a table in order of FLOPs; `*` marks the front of validation Dice over FLOPs."""
    yield (
        f"  {'':25}{'GFLOPs':>7}{'params':>10}{'MiB':>6}{'latency':>8}{'step':>7}{'lr':>7}"
        f"{'seeds':>6}{'valid.':>8}{'raw':>8}" + f"{'- curve':>9}" * bool(curve) + "    test"
    )
    best = 0.0
    for row in sorted(rows, key=lambda row: row.gflops):
        score = row.validation.get(0, 0.0)
        mark, best = ("*" if score > best else " "), max(best, score)
        line = (
            f"{mark} {row.network:25}{row.gflops:7.2f}{row.params:10,}{row.memory / 2**20:6.0f}"
            f"{row.latency:8.2f}{row.step:7.2f}{row.rate:7g}{len(row.validation):6}"
            f"{mean(row.validation.values()):8.4f}{mean(row.raw.values()):8.4f}"
        )
        if curve:
            there = curve_at(curve, row.latency)
            line += f"{'':9}" if there is None else f"{score - there:+9.4f}"
        yield line + ("  closed" if not row.test.size else f"  {_interval(row)}")


def _interval(row: Standing) -> str:
    value, low, high = row.test_interval()
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _confirmed(records: Records) -> Iterator[str]:
    found = confirmatory(records)
    if isinstance(found, str):
        yield f"  not answered: {found}"
        return
    margin = records.decided("margin")
    assert margin is not None, "no test case is scored before the margin is set"
    for one in found:
        yield f"  {_line(one)}, p {one.p_holm:.4f}: {one.verdict(margin['margin'])}"
        yield (
            f"      memory {one.a.memory / 2**20:.0f} and {one.b.memory / 2**20:.0f} MiB, latency "
            f"{one.a.latency:.2f} and {one.b.latency:.2f}; from validation to test "
            f"{one.a.test_mean - mean(one.a.validation.values()):+.4f} and "
            f"{one.b.test_mean - mean(one.b.validation.values()):+.4f}"
        )
    yield "  The smallest third of the test persons, without p"
    yield from (f"  {_line(one)}" for one in in_smallest(records, found, smallest(records)))


def _line(one: Compared) -> str:
    value, low, high = one.interval
    return (
        f"{one.question:22}{one.a.network} - {one.b.network}: {value:+.4f} [{low:+.4f}, "
        f"{high:+.4f}], {len(one.a.test)} and {len(one.b.test)} seeds"
    )


def _explored(records: Records, space: Sequence[Standing]) -> Iterator[str]:
    if records.decided("selection") is None:
        yield "  closed until the selection is on record"
        return
    yield from (f"  {_line(one)}" for one in exploratory(records, {s.network: s for s in space}))


def _long(records: Records) -> Iterator[str]:
    found = tau_of_long(records)
    if found is None:
        yield "  fewer than three networks on record"
        return
    (tau, low, high), networks = found
    name = "the order holds" if tau >= 0.6 else "the front is a short-training front"
    yield f"  Kendall's tau of {networks} networks {tau:.2f} [{low:.2f}, {high:.2f}]: {name}"


def _again(records: Records) -> Iterator[str]:
    rows = records.again.rows
    if rows:
        moved = max(abs(float(row[f"{weights}_largest"])) for row in rows for weights in WEIGHTS)
        yield ""
        yield (
            f"{len(rows)} trainings were made again for their test cases; the largest difference "
            f"of a validation case's Dice from the first time is {moved:.5f}"
        )


def smallest(records: Records) -> list[int]:
    """Return the third of the test persons whose structures are the smallest."""
    volumes: dict[int, list[float]] = {}
    with (RESULTS / "volumes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            size = sum(float(value) for name, value in row.items() if name.endswith("_mm3"))
            volumes.setdefault(int(row["person"]), []).append(size)
    test = [person for person in records.protocol.tree["split"]["test"] if person in volumes]
    by_size = sorted(test, key=lambda person: mean(volumes[person]))
    return by_size[: len(by_size) // 3]


if __name__ == "__main__":
    main()
