"""Record the program of protocol.lock, going on from what is recorded.

    nnUNet_preprocessed=... python benchmarks/real/record.py --work DIR --commit

One process of one thread. SIGTERM ends it at the next step, SIGSTOP and SIGCONT pause it; killed,
it loses at most 75 steps. README.md beside this file says how the dataset is prepared.
"""

import argparse
import datetime
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from filelock import FileLock, Timeout
from protocol import (
    HERE,
    Protocol,
    best_rate,
    check_digests,
    choose_margin,
    next_rate,
    parts_of,
    person_of,
    pilot_sds,
    read_protocol,
)
from selection import measure, select
from tables import Table
from training import Reached, RecordedData, StoppedError, host, score, start, train

from archspec.costing import cost_plan
from archspec.hashing import trial_hash
from archspec.memory import training_memory
from archspec.nnunet_dataset import PreprocessedDataset, find_dataset
from archspec.planning import Plan
from blocks.base import SpecError
from search.cases import CaseScores

KEY = ("network", "seed", "lr", "steps")
_IDENTITY = ("lock", *KEY, "trial_hash")
_COSTS = ("flops", "params", "memory_bytes")
_TIMES = tuple(
    f"{what}_{kind}"
    for what in ("step", "batch", "case", "calibration")
    for kind in ("cpu", "wall")
)
WEIGHTS = ("ema", "raw")
DECISIONS = ("margin", "selection")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # glibc gives large tensors back to the system and asks for their pages again at every step,
    # which took 15 to 20 % of the CPU time of the U-Nets and none of small networks'
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "64000000",
}
"""What is read when a process starts; the recorder starts itself again with it."""


@dataclass(frozen=True)
class Job:
    """A training to record; `tested` says whether its test cases are scored at its end."""

    network: str
    seed: int
    lr: float
    steps: int
    rungs: tuple[int, ...]
    tested: bool

    @property
    def key(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in KEY}

    def __str__(self) -> str:
        return f"{self.network} lr {self.lr:g} seed {self.seed} steps {self.steps}"


class Records:
    """The tables of a protocol, and what was decided from them."""

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        self.protocol = protocol
        classes = [name.lower() for name in protocol.tree["dataset"]["classes"]]
        self.scores = tuple(
            "_".join([weights, *one])
            for weights in WEIGHTS
            for one in ((), *((c,) for c in classes))
        )
        rungs = (
            *_IDENTITY,
            "rung",
            *self.scores,
            "loss",
            *_COSTS,
            *_TIMES,
            "host",
            "torch",
            "date",
        )
        cases = (*_IDENTITY, "case", "person", *self.scores)
        self.rungs = Table(folder / "rungs.csv", rungs, protocol.digest)
        self.validation = Table(folder / "validation_cases.csv", cases, protocol.digest)
        self.test = Table(folder / "test_cases.csv", cases, protocol.digest)
        self._folder = folder

    @property
    def files(self) -> list[Path]:
        tables = [self.rungs.path, self.validation.path, self.test.path]
        every = [*tables, *(self._file(name) for name in DECISIONS)]
        return [path for path in every if path.is_file()]

    def decided(self, name: str) -> dict[str, Any] | None:
        """Return a decision, None where it has not been made.

        Raises:
            SpecError: it was made under another protocol.
        """
        file = self._file(name)
        if not file.is_file():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        check_digests([found["lock"]], self.protocol.digest, str(file))
        return found

    def decide(self, name: str, found: dict[str, Any]) -> None:
        """Write a decision down."""
        text = json.dumps({"lock": self.protocol.digest, **found}, indent=1) + "\n"
        partial = self._file(name).with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def is_done(self, job: Job) -> bool:
        """Say whether the last rung is on record, and the test where there is to be one."""
        last = self.rungs.matching(**job.key, rung=job.steps)
        if not last:
            return False
        diverged = math.isnan(float(last[0]["ema"]))
        return diverged or not job.tested or bool(self.test.matching(**job.key))

    def score(self, job: Job) -> float | None:
        """Return the primary metric at the last rung; None where it is not on record."""
        rows = self.rungs.matching(**job.key, rung=job.steps)
        return float(rows[0]["ema"]) if rows else None


def jobs(records: Records) -> Iterator[Job | str]:
    """Yield what is left of the program: trainings, and names of decisions.

    Each is yielded until it is on record.
    """
    for step in records.protocol.tree["program"]:
        if step["step"] == "rates":
            for network in step["networks"]:
                yield from _ladder(records, network)
            continue
        decision = {"margin": "margin", "selected": "selection"}.get(step["step"])
        while decision and records.decided(decision) is None:
            yield decision
        if step["step"] != "margin":
            yield from _left(records, step)


def _left(records: Records, step: dict[str, Any]) -> Iterator[Job]:
    for network in _networks(records, step):
        for seed in step["seeds"]:
            pilot = step.get("rate") == "pilot"
            lr = records.protocol.tree["rates"]["pilot"] if pilot else chosen_rate(records, network)
            job = make_job(records.protocol, network, seed, lr, tested=step.get("tested", False))
            if "steps" in step:
                job = replace(job, steps=step["steps"], rungs=tuple(step["rungs"]))
            while not records.is_done(job):
                yield job


def _networks(records: Records, step: dict[str, Any]) -> list[str]:
    """Return the networks of a step, those of the selection where that names them."""
    named: list[str] | str | None = step.get("networks")
    if named == "all":
        return records.protocol.networks
    if isinstance(named, list):
        return named
    selection = records.decided("selection")
    assert selection is not None, "the program selects before"
    chosen: list[str] = selection["long" if step["step"] == "long" else "networks"]
    return chosen


def _ladder(records: Records, network: str) -> Iterator[Job]:
    while (lr := next_rate(_tried(records, network), *_rule(records.protocol))) is not None:
        yield make_job(records.protocol, network, records.protocol.tree["rates"]["seed"], lr)


def chosen_rate(records: Records, network: str) -> float:
    """Return the network's rate: the lowest of the best rates of those it takes them from."""
    return min(
        best_rate(_tried(records, source)) for source in records.protocol.rate_sources(network)
    )


def _rule(protocol: Protocol) -> tuple[list[float], int]:
    rates = protocol.tree["rates"]
    return rates["first"], rates["most"]


def _tried(records: Records, network: str) -> dict[float, float]:
    """Return the scores of a network's rates, in the order in which the ladder asks for them."""
    first, most = _rule(records.protocol)
    tried: dict[float, float] = {}
    while (lr := next_rate(tried, first, most)) is not None:
        seed = records.protocol.tree["rates"]["seed"]
        found = records.score(make_job(records.protocol, network, seed, lr))
        if found is None:
            break
        tried[lr] = found
    return tried


def make_job(
    protocol: Protocol, network: str, seed: int, lr: float, *, tested: bool = False
) -> Job:
    """Return a training of the protocol's usual length."""
    training = protocol.tree["training"]
    return Job(network, seed, lr, training["steps"], tuple(training["rungs"]), tested)


def set_margin(records: Records, num_persons: int) -> None:
    """Write down the margin that the pilot's validation cases give.

    Raises:
        SpecError: a test case has been scored already.
    """
    if records.test.rows:
        raise SpecError(f"{records.test.path}: has rows, but the margin comes before any test case")
    step = next(s for s in records.protocol.tree["program"] if s["step"] == "pilot")
    lr = records.protocol.tree["rates"]["pilot"]
    scores = [
        [
            {row["case"]: float(row["ema"]) for row in records.validation.matching(**job.key)}
            for job in (make_job(records.protocol, name, seed, lr) for seed in step["seeds"])
        ]
        for name in step["networks"]
    ]
    person_sd, seed_sd = pilot_sds(scores)
    found = choose_margin(
        records.protocol.tree["margin"],
        person_sd=person_sd,
        seed_sd=seed_sd,
        persons=num_persons,
    )
    records.decide("margin", found)


def set_selection(records: Records) -> None:
    """Write down what the lock's rule selects; test cases are not looked at."""
    protocol = records.protocol
    found = {}
    for network in (*protocol.tree["selection"]["caps"], *protocol.networks):
        job = make_job(
            protocol, network, protocol.tree["rates"]["seed"], chosen_rate(records, network)
        )
        (last,) = records.rungs.matching(**job.key, rung=job.steps)
        found[network] = measure(last, records.rungs.matching(network=network))
    records.decide("selection", select(found, protocol))


class Recorder:
    """Trains what is left and writes it down."""

    def __init__(
        self, records: Records, data: RecordedData, work: Path, stopping: Callable[[], bool]
    ) -> None:
        self.records, self.data, self.work, self.stopping = records, data, work, stopping

    def record(self, job: Job) -> None:
        """Train, or go on, and write every rung and, where asked for, the test cases.

        Raises:
            StoppedError: the recorder is asked to stop.
        """
        protocol = self.records.protocol
        planned = protocol.plan(job.network, job.lr)
        identity = {"lock": protocol.digest, **job.key, "trial_hash": trial_hash(planned.spec)}
        constant = {**identity, **_costs(planned, protocol)}

        def report(reached: Reached) -> None:
            if reached.step == job.steps and not self.records.validation.matching(**job.key):
                self.records.validation.add(self._cases(identity, reached.raw, reached.ema))
            if not self.records.rungs.matching(**job.key, rung=reached.step):
                self.records.rungs.add([self._rung(constant, reached)])
            print(f"{_time()} {job}: {reached.step:5} Dice {_mean(reached.ema):.4f}", flush=True)

        folder = self.work / protocol.digest / f"{job.network}-{job.lr:g}-{job.seed}-{job.steps}"
        ema = protocol.tree["training"]["ema"]
        run = start(planned, folder, seed=job.seed, ema=ema)
        recorded = [int(row["rung"]) for row in self.records.rungs.matching(**job.key)]
        if any(rung <= run.done and rung not in recorded for rung in job.rungs):
            run.file.unlink()  # it is ahead of the tables, which were set back
            run = start(planned, folder, seed=job.seed, ema=ema)
        finite = train(
            run,
            planned,
            self.data,
            seed=job.seed,
            rungs=list(job.rungs),
            report=report,
            stopping=self.stopping,
        )
        if not finite:
            self.records.rungs.add([self._diverged(constant, job)])
        elif job.tested:
            if self.records.decided("margin") is None:
                raise SpecError(f"{job}: no test case is scored before the margin is set")
            raw, ema = (score(net, self.data, self.data.test_cases) for net in (run.net, run.ema))
            self.records.test.add(self._cases(identity, raw, ema))

    def _rung(self, constant: dict[str, Any], reached: Reached) -> dict[str, Any]:
        found: dict[str, Any] = {**constant, "rung": reached.step, "loss": round(reached.loss, 5)}
        for weights, cases in (("ema", reached.ema), ("raw", reached.raw)):
            found |= self._named(weights, {k: _mean(cases, k) for k in next(iter(cases.values()))})
        for name, (cpu, wall) in asdict(reached.seconds).items():
            found |= {f"{name}_cpu": round(cpu, 5), f"{name}_wall": round(wall, 5)}
        return found

    def _diverged(self, constant: dict[str, Any], job: Job) -> dict[str, Any]:
        return {
            **constant,
            "rung": job.steps,
            **dict.fromkeys((*self.records.scores, "loss", *_TIMES), math.nan),
        }

    def _cases(
        self, identity: dict[str, Any], raw: CaseScores, ema: CaseScores
    ) -> list[dict[str, Any]]:
        return [
            {
                **identity,
                "case": case,
                "person": person_of(case),
                **self._named("ema", ema[case]),
                **self._named("raw", raw[case]),
            }
            for case in raw
        ]

    def _named(self, weights: str, scores: dict[str, float]) -> dict[str, float]:
        """Return scores under their columns' names."""
        return {
            weights if name == "mean" else f"{weights}_{name.lower()}": round(value, 5)
            for name, value in scores.items()
        }


def _costs(planned: Plan, protocol: Protocol) -> dict[str, Any]:
    cost = cost_plan(planned)
    memory = training_memory(planned, batch=protocol.tree["training"]["batch_size"])
    return {
        "flops": cost.flops,
        "params": cost.params,
        "memory_bytes": memory.total,
        "host": host(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _mean(cases: CaseScores, name: str = "mean") -> float:
    return mean(value for scores in cases.values() if not math.isnan(value := scores[name]))


def open_data(protocol: Protocol) -> RecordedData:
    """Return the protocol's cases; nnU-Net's file of splits is written where it is another.

    Raises:
        SpecError: the dataset is not preprocessed, or not with the protocol's patch.
    """
    told = protocol.tree["dataset"]
    dataset = find_dataset(told["name"], configuration=told["configuration"])
    if list(dataset.patch_size) != told["patch_size"]:
        raise SpecError(
            f"{dataset.folder}: patch is {dataset.patch_size}, not that of the protocol"
        )
    split = protocol.tree["split"]
    cases = [path.stem for path in dataset.data_folder.glob("*.pkl")]
    parts = parts_of(split, cases, split["fold"])
    _write_splits(dataset, split, cases)
    data = RecordedData(
        dataset,
        fold=split["fold"],
        batch_size=protocol.tree["training"]["batch_size"],
        held_out=tuple(parts.test),
    )
    assert (data.train_cases, data.validation_cases) == (parts.train, parts.validation)
    return data


def _write_splits(dataset: PreprocessedDataset, split: dict[str, Any], cases: list[str]) -> None:
    folds = []
    for fold in range(len(split["folds"])):
        parts = parts_of(split, cases, fold)
        folds.append({"train": parts.train, "val": parts.validation})
    text = json.dumps(folds, indent=1)
    file = dataset.folder / "splits_final.json"
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def commit(records: Records, subject: str) -> None:
    """Commit the tables alone; a repository that refuses is told of and tried again later."""
    git = ["git", "-C", str(HERE)]
    names = [str(path) for path in records.files]
    body = f"Rows of benchmarks/real/record.py, lock {records.protocol.digest}."
    for command in (
        [*git, "add", "--", *names],
        [*git, "commit", "-q", "-m", subject, "-m", body, "--", *names],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"not committed: {done.stdout}{done.stderr}".strip(), flush=True)
            return


def _time() -> str:
    return datetime.datetime.now().strftime("%d %H:%M:%S")


def main() -> None:
    """Record until nothing is left, or somebody stops it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(tempfile.gettempdir()) / "archspec-real"
    parser.add_argument("--work", type=Path, default=default, help="checkpoints")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--commit", action="store_true", help="commit the tables as they grow")
    given = parser.parse_args()
    if not ENVIRONMENT.items() <= os.environ.items():
        os.environ.update(ENVIRONMENT)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    torch.set_num_threads(1)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    given.work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(given.work / "record.lock", timeout=0):
            _record(given, lambda: bool(asked))
    except Timeout:
        raise SystemExit(f"{given.work}: another recorder works there") from None
    except SpecError as error:
        raise SystemExit(f"error: {error}") from None


def _record(given: argparse.Namespace, stopping: Callable[[], bool]) -> None:
    protocol = read_protocol()
    records = Records(given.results, protocol)
    data = open_data(protocol)
    recorder = Recorder(records, data, given.work, stopping)
    print(f"{_time()} lock {protocol.digest}, {host()}", flush=True)
    for job in jobs(records):
        subject = f"real: decide the {job}"
        try:
            if isinstance(job, Job):
                subject = f"real: record {job.network}, rate {job.lr:g}, seed {job.seed}"
                recorder.record(job)
            elif job == "margin":
                set_margin(records, len({person_of(case) for case in data.test_cases}))
            else:
                set_selection(records)
        except StoppedError:
            print(f"{_time()} stopped", flush=True)
            return
        finally:
            if given.commit and records.files:
                commit(records, subject)


if __name__ == "__main__":
    main()
