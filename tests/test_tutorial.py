"""The tutorial's blocks, in their order, in one folder: each has to end well."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
ONE_PROCESS = {
    "OMP_NUM_THREADS": "1",
    "nnUNet_n_proc_DA": "1",
    "nnUNet_def_n_proc": "1",
    "nnUNet_compile": "f",
}


@pytest.mark.long
def test_the_tutorial_leads_to_masks(tmp_path: Path) -> None:
    blocks = re.findall(r"```(bash|python)\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = ["set -euo pipefail"]
    for language, code in blocks:
        lines.append(code if language == "bash" else f"python - <<'PYTHON'\n{code}PYTHON")
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), sysconfig.get_path("scripts"), os.environ["PATH"]]
    )
    ended = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, **ONE_PROCESS, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 2
