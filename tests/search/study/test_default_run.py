"""A search on one machine needs neither Ray nor a server, and leaves what it always left."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from archspec.spec.yaml_file import dump

SEARCH = """
import runpy, sys
from pathlib import Path
fakes = runpy.run_path(sys.argv[1])
fakes["run_fake"](Path(sys.argv[2]), Path(sys.argv[3]), 2, fakes["FakePool"]())
print(sorted({"ray", "psycopg", "psycopg2"} & set(sys.modules)))
"""


def test_the_default_imports_nothing_of_a_cluster(
    tmp_path: Path, space_tree: dict[str, Any]
) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "run"
    space.write_text(dump(space_tree), encoding="utf-8")
    script = Path(__file__).parents[1] / "fake_search.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SEARCH, str(script), str(space), str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "[]"
    left = {path.name for path in out.iterdir()} - {"run.lock"}
    assert left == {"run.json", "sessions.jsonl", "space.yaml", "study.db", "trials"}
    assert "storage" not in json.loads((out / "run.json").read_text(encoding="utf-8"))
