"""The verb init: by options, by questions, and what it refuses."""

import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archspec.cli import init
from archspec.spec.load import load

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def next_words(out: str) -> list[str]:
    """Return the words of the command that comes next."""
    (line,) = (line for line in out.splitlines() if line.startswith("next: archspec "))
    return shlex.split(line.removeprefix("next: archspec "))


def test_for_a_dataset(cli: Cli, preprocessed: Path) -> None:
    options = ("--data", 901, "--budget", "200MFLOPs", "--gpu-memory", "1GB", "--mixer", "mamba")
    code, out, err = cli("init", *options, "-o", "my net.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("wrote my net.yaml: 0.")
    spec = load("my net.yaml")
    assert (spec.name, spec.num_classes, list(spec.patch_size)) == ("my-net", 3, [16, 16, 16])
    text = Path("my net.yaml").read_text(encoding="utf-8")
    told = " ".join(text.replace("\n# ", " ").split())
    assert f"Written by archspec init {' '.join(map(str, options[:2]))}" in told
    assert cli("validate", "my net.yaml", "--data", 901)[0] == 0
    assert cli(*next_words(out))[0] == 0, "an export"


def test_a_space_for_a_dataset(cli: Cli, preprocessed: Path) -> None:
    code, out, _ = cli("init", "--data", 901, "--budget", "1G", "--space", "-o", "s.yaml")
    assert code == 0
    assert next_words(out)[:4] == ["search", "s.yaml", "--data", "901"]
    code, shown, _ = cli("validate", "s.yaml", "--data", 901)
    assert code == 0 and "every member is a network at [16, 16, 16]" in shown


def test_without_a_dataset(cli: Cli) -> None:
    sizes = ("--dimensions", 2, "--in-channels", 3, "--num-classes", 4)
    code, out, _ = cli("init", "--budget", "2G", *sizes, "-o", "net.yaml")
    assert code == 0
    spec = load("net.yaml")
    assert (list(spec.patch_size), spec.in_channels, spec.num_classes) == ([256, 256], 3, 4)
    assert cli(*next_words(out))[0] == 0


def test_nothing_is_written_over(cli: Cli, refused: Refused) -> None:
    line = ("init", "--budget", "1G", "--patch", "16,16,16", "-o", "net.yaml")
    assert cli(*line)[0] == 0
    Path("net.yaml").write_text("mine", encoding="utf-8")
    assert "net.yaml: exists already" in refused(line)
    assert Path("net.yaml").read_text(encoding="utf-8") == "mine"
    assert cli(*line, "--force")[0] == 0
    assert refused(("init", "--budget", "1k", "-o", "net.yaml", "--force")).startswith(
        "archspec: --budget 1k: must be FLOPs"
    )
    assert load("net.yaml").name == "net"
    assert [path.name for path in Path().iterdir()] == ["net.yaml"]


REFUSED = {
    "all": ((), "init: --budget or --gpu-memory and --out missing; in a terminal"),
    "no file": (("--budget", "1G"), "init: --out missing"),
    "no budget": (("-o", "x.yaml"), "init: --budget or --gpu-memory missing"),
    "too little": (("--budget", "1M", "-o", "x.yaml"), "than --budget allows; allow more, or give"),
    "no mixer": (("--budget", "1G", "--mixer", "mambda", "-o", "x.yaml"), "did you mean 'mamba'?"),
    "two mixers": (
        ("--budget", "1G", "--mixer", "tom", "--mixer", "conv", "-o", "x.yaml"),
        "several go with --space",
    ),
    "a word for a patch": (("--budget", "1G", "--patch", "exact", "-o", "x.yaml"), "--patch exact"),
    "no folder": (("--budget", "1G", "-o", "no/x.yaml"), "the folder no does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, refused: Refused) -> None:
    options, said = REFUSED[case]
    assert said in refused(("init", *options))
    assert not list(Path().iterdir())


@pytest.fixture
def answering(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Return a function that runs init in a terminal, with answers: (exit code, stdout)."""

    def run(answers: list[str], *options: object) -> tuple[int, str]:
        monkeypatch.setattr(init, "_is_terminal", lambda: True)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{one}\n" for one in answers)))
        code, out, _ = cli("init", *options)
        assert sys.stdin.read() == "", "an answer to no question"
        return code, out

    return run


def test_a_terminal_asks(answering: Callable[..., tuple[int, str]], preprocessed: Path) -> None:
    code, out = answering(["999", "901", "tom", "lots", "200MFLOPs", ""])
    assert code == 0
    assert "999 is not in" in out and "such as 20GFLOPs" in out, "and these are asked again"
    spec = load("net.yaml")
    assert list(spec.patch_size) == [16, 16, 16] and spec.encoder.stages[-1].mixer.kind == "tom"


def test_a_terminal_asks_for_a_patch_where_there_is_no_dataset(
    answering: Callable[..., tuple[int, str]],
) -> None:
    assert answering(["", "32,32", "", "100M", "1GB"], "--space")[0] == 0
    assert "patch_size: [32, 32]" in Path("space.yaml").read_text(encoding="utf-8")


def test_what_is_given_is_not_asked_for(answering: Callable[..., tuple[int, str]]) -> None:
    assert answering([], "--budget", "1G", "--patch", "16,16", "-o", "net.yaml")[0] == 0
