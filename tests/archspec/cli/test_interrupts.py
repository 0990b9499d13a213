"""SIGTERM, SIGHUP and Ctrl-C end a verb in one line, with a command to paste back."""

import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer

from archspec.cli import demo
from archspec.cli.interrupts import SignalledError, signals_heard, stopped

Cli = Callable[..., tuple[int, str, str]]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """Let nothing be ignored here that whoever started the tests ignores, `nohup` say."""
    before = {number: signal.getsignal(number) for number in CODES}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_a_signal_tells_how_to_go_on(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, signals_heard(), stopped(lambda: "; go on with x"):
        send(number)
    assert ended.value.exit_code == code
    assert capsys.readouterr().err == "stopped; go on with x\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_does_not_cut_off_how_the_first_ends() -> None:
    cleaned = False
    with pytest.raises(SignalledError) as ended, signals_heard():
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGHUP)
            send(signal.SIGTERM)
            cleaned = True
    assert cleaned and ended.value.code == 143


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals_heard():
        send(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_another_verb_ends_without_a_word(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def hold(*_: Any, **__: Any) -> None:
        send(signal.SIGTERM)

    monkeypatch.setattr("archspec.cli.specs.list_specs", hold)
    assert cli("list") == (143, "", "")


def test_a_terminal_that_is_gone_is_not_written_to() -> None:
    """Closing a terminal hangs up; every write to it fails from then on."""
    code = [
        "import fcntl, termios",
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)",
        "import sys, time, typer",
        "from archspec.cli.display import SearchDisplay",
        "from archspec.cli.interrupts import signals_heard, stopped",
        "try:",
        "    with signals_heard(), stopped(lambda: '; go on'), SearchDisplay(3):",
        "        print('ready', flush=True)",
        "        while True: time.sleep(0.05)",
        "except typer.Exit as ended:",
        "    sys.exit(ended.exit_code)",
    ]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(code)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(ours, 1000)
    os.close(ours)
    assert process.wait(60) == 129


def test_the_demo_ends_its_step_and_all_children_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step here starts a child that would outlive it, and has the demo ended."""
    monkeypatch.setattr(sys, "argv", ["archspec", "demo", "--out", "a folder"])
    started = tmp_path / "child"
    step = [
        "import os, signal, subprocess, sys, time",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])",
        f"open({str(started)!r}, 'w').write(str(child.pid))",
        "os.kill(os.getppid(), signal.SIGTERM)",
        "time.sleep(1000)",
    ]

    def steps(*_: Any, **__: Any) -> None:
        command = [sys.executable, "-c", "\n".join(step)]
        demo._Steps(tmp_path)._run("a step", command, "1. Do something", quiet=False)

    monkeypatch.setattr(demo, "_demo", steps)
    with pytest.raises(typer.Exit) as ended, signals_heard():
        demo.demo()
    assert ended.value.exit_code == 143
    again = shlex.join(["archspec", "demo", "--out", "a folder", "--force"])
    assert capfd.readouterr().err == f"stopped; {again} begins anew\n"
    child = int(started.read_text(encoding="utf-8"))
    if psutil.pid_exists(child):
        psutil.Process(child).wait(30)
