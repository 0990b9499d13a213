"""The names at the packages' front doors: listed alike, and called as docs/python.md calls them."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
import torch

import archspec
import search
from archspec.network.published import KeyTable, key_table, renamed

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"
DOORS = (archspec, search)


def names_for_type_checkers(door: ModuleType) -> dict[str, str]:
    """Return what is imported under TYPE_CHECKING: name -> module."""
    tree = ast.parse(Path(str(door.__file__)).read_text(encoding="utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: str(node.module)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_names_are_listed_alike(door: ModuleType) -> None:
    assert names_for_type_checkers(door) == door._HOMES
    assert door.__all__ == sorted(door._HOMES)
    assert set(door.__all__) <= set(dir(door))
    with pytest.raises(AttributeError, match=f"'{door.__name__}' has no attribute 'nosuch'"):
        door.nosuch  # noqa: B018


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_no_file_has_the_name_of_a_public_one(door: ModuleType) -> None:
    taken = {path.stem for path in Path(str(door.__file__)).parent.iterdir()}
    assert not taken & set(door.__all__)


@pytest.mark.parametrize(
    ("door", "name"), [(door, name) for door in DOORS for name in door.__all__]
)
def test_public_functions_are_documented(door: ModuleType, name: str) -> None:
    found = getattr(door, name)
    assert inspect.getdoc(found)
    if not inspect.isfunction(found):
        return
    page = PAGE.read_text(encoding="utf-8")
    assert re.search(rf"^(>>>|\.\.\.) .*\b{door.__name__}\.{name}\(", page, re.MULTILINE)


def published(ours: str, table: KeyTable) -> str:
    """Return a published key that the table renames to ours."""
    for pattern, template in table.keys.items():
        parts = re.fullmatch(re.sub(r"\\\\(\d)", r"(?P<g\1>.+?)", re.escape(template)), ours)
        if parts is not None:
            values = iter(parts.groups())
            key = re.sub(r"\([^()]*\)", lambda _, found=values: next(found), pattern)  # type: ignore
            if renamed(key.replace("\\.", "."), table) == ours:
                return key.replace("\\.", ".")
    raise AssertionError(ours)


@pytest.fixture
def workplace(preprocessed: Path, tmp_path: Path, hollow_case: Callable[[Path], None]) -> Path:
    """Return a folder with what the page works on: a dataset, masks, a published checkpoint."""
    for case in range(5):
        hollow_case(preprocessed / "nnUNetPlans_3d_fullres" / f"case_{case}")
    folder = preprocessed.parents[1]
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 2:6] = 1
    for part, mask in (("labelsTs", labels), ("predictions", np.roll(labels, 1, axis=0))):
        (folder / part).mkdir()
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), folder / part / "case_5.nii.gz")
    description = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    state, table = archspec.build("segformer3d").state_dict(), key_table("segformer3d")
    weights = {published(key, table): value for key, value in state.items()}
    torch.save(weights, folder / "segformer3d.pth")
    return folder


def test_every_public_name_works_twice_with_every_module_imported(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = Path(__file__).with_name("run_page.py")
    pool = ROOT / "tests" / "search" / "fake_search.py"
    rounds = tmp_path_factory.mktemp("rounds")
    line = [sys.executable, script, PAGE, workplace, rounds, pool]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
