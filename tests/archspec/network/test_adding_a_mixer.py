"""A new mixer is one file and one line of the union: nothing else knows it, and all works with it.

The packages are copied, window_attention.py is added to the copy, and added_mixer.py uses it there
in every way there is; then the tests over the unions run there.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def add_mixer(root: Path) -> None:
    """Copy the packages and the tests over unions to `root`, and add the mixer there."""
    for folder in ("archspec", "blocks", "search"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "specs", root / "archspec" / "specs")  # where the wheel has them
    shutil.copy(ROOT / "pyproject.toml", root)
    for name in ("conftest.py", "archspec/network/test_cross_product.py", "blocks/test_fields.py"):
        (root / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, root / "tests" / name)
    mixers = root / "blocks" / "mixers"
    shutil.copy(Path(__file__).with_name("window_attention.py"), mixers)
    union = mixers / "__init__.py"
    text, added = union.read_text(encoding="utf-8"), "WindowAttentionMixerSpec"
    line = f"\nfrom blocks.mixers.window_attention import {added}\n\n_Own = {added} | "
    text, edits = re.subn(r"\n_Own = ", line, text)
    assert edits == 1
    union.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the packages and one mixer more."""
    root = tmp_path_factory.mktemp("copy")
    add_mixer(root)
    return root


def run(copy: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout


def test_one_file_and_one_line_do_it(copy: Path, preprocessed: Path) -> None:
    shutil.copy(Path(__file__).with_name("added_mixer.py"), copy)
    run(copy, "added_mixer.py", str(preprocessed))


def test_tests_over_the_union_take_it(copy: Path) -> None:
    chosen = ("-m", "not long and not gpu", "-k", "window or refusals or every_pair")
    out = run(copy, "-m", "pytest", "-o", "addopts=--import-mode=importlib", *chosen)
    passed = re.search(r"(\d+) passed", out)
    assert passed is not None
    assert int(passed[1]) >= 12
