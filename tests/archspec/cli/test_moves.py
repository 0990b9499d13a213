"""What a terminal shows of trainings that run, and that a pipe shows none of it."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from archspec.cli.display import TrainingsDisplay
from archspec.cli.moves import MovingProgress
from search.retrain.retrain import Progress
from search.trials.moves import Move

LONG = "without the mixer of stage 2, seed 7"


def lines(
    width: int, seen: list[list[Move]], times: Iterator[float] | None = None
) -> tuple[list[str], str]:
    """Return the lines that are shown after these looks, and with them what stays at the end."""
    file = io.StringIO()
    clock = times or iter(range(100))
    console = Console(file=file, force_terminal=True, color_system=None, width=width)
    progress = MovingProgress("search", console, clock=lambda: next(clock))
    text = "time left: known after the first trial"
    progress.add_task("search", total=40, completed=3, text=text)
    for moves in seen:
        progress.move(moves)
    with console.capture() as shown:
        console.print(progress.get_renderable())
    progress.stop()
    with console.capture() as left:
        console.print(progress.get_renderable())
    return shown.get().splitlines(), left.get()


@pytest.mark.parametrize("width", [80, 120])
def test_a_line_for_each_training(width: int) -> None:
    first = [Move("trial 7", 0, 4000), Move(LONG, 3000, 4000), Move("trial 12", None, 4000)]
    then = [
        Move("trial 7", 1000, 4000, 0.4321, 0.7123),
        Move(LONG, 4000, 4000, -0.9876, 0.91),
        Move("trial 12", None, 4000),
    ]
    shown, left = lines(width, [first, then], iter([0.0, 100.0]))
    bar, seven, long, twelve = (line.rstrip() for line in shown)
    assert all(len(line) <= width for line in shown)
    assert " 3/40 " in bar and bar.endswith("time left: known after the first trial")
    told = re.sub(r"\s+", " ", seven.replace("\u2501", "").replace("\u2578", ""))
    assert told == "trial 7 step 1,000 of 4,000 loss 0.432 Dice 0.712 5.0 min left"
    assert long.endswith("scoring") and "loss -0.988" in long
    assert long.startswith("without the m") and twelve.endswith("starting")
    assert (LONG in long) == (width == 120) and ("\u2026" in long) == (width == 80)
    assert len(left.splitlines()) == 1, "lines of trainings do not stay"


def test_time_left_is_that_of_the_training_shown_now() -> None:
    """One of the same name begins anew, as the next fold of a bench or one that was lost does."""
    looks = [[Move("a", 10, 20)], [Move("a", 15, 20)], [], [Move("a", 2, 20)]]
    assert lines(80, looks[:2])[0][-1].rstrip().endswith("1 s left")
    assert "left" not in lines(80, looks)[0][-1]


def test_a_pipe_gets_lines_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with TrainingsDisplay() as display:
        display.show(Progress("", "2 of 2 trainings to do", 0, 2))
        display.move([Move("trial 3, seed 7", 10, 20, 0.5)])
        display.show(Progress("trial 3, seed 7", "step 20: Dice 0.500 [bold]", 1, 2))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "[0/2] 2 of 2 trainings to do\n[1/2] trial 3, seed 7: step 20: Dice 0.500 [bold]\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_ctrl_c_leaves_a_clean_terminal_and_a_pipe_its_own_lines() -> None:
    """Standard error is a terminal without colors here; what is printed meanwhile is piped."""
    code = [
        "import sys, threading, typer",
        "from types import SimpleNamespace as Of",
        "from archspec.cli.display import TrainingsDisplay",
        "from archspec.cli.interrupts import stopped",
        "try:",
        "    with stopped(lambda: '; go on with this'), TrainingsDisplay() as display:",
        "        display.show(Of(name='', text='2 of 2 trainings to do', done=0, total=2))",
        "        display.move([Of(name='trial 3', step=10, steps=20, loss=0.5, dice=None)])",
        "        print('result', flush=True)",
        "        threading.Event().wait()",
        "except typer.Exit as ended:",
        "    sys.exit(ended.exit_code)",
    ]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(code)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80"},
        # A test run in the background of a script may ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    shown = ""
    while "step 10 of 20" not in shown:
        shown += os.read(ours, 1000).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    while True:
        try:
            shown += os.read(ours, 1000).decode(errors="replace")
        except OSError:  # the other end is closed
            break
    out, _ = process.communicate()
    os.close(ours)
    assert process.returncode == 130 and out == b"result\n"
    hidden, visible = shown.index("\x1b[?25l"), shown.rindex("\x1b[?25h")
    assert hidden < visible, "the cursor is back"
    assert "[0/2] 2 of 2 trainings to do" in shown and "\x1b[3" not in shown
    last = shown[visible:]
    assert "stopped; go on with this" in last and "step 10" not in last
