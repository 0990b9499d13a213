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
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from filelock import FileLock, Timeout
from program import TIMES, WEIGHTS, Job, Records, jobs, set_margin, set_selection
from protocol import HERE, Protocol, parts_of, person_of, read_protocol
from training import Reached, RecordedData, StoppedError, host, score, start, train

from archspec.costs.flops import cost_plan
from archspec.costs.memory import training_memory
from archspec.network.plan import Plan
from archspec.nnunet.dataset import PreprocessedDataset, find_dataset
from archspec.spec.hashing import trial_hash
from blocks.base import SpecError
from search.trials.cases import CaseScores

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # glibc gives large tensors back to the system and asks for their pages again at every step,
    # which took 15 to 20 % of the CPU time of the U-Nets and none of small networks'
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "64000000",
}
"""What is read when a process starts; the recorder starts itself again with it."""


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
            if reached.step == job.steps:
                cases = self._cases(identity, reached.raw, reached.ema)
                if recorded_cases := self.records.validation.matching(**job.key):
                    moved = _moved(recorded_cases, cases)
                    self.records.again.add([{**identity, **moved, **_run()}])
                else:
                    self.records.validation.add(cases)
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
            **dict.fromkeys((*self.records.scores, "loss", *TIMES), math.nan),
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
        **_run(),
    }


def _run() -> dict[str, Any]:
    return {
        "host": host(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _moved(recorded: list[dict[str, str]], again: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how far the Dice of a repeated training's cases is from the recorded ones."""
    found: dict[str, Any] = {}
    old = {row["case"]: row for row in recorded}
    for weights in WEIGHTS:
        moved = [row[weights] - float(old[row["case"]][weights]) for row in again]
        found[f"{weights}_mean"] = round(mean(moved), 5)
        found[f"{weights}_largest"] = round(max(map(abs, moved)), 5)
    return found


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
    parser.add_argument("--only", nargs="+", default=[], help="leave out all other networks")
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
    for job in jobs(records, given.only):
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
