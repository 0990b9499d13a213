"""Files read in an environment that has what they are said to need, and nothing else of ours."""

import subprocess
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement

import archspec
from archspec.saved.onnx import write_onnx
from archspec.saved.pt2 import write_pt2
from archspec.saved.save import info_of

pytestmark = pytest.mark.long

CLEAN = """
import importlib.util, json, numpy as np
missing = {missing}
assert not [name for name in missing if importlib.util.find_spec(name)], missing
"""
ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession("net.onnx")
(found,) = session.run(["logits"], {"image": np.load("x.npy")})
info = json.loads(session.get_modelmeta().custom_metadata_map["archspec.json"])
"""
PT2 = """
import torch
extra = {"archspec.json": ""}
program = torch.export.load("net.pt2", extra_files=extra)
found = program.module()(torch.from_numpy(np.load("x.npy"))).detach().numpy()
info = json.loads(extra["archspec.json"])
"""
COMPARED = """
assert info["spec"]["name"] == "tiny"
want = np.load("y.npy")
assert found.shape == want.shape and abs(found - want).max() < 1e-5 * abs(want).max()
"""
WEIGHTS = """
from safetensors import safe_open
with safe_open("net.safetensors", framework="np") as opened:
    assert "name: tiny" in opened.metadata()["spec"].splitlines()
    found = {key: opened.get_tensor(key) for key in opened.keys()}
want = np.load("weights.npz")
assert found.keys() == set(want.files)
assert all(np.array_equal(found[key], want[key]) for key in found)
"""


def needed(*names: str) -> dict[str, Any]:
    """Return the installed distributions of these names, and those that they require."""
    found: dict[str, Any] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # of another platform, or another build of torch
            assert name not in names
            continue
        for line in found[name].requires or ():
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                waiting.append(one.name)
    return found


def environment(folder: Path, *names: str) -> Path:
    """Make one that has these distributions and what they require; return its Python.

    They are links to those of this environment: nothing is fetched.
    """
    builder = venv.EnvBuilder(with_pip=False, symlinks=True)
    builder.create(folder)
    (site,) = folder.glob("lib/*/site-packages")
    for one in needed(*names).values():
        tops = {Path(file).parts[0] for file in one.files or ()}
        for top in tops - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(one.locate_file(top)).resolve())
    return folder / "bin" / "python"


def network(kind: str) -> Any:
    tree = {
        "name": "tiny",
        "patch_size": [6, 7, 8],
        "encoder": {"stages": [{"width": 4, "mixer": {"kind": kind}}]},
        "decoder": {"kind": "sum"},
    }
    return archspec.build(tree, in_channels=2, num_classes=3).eval()


@pytest.mark.parametrize(
    ("target", "kind", "names", "script", "missing"),
    [
        ("onnx", "mamba", ["onnxruntime", "numpy"], ONNX + COMPARED, ["torch", "onnx"]),
        ("pt2", "conv", ["torch", "numpy"], PT2 + COMPARED, ["nnunetv2", "onnx"]),
        ("safetensors", "mamba", ["safetensors", "numpy"], WEIGHTS, ["torch", "onnx"]),
    ],
    ids=["onnx", "pt2", "safetensors"],
)
def test_a_fresh_environment_reads_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    kind: str,
    names: list[str],
    script: str,
    missing: list[str],
) -> None:
    monkeypatch.setenv("ARCHSPEC_SCAN", "reference")
    net, folder = network(kind), tmp_path / "files"
    folder.mkdir()
    x = torch.randn(3, 2, 6, 7, 8)
    with torch.no_grad():
        np.save(folder / "x.npy", x.numpy())
        np.save(folder / "y.npy", net(x).numpy())
    np.savez(folder / "weights.npz", **{k: v.numpy() for k, v in net.state_dict().items()})
    if target == "onnx":
        write_onnx(net, info_of(net), folder / "net.onnx")
    elif target == "pt2":
        write_pt2(net, info_of(net), folder / "net.pt2")
    else:
        archspec.save(net, folder / "net.safetensors")
    python = environment(tmp_path / "fresh", *names)
    absent = ["archspec", "blocks", "search", *missing]
    line = [str(python), "-I", "-c", CLEAN.format(missing=absent) + script]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
