"""What the README shows is true: its YAML, its Python, its outputs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "my-net.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    return path


def test_the_console_example_prints_what_it_shows(net: Path) -> None:
    example = block("console")
    commands = re.findall(r"^\$ archspec (.*)\n((?:(?!\$).*\n)*)", example, flags=re.MULTILINE)
    assert len(commands) == 2
    for arguments, shown in commands:
        done = subprocess.run(
            [sys.executable, "-m", "archspec", *arguments.split()],
            cwd=net.parent,
            capture_output=True,
            text=True,
        )
        assert done.stdout + done.stderr == shown


def test_the_python_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "GFLOPs at 64^3" in done.stdout


def test_the_yaml_has_about_20_lines() -> None:
    assert len(block("yaml").splitlines()) <= 24
