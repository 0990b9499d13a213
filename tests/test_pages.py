"""README and docs: links lead somewhere, commands parse, YAML loads, figures say their script."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group

from archspec.cli.main import app
from archspec.spec.load import load
from archspec.spec.yaml_file import dump, parse
from search.space.space import load_space

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
MADE = {"index.md", "contributing.md", "api.md", "cli.md"}
"""Pages that the site's hooks fill."""
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_FIGURE = re.compile(r"\d\.\d")
_SOURCE = re.compile(
    r"benchmarks/[\w/]+\.py|\barchspec (?:fidelity|describe|diff|bench)|\bmake \w+|tests/\w+|arXiv"
    r"|[Ff]igures are examples"
)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", _text(page), flags=re.DOTALL)


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)```", _text(page), flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """Return what a link may name: titles of a page, lines of another text, as GitHub shows it."""
    if page.suffix != ".md":
        return {f"L{number}" for number, _ in enumerate(_text(page).splitlines(), start=1)}
    titles = re.findall(r"^#+ (.*)$", _prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _commands(page: Path) -> list[str]:
    lines = [
        line.removeprefix("$ ")
        for block in (*_blocks(page, "bash"), *_blocks(page, "console"))
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line.startswith("archspec ")]


COMMANDS = sorted({line for page in PAGES for line in _commands(page)})
TREES = [
    (page.name, block) for page in PAGES for block in _blocks(page, "yaml") if "\n- " not in block
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_prose(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found), target


def test_the_readme_can_be_read_in_two_minutes() -> None:
    assert len(_text(ROOT / "README.md").splitlines()) <= 130


def test_the_site_shows_every_page() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", _text(ROOT / "mkdocs.yml"), flags=re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


@pytest.fixture
def readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with the files that the pages' commands name."""
    monkeypatch.chdir(tmp_path)
    net = _blocks(ROOT / "README.md", "yaml")[0]
    space = (ROOT / "specs" / "search" / "demo.yaml").read_text(encoding="utf-8")
    for name, text in (("my-net", net), ("best", net), ("my-space", space)):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("readers_folder")
@pytest.mark.parametrize("line", [line for line in COMMANDS if "mambba" not in line])
def test_every_command_parses(line: str) -> None:
    verb, *arguments = shlex.split(line, comments=True)[1:]
    assert get_group(app).commands[verb].make_context(verb, arguments).params


@pytest.mark.parametrize(("page", "written"), TREES)
def test_every_tree_loads(page: str, written: str, tmp_path: Path) -> None:
    tree: dict[str, Any] = parse(written, page).tree
    if "search" in tree:
        space = (ROOT / "specs" / "search" / "demo.yaml").read_text(encoding="utf-8")
        (tmp_path / "space.yaml").write_text(dump(parse(space, "").tree | tree), encoding="utf-8")
        load_space(tmp_path / "space.yaml")
        return
    sizes = {"in_channels": 3, "patch_size": [64, 64, 64] if "network" in tree else [64, 64]}
    whole = load("small-unet").tree() | sizes | tree
    if "network" in tree:
        del whole["encoder"], whole["decoder"]
    if "timm" in tree.get("encoder", {}):
        whole["decoder"] = {"kind": "mlp"}
    load(whole)


@pytest.mark.parametrize("page", [one for one in PAGES if one.name not in MADE])
def test_figures_say_what_makes_them(page: Path) -> None:
    if "![" in _text(page):
        assert _SOURCE.search(_text(page))
    for section in re.split(r"^## ", _text(page), flags=re.MULTILINE):
        rows = [line for line in section.splitlines() if line.startswith("|")]
        if any(_FIGURE.search(re.sub(r"`[^`]*`", "", row)) for row in rows):
            assert _SOURCE.search(section), section[:80]
