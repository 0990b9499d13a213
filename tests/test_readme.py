"""What the README shows is true: its YAML, its Python, its outputs."""

import re
from collections.abc import Callable
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


def test_the_console_example_prints_what_it_shows(
    net: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(net.parent)
    example = block("console")
    commands = re.findall(r"^\$ archspec (.*)\n((?:(?!\$).*\n)*)", example, flags=re.MULTILINE)
    assert len(commands) == 5
    for arguments, shown in commands:
        _, out, err = cli(*arguments.split())
        assert out + err == shown


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("python"), "README.md", "exec"), {})
    assert "[2, 3, 32, 32, 32]" in capsys.readouterr().out


def test_the_yaml_has_about_20_lines() -> None:
    assert len(block("yaml").splitlines()) <= 24
