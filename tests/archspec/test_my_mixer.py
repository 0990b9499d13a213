"""The plug-in of examples/my_mixer, installed as a wheel, is found wherever specs are read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archspec.nnunet.network import ArchSpecNet
from blocks.base import SpecError

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_mixer"


def test_an_installed_mixer_is_used_like_ours(my_mixer: Path, preprocessed: Path) -> None:
    script = Path(__file__).with_name("use_my_mixer.py")
    done = subprocess.run(
        [sys.executable, str(script), str(preprocessed), str(EXAMPLE)],
        env={**os.environ, "PYTHONPATH": str(my_mixer)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def test_plans_of_a_package_that_is_missing_say_so() -> None:
    with pytest.raises(SpecError, match=r"archspec-my-mixer 0\.1\.0, which is not installed; pip"):
        ArchSpecNet(
            1,
            2,
            spec={},
            patch_size=[8],
            strides=[],
            schema_version=1,
            packages={"archspec-my-mixer": "0.1.0"},
        )
