"""Run what needs a GPU: tests, the scan's comparison, memory and step times.

    python benchmarks/gpu_suite.py --part tests-and-scan --out results --mamba-ssm-source DIR
    python benchmarks/gpu_suite.py --part memory-and-steps --out results

Each part fits in 10 minutes: every piece has a time limit, and one that fails does not lose the
others. The summary comes last; the exit status is 1 where a piece failed. Without --out, figures
go to $OUT, else to benchmarks/results.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
TESTS = ("tests/test_gpu.py", "tests/test_gpu_trials.py", "tests/blocks/scan/test_triton.py")
PART_SECONDS = 570
TESTS_SECONDS = 320
BUILD_SECONDS = 300
STEP_SECONDS = 100
PRECISIONS = ("fp32", "bf16")
PACKAGES = ("torch", "triton", "numpy", "numba", "timm", "pydantic")


class Clock:
    """What is left of a part's time."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def left(self, at_most: float = PART_SECONDS) -> float:
        return max(1.0, min(at_most, PART_SECONDS - (time.monotonic() - self.start)))


def environment() -> dict[str, str]:
    """Return the environment of a piece: this checkout first on the path."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "8"}


def run(command: list[str], seconds: float, log: Path) -> tuple[int | str, str]:
    """Run one piece; return its exit status or what went wrong, and all that it printed."""
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
            status: int | str = done.returncode
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        except OSError as error:
            status = repr(error)
    return status, log.read_text(encoding="utf-8", errors="replace")


def tests_and_scan(out: Path, source: Path | None) -> dict[str, Any]:
    """Test, and compare the scan with mamba-ssm's, which is built meanwhile."""
    clock = Clock()
    folder = Path(tempfile.gettempdir()) / "archspec-mamba-build"
    library = folder / "selective_scan_cuda.so"
    build, build_log = None, out / "mamba_build.log"
    if source is not None:
        command = [sys.executable, str(BENCHMARKS / "mamba_build.py")]
        command += ["--source", str(source), "--out", str(folder)]
        with build_log.open("w", encoding="utf-8") as file:
            build = subprocess.Popen(command, env=environment(), stdout=file, stderr=file)
    found: dict[str, Any] = {}
    pytest = [sys.executable, "-m", "pytest", "-m", "gpu", "-rfE", "--tb=short"]
    pytest += ["-p", "no:cacheprovider", *TESTS]
    status, text = run(pytest, clock.left(TESTS_SECONDS), out / "tests.log")
    found["tests"] = {"status": status, "last": text.strip().splitlines()[-12:]}
    found["mamba_build"] = "not asked for"
    if build is not None:
        try:
            # The scan's own figures take about 2 minutes.
            status = build.wait(max(1.0, min(BUILD_SECONDS, clock.left() - 150)))
        except subprocess.TimeoutExpired:
            build.terminate()
            status = "stopped: out of time"
        last = build_log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        found["mamba_build"] = {"status": status, "last": last}
    command = [sys.executable, str(BENCHMARKS / "scan_gpu.py"), "--out", str(out / "scan_gpu.json")]
    if library.is_file() and build is not None:
        command += ["--mamba-ssm-library", str(library)]
    status, text = run(command, clock.left(), out / "scan_gpu.log")
    found["scan"] = {"status": status, "last": text.strip().splitlines()[-8:]}
    return found


def memory_and_steps(out: Path) -> dict[str, Any]:
    """Measure a training step of every bundled spec at 1 x 4 x 128^3, float32 and AMP bfloat16."""
    clock = Clock()
    found: dict[str, Any] = {}
    for spec in sorted(path.stem for path in (ROOT / "specs").glob("*.yaml")):
        for precision in PRECISIONS:
            name = f"{spec} {precision}"
            command = [sys.executable, str(BENCHMARKS / "train_step.py")]
            command += ["--spec", spec, "--precision", precision]
            if clock.left() <= 1.0:
                found[name] = {"status": "not measured: out of time"}
                continue
            seconds = clock.left(STEP_SECONDS)
            status, text = run(command, seconds, out / f"step_{spec}_{precision}.log")
            lines = text.strip().splitlines()
            objects = [line for line in lines if line.startswith("{")]
            if status == 0 and objects:
                found[name] = {"status": status, **json.loads(objects[-1])}
            else:
                found[name] = {"status": status or "no figures", "last": lines[-4:]}
    return found


def machine() -> dict[str, Any]:
    """Say where and with what the figures were taken."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(),
        "device_mb": round(torch.cuda.get_device_properties(0).total_memory / 1e6),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": versions,
    }


def summarise(found: dict[str, Any]) -> list[str]:
    """Return one line per piece."""
    lines = []
    for name, piece in found.items():
        if not isinstance(piece, dict):
            lines.append(f"{name:28} {piece}")
        elif "median_ms" in piece:
            memory = f"{piece['peak_mb']:10.1f} MB peak"
            lines.append(f"{name:28} {piece['median_ms']:9.2f} ms a step {memory}")
        else:
            lines.append(f"{name:28} status {piece['status']}")
            lines += [f"    {line[:400]}" for line in piece.get("last", [])]
    return lines


def main() -> int:
    """Run one part; return 0 where every piece succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["tests-and-scan", "memory-and-steps"], required=True)
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", BENCHMARKS / "results"))
    parser.add_argument("--mamba-ssm-source", type=Path, help="an unpacked mamba-ssm, to compare")
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device: nothing was run or measured")
        return 1
    out = Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"part": arguments.part, "machine": machine()}
    if arguments.part == "tests-and-scan":
        source = arguments.mamba_ssm_source
        found = tests_and_scan(out, None if source is None else source.resolve())
    else:
        found = memory_and_steps(out)
    result["pieces"] = found
    file = out / f"gpu_suite_{arguments.part}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["machine"]))
    print("\n".join(summarise(found)))
    print(f"written: {file}")
    return int(any(isinstance(p, dict) and p["status"] != 0 for p in found.values()))


if __name__ == "__main__":
    sys.exit(main())
