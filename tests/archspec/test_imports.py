"""The direction of imports, read from the text of every module, and what importing needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = [
    ("archspec.cli", "archspec.__main__"),
    ("search",),
    ("archspec",),
    (
        "blocks.mixers",
        "blocks.wrappers",
        "blocks.downsample",
        "blocks.local",
        "blocks.post",
        "blocks.skip",
        "blocks.ffn",
        "blocks.decoders",
    ),
    ("blocks.layers", "blocks.scan"),
    ("blocks.base", "blocks"),
]
"""Top to bottom: a module imports from its own layer and from those below."""

MODULES = sorted(
    path
    for folder in ("archspec", "blocks", "search")
    for path in (ROOT / folder).rglob("*.py")
    if "build" not in path.parts
)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer(name: str) -> int | None:
    """Return the layer with the longest prefix of the name, or None for foreign modules."""
    found = [
        (len(prefix), index)
        for index, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or name.startswith(f"{prefix}.")
    ]
    return max(found)[1] if found else None


def imported(path: Path) -> list[tuple[int, str]]:
    """Return (line, module) of every import, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            # `from blocks.scan import reference` imports the module blocks.scan.reference.
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    name = module_name(path)
    own = layer(name)
    assert own is not None, f"{name} is in no layer of DESIGN section 2"
    for line, target in imported(path):
        below = layer(target)
        assert below is None or below >= own, f"{path}:{line}: {name} imports {target}, above it"


@pytest.mark.parametrize("folder", ["archspec", "benchmarks", "blocks", "search", "tests"])
def test_files_have_at_most_300_lines(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


def test_base_stands_at_the_bottom() -> None:
    assert not [t for _, t in imported(ROOT / "blocks" / "base.py") if layer(t) is not None]


def test_package_imports_neither_cli_nor_search() -> None:
    targets = [target for _, target in imported(ROOT / "archspec" / "__init__.py")]
    assert not [t for t in targets if t.startswith(("archspec.cli", "search"))]


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
