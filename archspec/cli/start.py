"""What `archspec` alone and `archspec --help` print: the next step, and the verbs in groups."""

import os
import textwrap
from pathlib import Path
from typing import Any

import typer

from archspec.cli.completion import datasets, run_folders
from archspec.spec.yaml_file import compose, read_text
from archspec.text import command_line, table
from blocks.errors import SpecError

GROUPS = {
    "Everyday": (
        *("init", "list", "describe", "draw", "validate", "search", "status", "report", "best"),
        "export",
    ),
    "Networks": ("diff", "profile", "predict", "overfit", "from-plans", "schema", "fidelity"),
    "Evidence": ("confirm", "control", "ablate", "bench", "verdict", "evaluate"),
    "Weights": ("convert", "convert-model"),
    "Synthetic data, and this machine": ("demo", "phantom", "doctor"),
}
"""Verbs in the order of `archspec --help`; one that is not here stands in a last group."""
_OTHER = "More"
_WIDEST = 120


class Grouped(typer.core.TyperGroup):
    """The application, its help in groups with whole sentences."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section per group."""
        left = dict(self.commands)
        groups = {
            title: {name: left.pop(name) for name in names if name in left}
            for title, names in GROUPS.items()
        }
        for title, verbs in {**groups, _OTHER: left}.items():
            rows = [(name, _sentence(verb.help or "")) for name, verb in verbs.items()]
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(f"{name:13}", text) for name, text in rows])


SETTINGS = {"max_content_width": _WIDEST}


def _sentence(text: str) -> str:
    first = " ".join(text.partition("\n\n")[0].split())
    return first.partition(". ")[0].rstrip(".")


def start_page() -> str:
    """Return what archspec is, and the commands that come next where this is run."""
    rows = [(command_line("archspec", *words), why) for words, why in _next()]
    rows.append(("archspec --help", "all verbs"))
    about = (
        "archspec: declare, cost, search and train medical segmentation networks from one YAML file"
    )
    return "\n".join(
        [*textwrap.wrap(about, 80), "", *(f"  {line}" for line in table(rows, left=2))]
    )


def _next() -> list[tuple[tuple[object, ...], str]]:
    found: list[tuple[tuple[object, ...], str]] = []
    runs = [*run_folders(""), *run_folders(f"runs{os.sep}")]
    for run in [one for one in runs if not one.endswith(os.sep)][:1]:
        found += [(("status", run), "how this search stands"), (("report", run), "its front")]
    for file, is_space in _yaml_files()[:1]:
        verb, why = ("validate", "is it a space") if is_space else ("describe", "what it costs")
        found.append(((verb, file), why))
    for name in datasets("")[:1]:
        options = ("--data", name, "--budget", "20GFLOPs", "-o", "net.yaml")
        found.append((("init", *options), "a spec that fits the dataset"))
    if not found:
        found = [
            (("demo",), "all of it once, on synthetic data"),
            (("init",), "a spec to begin with, by questions"),
        ]
    return [*found, (("describe", "small-unet"), "what a bundled network is and costs")]


def _yaml_files() -> list[tuple[Path, bool]]:
    """Return the specs in this folder, and whether each is a search space."""
    found = []
    for path in sorted(Path().glob("*.yaml")):
        try:
            tree = compose(read_text(path), str(path)).tree
        except SpecError:
            continue
        if isinstance(tree, dict) and {"name", "patch_size"} <= tree.keys():
            found.append((path, "search" in tree))
    return found
