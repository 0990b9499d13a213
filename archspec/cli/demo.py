"""The verb demo: the whole path on synthetic volumes, each step as the command a user types."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from archspec.cli.interrupts import same_command, stopped
from archspec.cli.options import MAX_COUNT, MAX_SEED, Jobs
from archspec.files import appending, check_folder, make_folder, write_text
from archspec.text import assignment, command_line

_MARKER = ".archspec-demo"
_DATASET = 901
_NAME = f"Dataset{_DATASET}_Reach"
_TRAINER = "nnUNetTrainer_5epochs"
_PLANS = "archspecDemo"
_PATIENCE = 30.0
"""Seconds that an ended step has to end its workers."""


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="The folder to work in.")] = Path("archspec-demo"),
    trials: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Trials of the search.")] = 8,
    cases: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Training cases.")] = 80,
    jobs: Jobs = 2,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of data, sampler and trainings.")
    ] = 0,
    search_only: Annotated[bool, typer.Option(help="Stop after the report.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier demo.")] = False,
) -> None:
    """Phantom, nnU-Net preprocessing, search, report, export, training, prediction, Dice."""
    with stopped(lambda: f"; {same_command('--force')} begins anew"):
        _demo(out, trials, cases, jobs, seed, search_only=search_only, force=force)


def _demo(
    out: Path, trials: int, cases: int, jobs: int, seed: int, *, search_only: bool, force: bool
) -> None:
    """Do each step, and show it."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = out.resolve()
    _prepare(out, force=force)
    steps = _Steps(out)
    raw, run, spec = out / "nnUNet_raw" / _NAME, out / "run", out / "best.yaml"
    steps.archspec(
        f"phantom @ --task reach --cases {cases} --test-cases 8 --seed {seed}",
        raw,
        title="1. Write a synthetic dataset in nnU-Net's raw format",
    )
    steps.nnunet(
        f"nnUNetv2_plan_and_preprocess -d {_DATASET} -c 3d_fullres -np 1 -npfp 1 "
        "--verify_dataset_integrity",
        title="2. Let nnU-Net plan and preprocess it",
    )
    steps.archspec(
        f"search demo --data {_DATASET} --trials {trials} --jobs {jobs} --seed {seed} "
        f"--device {device} --out @",
        run,
        title="3. Search for the front of Dice against FLOPs",
    )
    table = steps.archspec("report @", run, title="4. Report the front")
    if search_only:
        return
    steps.archspec("best @ -o @", run, spec, title="5. Take the best network of the front")
    steps.archspec(
        f"export @ --dataset {_DATASET} --plans-name {_PLANS} --recipe nnunet",
        spec,
        title="6. Export it into plans that stock nnU-Net reads",
    )
    steps.nnunet(
        f"nnUNetv2_train {_DATASET} 3d_fullres 0 -p {_PLANS} -tr {_TRAINER} -device {device}",
        title="7. Train it with stock nnU-Net (five epochs: short)",
    )
    predictions = out / "predictions"
    steps.nnunet(
        f"nnUNetv2_predict -i @ -o @ -d {_DATASET} -c 3d_fullres "
        f"-f 0 -p {_PLANS} -tr {_TRAINER} -device {device} -npp 0 -nps 0",
        raw / "imagesTs",
        predictions,
        title="8. Predict the test cases with stock nnU-Net",
    )
    dice = steps.archspec(
        "evaluate @ @ --json",
        predictions,
        raw / "labelsTs",
        title="9. Score the predictions against the test masks",
    )
    scored = json.loads(dice)["evaluations"][0]
    scores = {"mean": scored["mean"], **scored["per_class"]}
    _summary(out, table, {name: one["dice"] for name, one in scores.items()}, steps.seconds())


def _prepare(out: Path, *, force: bool) -> None:
    """Make the work folder; only a folder that an earlier demo made is ever removed."""
    from blocks.base import SpecError

    check_folder(out)
    if out.exists():
        ours = (out / _MARKER).is_file()
        if not ours and any(out.iterdir()):
            raise SpecError(f"{out}: exists and is not a demo's folder; give another --out")
        if ours and not force:
            raise SpecError(f"{out}: holds an earlier demo; replace it with --force")
        shutil.rmtree(out)
    make_folder(out)
    write_text(out / _MARKER, "")
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        make_folder(out / name)


class _Steps:
    """Run commands in an environment of their own, showing each before it runs.

    A command is words with blanks between, where each `@` is the next of the paths.
    """

    def __init__(self, out: Path) -> None:
        self.started = time.monotonic()
        self.log = out / "log.txt"
        folders = {
            name: str(out / name)
            for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        }
        # one process for nnU-Net: on a laptop its pools cost more than the work they share
        small = {
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": "1",
            "OMP_NUM_THREADS": "1",
            "nnUNet_compile": "f",
            # nnU-Net takes a thread per core; spinning ones stall each other on a busy machine
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONUNBUFFERED": "1",
        }
        self.environment = {**os.environ, **folders, **small}
        for name, value in folders.items():
            print(assignment(name, value))

    def archspec(self, arguments: str, *paths: Path, title: str) -> str:
        """Run a verb of ours, showing its output as it comes; return it."""
        words = _words(arguments, paths)
        command = [sys.executable, "-m", "archspec", *words]
        return self._run(command_line("archspec", *words), command, title, quiet=False)

    def nnunet(self, line: str, *paths: Path, title: str) -> str:
        """Run a stock nnU-Net command of this environment; its output goes to log.txt."""
        name, *arguments = _words(line, paths)
        command = [str(Path(sysconfig.get_path("scripts")) / name), *arguments]
        return self._run(command_line(name, *arguments), command, title, quiet=True)

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def _run(self, shown: str, command: list[str], title: str, *, quiet: bool) -> str:
        from blocks.base import SpecError

        print(f"\n{title}\n$ {shown}", flush=True)
        began, lines = time.monotonic(), []
        with appending(self.log) as log:
            log.write(f"\n$ {shown}\n")
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if quiet else None,
                text=True,
                process_group=0,  # it ends with all its children: nnU-Net's outlive it
            )
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    lines.append(line)
                    log.write(line)
                    if not quiet:
                        print(f"  {line}", end="", flush=True)
            except BaseException:
                _end(process)
                raise
        if process.wait() != 0:
            tail = "".join(lines[-15:]) if quiet else ""
            print(tail, end="", file=sys.stderr)
            raise SpecError(f"step failed with exit code {process.returncode}: {shown}; {self.log}")
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
        return "".join(lines)


def _words(line: str, paths: Sequence[Path]) -> list[str]:
    following = iter(paths)
    return [str(next(following)) if word == "@" else word for word in line.split()]


def _end(process: subprocess.Popen[str]) -> None:
    """End a step and its children: asked first, since a search of ours tells how to go on."""
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _summary(out: Path, table: str, dice: dict[str, float], seconds: float) -> None:
    """Print what came out, and where it lies."""
    front = "\n".join(line for line in table.splitlines() if not line.startswith("wrote"))
    print(f"\nDone in {seconds / 60:.1f} minutes. Synthetic data: shows the tool.\n")
    print(f"Pareto front (validation Dice against GFLOPs):\n{front}\n")
    print("Test Dice of the exported network, trained by stock nnU-Net for five epochs:")
    for name, score in dice.items():
        print(f"  {name:16}{score:.3f}")
    print(
        f"\nreport        {out / 'run' / 'report.html'}\n"
        f"picture       {out / 'run' / 'pareto.png'}\n"
        f"best spec     {out / 'best.yaml'}\n"
        f"predictions   {out / 'predictions'}\n"
        f"full log      {out / 'log.txt'}"
    )
