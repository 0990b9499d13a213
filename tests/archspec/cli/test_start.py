"""`archspec` alone, its help in groups, and what a shell completes."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console

from archspec.cli.display import SearchDisplay
from archspec.cli.main import app
from archspec.cli.start import GROUPS
from archspec.spec.bundled import bundled_names
from archspec.spec.load import load

Cli = Callable[..., tuple[int, str, str]]
RUNS = Path(__file__).parents[2] / "fixtures" / "releases"


def verbs() -> dict[str, str]:
    """Return every verb with its help."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {name: command.help or "" for name, command in group.commands.items()}


def test_every_verb_has_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert verbs().keys() <= set(grouped)


@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_whole_sentences(columns: int, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = cli("--help")
    assert code == 0 and "..." not in out.partition("Everyday")[2]
    assert out.index("Everyday") < out.index("Networks") < out.index("Evidence")
    words = " ".join(out.split())
    for text in verbs().values():
        assert " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") in words
    widest = max(map(len, out.splitlines()))
    assert widest <= columns and (widest > 80) is (columns > 80)
    code, out, _ = cli("describe", "--help")
    assert max(map(len, out.splitlines())) <= columns


def test_alone_it_says_what_comes_next(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli()
    assert (code, err) == (0, "") and "archspec demo" in out and "archspec init " in out
    assert max(map(len, out.splitlines())) <= 80
    (tmp_path / "broken.yaml").write_text("[", encoding="utf-8")
    (tmp_path / "net.yaml").write_text("name: net\npatch_size: [8, 8]\n", encoding="utf-8")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "Dataset901_Blobs").mkdir()
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    out = cli()[1]
    for line in ("status runs/one", "describe net.yaml", "init --data Dataset901_Blobs"):
        assert f"archspec {line}" in out
    assert "demo" not in out


@pytest.fixture
def completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], list[str]]:
    """Return a function that completes the last word of a line, as bash asks for it."""

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_ARCHSPEC_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"archspec {line}")
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" "))))
        with pytest.raises(SystemExit):
            app(prog_name="archspec")
        return capsys.readouterr().out.split()

    return complete


def test_specs_and_spaces(completed: Callable[[str], list[str]], tmp_path: Path) -> None:
    assert completed("describe umamba") == ["umamba-bot", "umamba-enc"]
    assert completed("search ")[: len(bundled_names("search"))] == bundled_names("search")
    assert "demo" in completed("validate d")
    (tmp_path / "net.yaml").touch()
    (tmp_path / "nets").mkdir()
    (tmp_path / "net.txt").touch()
    assert completed(f"describe {tmp_path}/ne") == [
        f"{tmp_path}/net.yaml",
        f"{tmp_path}/nets{os.sep}",
    ]
    assert completed(f"describe {tmp_path}/no/such") == []


def test_fields_of_the_spec_that_stands_before(completed: Callable[[str], list[str]]) -> None:
    assert completed("describe small-unet -s encoder.stages.3.wi") == ["encoder.stages.3.width="]
    assert "encoder.stages.2.mixer.d_state=" in completed("describe mamba-unet -s encoder.stages.2")
    assert completed("describe mamba-unet -s encoder.stages.0.mixer.d_") == [], "a convolution"
    assert completed("search demo -s search.limits.g") == ["search.limits.gflops="]
    assert completed("describe no-such -s enc") == []
    for path in completed("describe segmaformer -s training."):
        name = path.removeprefix("training.").removesuffix("=")
        assert name in load("segmaformer").tree()["training"]


def test_runs_and_datasets(
    completed: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (release,) = (path for path in RUNS.iterdir() if path.is_dir())
    assert completed(f"report {RUNS}/") == [f"{release}{os.sep}"]
    assert completed(f"status {release}/f") == [f"{release}/finished"]
    assert completed("init --data D") == []
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    (tmp_path / "Dataset901_Blobs").mkdir()
    assert completed("init --data D") == ["Dataset901_Blobs"]


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_heeded(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress

    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    monkeypatch.setattr(
        "archspec.cli.display.Console", lambda: Console(file=shown, force_terminal=True, width=80)
    )
    with SearchDisplay(3) as display:
        display.progress.update(display.bar, completed=1)
        assert isinstance(display.progress, Progress)
    assert ("\x1b[38;5;" in shown.getvalue() or "\x1b[3" in shown.getvalue()) is not no_color
