"""Every command in the run cards parses, and every network in them can be planned."""

import importlib.util
import re
import shlex
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import pytest
from typer.main import get_group

from archspec.cli.main import app
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
PLANNED = {
    4: InputSizes(patch_size=(40, 56, 40), spacing=(1.0, 1.0, 1.0)),
    9: InputSizes(patch_size=(64, 192, 160), spacing=(1.6, 0.79, 0.79)),
    27: InputSizes(patch_size=(16, 256, 224), spacing=(5.0, 1.5625, 1.5625)),
}
"""What nnU-Net 2.8.1 plans for 3d_fullres of the datasets, spacing in mm."""


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
        assert given.get("patch") is None, "the dataset's patch serves"
        data = given.get("data") or given.get("dataset")
        sizes = InputSizes() if data is None else PLANNED[int(data)]
        sizes = replace(sizes, fit_stages=bool(given.get("stages_from_dataset")))
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
