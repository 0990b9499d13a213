"""Run in short stages what only a GPU can show; `benchmarks/GPU.md` says how.

    python benchmarks/gpu_suite.py --stage 1 --out results

1: the Triton kernels' tests, and the scan's times where these pass. 2: the other GPU tests, and
training steps of three networks. 3: counters of the profiler, and the memory checker. 4: mamba-ssm
built (again where the time was too short), and compared. 5: training steps of all bundled specs;
another call goes on. Each stage writes `gpu_N.json` after every piece, and adds to `gpu_suite.log`.
The tree need not be installed. Without --out, files go to $OUT, else to benchmarks/results. The
exit status is 1 where a piece failed.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
KERNEL_TESTS = "tests/blocks/scan/test_triton.py"
OTHER_TESTS = ("tests/test_gpu.py", "tests/test_gpu_trials.py")
SECONDS = {1: 240, 2: 200, 3: 150, 4: 240, 5: 240}
STEPS = (("segmamba-released", "bf16"), ("segmamba-released", "fp32"), ("unet", "bf16"))
PACKAGES = ("torch", "triton", "numpy", "numba", "timm", "pydantic", "mamba-ssm")
COUNTERS = (
    "sm__inst_issued.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
    "dram__bytes.sum",
    "gpu__time_duration.sum",
)
LAST_LINES = 40
DONE = 0


class Stage:
    """The pieces of one stage: what they said, in a file from the first one on."""

    def __init__(self, number: int, seconds: float, out: Path, *, rehearse: bool) -> None:
        self.end = time.monotonic() + seconds
        self.file = out / f"gpu_{number}.json"
        self.log = out / "gpu_suite.log"
        self.rehearse = rehearse
        self.pieces: dict[str, Any] = {}
        self.result: dict[str, Any] = {"stage": number, "pieces": self.pieces}

    def left(self, at_most: float = float("inf")) -> float:
        return min(at_most, self.end - time.monotonic())

    def write(self) -> None:
        """Write all that is known; whole or not at all, since the machine may go at any time."""
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        part.replace(self.file)

    def piece(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Make one piece; whatever it raises is its status, and loses nothing else."""
        start = time.monotonic()
        try:
            found = make() if self.left() > 1 else {"status": "not run: out of time"}
        except Exception as error:
            found = {"status": f"failed: {error!r}"}
        found["seconds"] = round(time.monotonic() - start, 1)
        self.pieces[name] = found
        self.write()
        print(summary(name, found), flush=True)
        return found

    def run(
        self, name: str, command: list[str], at_most: float = float("inf"), **variables: str
    ) -> dict[str, Any]:
        """Run a command as a piece: its exit status, or why it has none, and its last lines."""

        def make() -> dict[str, Any]:
            seconds = self.left(at_most)
            status, text = run(command, seconds, environment(rehearse=self.rehearse) | variables)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"\n== {name}: {' '.join(command)}\n{text}")
            lines = text.strip().splitlines()
            found = {"status": status, "last": [line[:300] for line in lines[-LAST_LINES:]]}
            objects = [line for line in lines if line.startswith('{"')]
            if status == DONE and objects:
                found |= {"last": [], "figures": [json.loads(line) for line in objects]}
            return found

        return self.piece(name, make)


def environment(*, rehearse: bool) -> dict[str, str]:
    """Return the environment of a piece: this tree first on the path."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    if rehearse:
        return found | {"TRITON_INTERPRET": "1", "ARCHSPEC_SCAN": "kscan", "OMP_NUM_THREADS": "1"}
    return found | {"OMP_NUM_THREADS": "8"}


def run(command: list[str], seconds: float, variables: dict[str, str]) -> tuple[int | str, str]:
    """Run a command, and end all that it started when it ends or its time is up."""
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | str = process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        with contextlib.suppress(ProcessLookupError):  # nothing may be left of it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        file.seek(0)
        return status, file.read().decode("utf-8", errors="replace")


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]


def pytest(*files: str, rehearse: bool) -> list[str]:
    """Return the command for the GPU tests of files; in a rehearsal, one of the CPU's instead."""
    command = [sys.executable, "-m", "pytest", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
    if rehearse:
        # no GPU test may be lost to an import: they are collected, and skipped
        command += ["-m", "gpu or not long", "-k", "OnGpu or gpu or test_cpu or width or conv"]
    else:
        command += ["-m", "gpu"]
        if importlib.util.find_spec("xdist") is not None:
            command += ["-n", "8"]  # most of the time is compiling
    return [*command, *files]


def kernels(stage: Stage) -> None:
    """Stage 1: a time is taken only of kernels that are right."""
    command = pytest(KERNEL_TESTS, rehearse=stage.rehearse)
    if stage.run("kernel tests", command, 0.6 * stage.left())["status"] != DONE:
        stage.piece("scan", lambda: {"status": "not run: the kernels' tests failed"})
        return
    rehearse = ["--rehearse"] if stage.rehearse else []
    stage.run("scan", python("scan_gpu.py", *rehearse))


def networks(stage: Stage) -> None:
    """Stage 2."""
    stage.run("other tests", pytest(*OTHER_TESTS, rehearse=stage.rehearse), 0.5 * stage.left())
    for spec, precision in STEPS:
        step(stage, spec, precision)


def step(stage: Stage, spec: str, precision: str) -> None:
    command = python("train_step.py", "--spec", spec, "--precision", precision)
    if stage.rehearse:
        command += ["--device", "cpu", "--patch-size", "32", "--channels", "1", "--steps", "1"]
    stage.run(f"{spec} {precision}", command, 100)


def tools(stage: Stage) -> None:
    """Stage 3: one scan at 64^3 under the profiler, and one of 130 tokens under the checker."""
    scan = ["--rehearse"] if stage.rehearse else []
    counters = ["--metrics", ",".join(COUNTERS), "--csv", "--kernel-name", "regex:scan|ends|conv"]
    for name, tool, options, more in (
        ("profiler", "ncu", counters, ["--once", "64"]),
        ("memory checker", "compute-sanitizer", ["--tool", "memcheck"], ["--once", "0"]),
    ):
        found = shutil.which(tool)
        if found is None and not stage.rehearse:
            stage.piece(name, lambda tool=tool: {"status": f"not run: no {tool} on this machine"})  # type: ignore[misc]
            continue
        prefix = [] if found is None or stage.rehearse else [found, *options]
        command = [*prefix, *python("scan_gpu.py", *more, *scan)]
        stage.run(name, command, 0.6 * stage.left(), PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def comparison(stage: Stage, source: Path | None) -> None:
    """Stage 4: what is compiled is kept, so that another call goes on with the rest."""
    folder = ROOT / "build" / "mamba-ssm"
    library = folder / "selective_scan_cuda.so"
    is_installed = importlib.util.find_spec("mamba_ssm") is not None
    if source is not None and not library.is_file():
        stage.run("mamba-ssm", python("mamba_build.py", "--source", source, "--out", folder))
    if not (library.is_file() or is_installed):
        stage.piece("comparison", lambda: {"status": "not run: no mamba-ssm; --mamba-ssm-source?"})
        return
    built = ["--mamba-ssm-library", library] if library.is_file() else []
    stage.run("comparison", python("scan_gpu.py", *built))
    if is_installed:
        command = python("train_step.py", "--spec", STEPS[0][0], "--precision", STEPS[0][1])
        stage.run("step with mamba-ssm", command, 100, ARCHSPEC_SCAN="mamba_ssm")


def all_specs(stage: Stage) -> None:
    """Stage 5: float32 and bfloat16; what an earlier call measured stays."""
    try:
        kept = json.loads(stage.file.read_text(encoding="utf-8"))["pieces"]
    except (OSError, ValueError, KeyError):
        kept = {}
    stage.pieces |= {name: piece for name, piece in kept.items() if piece["status"] == DONE}
    specs = sorted(path.stem for path in (ROOT / "specs").glob("*.yaml"))
    for spec in specs[:1] if stage.rehearse else specs:
        for precision in ("bf16", "fp32"):
            if f"{spec} {precision}" not in stage.pieces:
                step(stage, spec, precision)


def machine() -> dict[str, Any]:
    """Say where and with what the figures are taken."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    found = {
        "status": DONE,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": versions,
        "tools": {tool: shutil.which(tool) is not None for tool in ("nvcc", "ncu")},
    }
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "capability": [properties.major, properties.minor],
            "processors": properties.multi_processor_count,
            "device_mb": round(properties.total_memory / 1e6),
            "cuda": torch.version.cuda,
        }
    return found


def summary(name: str, piece: dict[str, Any]) -> str:
    """Return what to read of a piece at once."""
    lines = [f"{name:28} status {piece['status']}, {piece['seconds']} s"]
    lines += [f"    {json.dumps(figures)[:600]}" for figures in piece.get("figures", [])]
    lines += [f"    {line}" for line in piece.get("last", [])[-8:]]
    return "\n".join(lines)


def main() -> int:
    """Run one stage; return 0 where every piece of it succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", type=int, choices=SECONDS, required=True)
    parser.add_argument("--seconds", type=float, help="for all of it; the default is at most 240")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", BENCHMARKS / "results"))
    parser.add_argument("--mamba-ssm-source", type=Path, help="an unpacked mamba-ssm, for stage 4")
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny sizes on the CPU, kernels interpreted"
    )
    arguments = parser.parse_args()
    out = Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    seconds = arguments.seconds or SECONDS[arguments.stage]
    stage = Stage(arguments.stage, seconds, out, rehearse=arguments.rehearse)
    found = stage.piece("machine", machine)
    if "device" not in found and not stage.rehearse:
        print("no CUDA device: nothing was run or measured")
        return 1
    source = arguments.mamba_ssm_source
    stages: dict[int, Callable[[], None]] = {
        1: lambda: kernels(stage),
        2: lambda: networks(stage),
        3: lambda: tools(stage),
        4: lambda: comparison(stage, None if source is None else source.resolve()),
        5: lambda: all_specs(stage),
    }
    stages[arguments.stage]()
    print(f"written: {stage.file}")
    return int(any(piece["status"] != DONE for piece in stage.pieces.values()))


if __name__ == "__main__":
    sys.exit(main())
