"""Every command in the run cards parses, and every network in them can be planned."""

import importlib.util
import re
import shlex
from importlib.metadata import distribution
from pathlib import Path

import pytest
from typer.main import get_group

from archspec.cli.main import app
from archspec.cli.specs import patch_sizes
from archspec.network.input_sizes import InputSizes
from archspec.network.resolve import resolve

CARDS = (Path(__file__).parents[1] / "docs" / "run-cards.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", CARDS, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
INLINE = [
    " ".join(found.split()) for found in re.findall(r"`((?:archspec|nnUNetv2_)[^`]* [^`]*)`", CARDS)
]
COMMANDS = [line for line in (*LINES, *INLINE) if line.startswith("archspec ")]
NNUNET = sorted(set(re.findall(r"nnUNetv2_\w+", CARDS)))


def test_cards_hold_commands() -> None:
    verbs = {shlex.split(line)[1] for line in COMMANDS}
    assert {"describe", "overfit", "export", "evaluate", "profile"} <= verbs
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("line", COMMANDS)
def test_command_parses(line: str) -> None:
    verb, *arguments = shlex.split(line)[1:]
    command = get_group(app).commands[verb]
    context = command.make_context(verb, list(arguments))
    given = context.params
    specs = given.get("specs") or [given[key] for key in ("spec",) if key in given]
    for spec in specs:
        sizes = InputSizes(patch_size=patch_sizes(given.get("patch")))
        planned = resolve(spec, sizes, overrides=given["overrides"] or ())
        assert planned.patch_size


@pytest.mark.parametrize("name", NNUNET)
def test_nnunet_has_the_command(name: str) -> None:
    scripts = {entry.name for entry in distribution("nnunetv2").entry_points}
    assert name in scripts


def test_modules_are_there() -> None:
    pytest.importorskip("nnunetv2")
    for name in re.findall(r"python -m ([\w.]+)", CARDS):
        assert importlib.util.find_spec(name) is not None
    assert importlib.util.find_spec("archspec.nnunet.trainers.nnUNetTrainerArchSpec") is not None
