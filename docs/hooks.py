"""What mkdocs does beyond its own: README and CONTRIBUTING are pages, and files outside are named.

Two pages are made when the site is built: the command line by typer's own description, and the
public names of the packages with their docstrings. Pages are written to be read in the repository
too, so they link to scripts and specs beside `docs/`. The site has no such files, and a copy of it
may be read offline: there a link becomes its words with the path behind them.
"""

import importlib
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

_ROOT = Path(__file__).parents[1]
_COMMANDS, _NAMES = "cli.md", "api.md"
_OF_THE_ROOT = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
_LINK = re.compile(
    r"\[(?P<words>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)#:]+)(?P<anchor>#[^)]*)?\)"
)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page as the site shows it."""
    place = PurePosixPath(page.file.src_uri)
    if (name := _OF_THE_ROOT.get(str(place))) is not None:
        markdown = (_ROOT / name).read_text(encoding="utf-8")
        place = PurePosixPath("..", name)
    elif str(place) == _COMMANDS:
        return markdown + _commands()
    elif str(place) == _NAMES:
        return markdown + _names()

    def told(link: re.Match[str]) -> str:
        target = _inside(place.parent, link["target"])
        if target is None:
            path = _normal(place.parent, link["target"]).removeprefix("../")
            return link["words"] if path in link["words"] else f"{link['words']} (`{path}`)"
        return f"[{link['words']}]({target}{link['anchor'] or ''})"

    return _LINK.sub(told, markdown)


def _inside(folder: PurePosixPath, target: str) -> str | None:
    """Return the link as the page of this place needs it, None where it leads out of docs."""
    path = _normal(folder, target)
    if not path.startswith("../"):
        return target
    return path.removeprefix("../docs/") if path.startswith("../docs/") else None


def _normal(folder: PurePosixPath, target: str) -> str:
    parts: list[str] = []
    for part in (folder / target).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _commands() -> str:
    """Return every verb with its arguments and options, without typer's title and list of verbs."""
    command = ["-m", "typer", "archspec.cli.main", "utils", "docs", "--name", "archspec"]
    made = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    text = made.stdout.partition("\n")[2]
    return re.sub(r"\*\*Commands\*\*.*?(?=\n## )", "", text, flags=re.DOTALL)


def _names() -> str:
    """Return mkdocstrings' directive for every public name, one for names that share a place."""
    shown: dict[str, list[str]] = {}
    for package in ("archspec", "search"):
        module = importlib.import_module(package)
        for name in module.__all__:
            found = getattr(module, name)
            place = f"{found.__module__}.{found.__qualname__}"
            shown.setdefault(place, []).append(f"{package}.{name}")
    return "".join(
        f"\n::: {place}\n    options:\n      heading: {', '.join(names)}\n"
        for place, names in shown.items()
    )
