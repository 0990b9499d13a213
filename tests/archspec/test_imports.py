"""The rooms and their order, read from the text of every module, and what importing needs."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LEVELS = [
    ("archspec.__main__",),
    ("archspec.cli",),
    ("archspec.inference",),
    ("archspec.sources",),
    ("archspec.api", "archspec.doctor", "archspec.testing"),
    ("search.verdict",),
    ("search.bench", "search.launch", "search.report"),
    ("search.retrain",),
    ("search.study",),
    ("search.space", "search.trials"),
    (
        "search.pareto",
        "archspec.overfit",
        "archspec.saved",
        "archspec.starter",
        "archspec.nnunet_trainers",
    ),
    ("archspec.nnunet", "archspec.papers", "archspec.drawing"),
    ("archspec.costs",),
    ("archspec.training", "archspec.network", "archspec.scoring", "archspec.phantom"),
    ("archspec.spec",),
    ("archspec.text", "archspec.files"),
    ("blocks.decoders", "blocks.encoders"),
    ("blocks.post",),
    ("blocks.mixers", "blocks.wrappers", "blocks.downsample", "blocks.local", "blocks.skip"),
    ("blocks.ffn",),
    ("blocks.layers",),
    ("blocks.scan",),
    ("blocks.registry",),
    ("blocks.base",),
    ("blocks.errors",),
]
"""Top to bottom: a file imports from its own room and from rooms on lower levels."""

FRONT_DOORS = {"archspec", "search", "blocks"}
"""They load what they name when it is asked for; `archspec/__init__` is looked at below."""


def modules(root: Path) -> dict[str, Path]:
    """Return every module of the packages by name."""
    files = [path for folder in FRONT_DOORS for path in (root / folder).rglob("*.py")]
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
        if "build" not in path.parts
    }


def room(name: str) -> tuple[int, str] | None:
    """Return the level and the room of a module, or None for one that is in none."""
    found = [
        (level, prefix)
        for level, prefixes in enumerate(LEVELS)
        for prefix in prefixes
        if name == prefix or name.startswith(f"{prefix}.")
    ]
    return found[0] if found else None


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            # `from blocks.scan import reference` imports the module blocks.scan.reference.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def arrows(root: Path) -> Iterator[tuple[str, int, str]]:
    """Yield (module, line, module it imports), within the packages."""
    known = modules(root)
    for name, path in known.items():
        for line, target in imported(path):
            parts = target.split(".")
            prefixes = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
            found = next((prefix for prefix in prefixes if prefix in known), None)
            if found is not None and found != name:
                yield name, line, found


def wrong_ways(root: Path) -> list[str]:
    """Return the imports that go up, or across to another room on the same level."""
    wrong = []
    for name, line, target in arrows(root):
        own, other = room(name), room(target)
        if name in FRONT_DOORS or own is None or other is None or own == other:
            continue
        if other[0] <= own[0]:
            wrong.append(f"{name}:{line} imports {target}: {other[1]} is not below {own[1]}")
    return wrong


def circles(root: Path) -> list[str]:
    """Return the modules that can be reached from themselves; front doors are not followed."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for name, _, target in arrows(root):
        if known[name].name != "__init__.py":
            graph.setdefault(name, set()).add(target)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph.get(start, ()))
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        return seen

    return sorted(name for name in graph if name in reached(name))


def test_every_file_is_in_a_room() -> None:
    strays = [name for name in modules(ROOT) if room(name) is None and name not in FRONT_DOORS]
    assert not strays


def test_imports_go_down() -> None:
    assert not wrong_ways(ROOT)


def test_no_circles() -> None:
    assert not circles(ROOT)


@pytest.mark.parametrize(
    ("file", "target", "expected"),
    [
        ("archspec/costs/flops.py", "archspec.nnunet.dataset", "archspec.nnunet is not below"),
        ("archspec/network/plan.py", "archspec.training.step", "archspec.training is not below"),
        ("blocks/base.py", "blocks.mixers.conv", "blocks.mixers is not below blocks.base"),
        ("search/space/space.py", "search.trials.train", "search.trials is not below"),
        ("archspec/spec/schema.py", "search.pareto", "search.pareto is not below archspec.spec"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, target: str, expected: str) -> None:
    for folder in FRONT_DOORS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    text = (tmp_path / file).read_text(encoding="utf-8")
    (tmp_path / file).write_text(f"{text}\n\nimport {target}\n", encoding="utf-8")
    (found,) = wrong_ways(tmp_path)
    assert expected in found


def test_a_circle_is_found(tmp_path: Path) -> None:
    for folder in FRONT_DOORS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    file = tmp_path / "archspec" / "costs" / "trace.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}\n\nimport archspec.costs.memory\n", encoding="utf-8")
    assert circles(tmp_path) == ["archspec.costs.memory", "archspec.costs.trace"]


@pytest.mark.parametrize("folder", ["archspec", "benchmarks", "blocks", "search", "tests"])
def test_files_have_at_most_400_lines(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_base_and_errors_stand_at_the_bottom() -> None:
    bottom = {name: target for name, _, target in arrows(ROOT) if name.startswith("blocks.base")}
    assert bottom == {"blocks.base": "blocks.errors"}
    assert not [target for name, _, target in arrows(ROOT) if name == "blocks.errors"]


def test_package_names_of_search_only_what_loads_a_space() -> None:
    targets = [target for _, target in imported(ROOT / "archspec" / "__init__.py")]
    above = [t for t in targets if t.startswith(("archspec.cli", "search"))]
    assert above == ["search.space.space.load_space"]


BUILD_WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ImportError(f"{name} is hidden by the test")

HIDDEN = set("nnunetv2 optuna matplotlib monai batchgenerators SimpleITK nibabel scipy".split())
sys.meta_path.insert(0, Refuse())
import archspec
net = archspec.build("mamba-unet", in_channels=1, num_classes=3)
assert sum(p.numel() for p in net.parameters()) == archspec.cost("mamba-unet", num_classes=3).params
assert archspec.load("mamba-unet") and archspec.list_specs()
assert not HIDDEN & {name.partition(".")[0] for name in sys.modules}
assert not [name for name in sys.modules if name.startswith(("search.", "archspec.cli"))]
"""


def test_building_needs_torch_and_yaml_only(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILD_WITHOUT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
