"""Paths with blanks, quotes and signs of every kind, and commands that can be pasted back."""

import io
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archspec.cli import demo
from archspec.cli.interrupts import same_command
from archspec.nnunet.commands import environment
from archspec.text import assignment, command_line

Cli = Callable[..., tuple[int, str, str]]
ODD = "a b'c\"d#\u00e4\u4e2d?{e}%20 &;$(x)*[!]~"
RELEASE = Path(__file__).parents[2] / "fixtures" / "releases" / "047295c"


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of an odd name, with a run and a dataset of an earlier release in it."""
    folder = tmp_path / ODD
    shutil.copytree(RELEASE / "finished", folder / "run")
    shutil.copytree(RELEASE / "preprocessed", folder / "preprocessed")
    monkeypatch.setenv("nnUNet_preprocessed", str(folder / "preprocessed"))
    return folder


def test_every_verb_takes_odd_paths(odd: Path, cli: Cli) -> None:
    (name,) = [path.name for path in (odd / "preprocessed").iterdir()]
    spec = odd / "best #1.yaml"
    for line in (
        ("best", odd / "run", "-o", spec),
        ("validate", spec),
        ("describe", spec),
        ("diff", spec, spec),
        ("report", odd / "run"),
        ("from-plans", name, "-o", odd / "plans'.yaml"),
        ("export", spec, "--dataset", name),
        ("ablate", spec, "--data", name, "--dry-run"),
        ("search", RELEASE / "space.yaml", "--data", name, "--dry-run", "--seconds-per-step", 1),
    ):
        code, _, err = cli(*line)
        assert (code, err) == (0, ""), line
    assert json.loads(cli("report", odd / "run", "--json")[1])["front"]
    assert {"report.html", "pareto.png"} <= {path.name for path in (odd / "run").iterdir()}
    assert not list(odd.rglob("*partial*"))


@pytest.mark.long
def test_cases_in_odd_paths_are_written_and_scored(odd: Path, cli: Cli) -> None:
    raw = odd / "Dataset950_X"
    assert cli("phantom", raw, "--cases", 5, "--test-cases", 1)[0] == 0
    labels = raw / "labelsTs"
    assert cli("evaluate", labels, labels, "--csv", odd / "scores.csv")[0] == 0
    assert (odd / "scores.csv").is_file()


def test_a_folder_with_a_line_break_stays_out_of_the_yaml(odd: Path, cli: Cli) -> None:
    run = odd / "a\nb: ["
    shutil.copytree(RELEASE / "finished", run)
    assert cli("best", run, "-o", odd / "best.yaml")[0] == 0
    assert cli("validate", odd / "best.yaml")[0] == 0


def test_the_demo_quotes_what_it_runs(odd: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    """Each line that it shows is the command that it runs, word by word."""
    ran: list[list[str]] = []

    class Process:
        stdout: Any
        returncode = 0

        def __init__(self, command: list[str], **_: object) -> None:
            ran.append(command)
            scores = {"mean": {"dice": 0.5}, "per_class": {}}
            self.stdout = io.StringIO(json.dumps({"evaluations": [scores]}))

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(demo.subprocess, "Popen", Process)
    code, out, err = cli("demo", "--out", odd / "demo", "--trials", 1)
    assert code == 0, err
    shown = [shlex.split(line[2:]) for line in out.splitlines() if line.startswith("$ ")]
    assert len(shown) == len(ran) == 9
    for words, command in zip(shown, ran, strict=True):
        assert words[1:] == command[-len(words) + 1 :]
        assert Path(command[0]).is_absolute()
    folders = [shlex.split(line) for line in out.splitlines() if line.startswith("export ")]
    assert folders[0] == ["export", f"nnUNet_raw={odd / 'demo' / 'nnUNet_raw'}"]


def test_commands_can_be_pasted_back(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["archspec", "report", str(odd), "", "--out=a b", "'", '"', "\n", "-s", "a=[1, 2]"]
    assert shlex.split(command_line(*words)) == words
    assert shlex.split(assignment("A", odd)) == ["export", f"A={odd}"]
    monkeypatch.setattr("sys.argv", words)
    assert shlex.split(same_command("--resume")) == ["archspec", *words[1:], "--resume"]
    monkeypatch.setenv("nnUNet_extTrainer", str(odd))
    (line,) = environment("spec")
    assert shlex.split(line)[1].endswith(f":{odd}")


def test_a_space_among_specs_names_the_command_for_it(cli: Cli) -> None:
    assert "try archspec validate demo, or archspec search" in cli("describe", "demo")[2]
