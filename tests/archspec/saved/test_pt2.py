"""Programs of torch.export: equal logits for any batch, and what they need."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import archspec
from archspec.saved.pt2 import EXTRA, Exported, write_pt2
from archspec.saved.save import info_of
from blocks.base import SpecError

SCANS = ("archspec::causal_conv1d", "archspec::selective_scan")
SMALL = {2: (64, 64), 3: (32, 32, 32)}

ALONE = """
import sys
for name in ("archspec", "blocks", "search"):
    sys.modules[name] = None
import torch
saved = torch.load("pair.pt", weights_only=True)
found = torch.export.load("net.pt2").module()(saved["x"])
print((found - saved["y"]).abs().max().item())
"""


@pytest.fixture(autouse=True)
def _readable_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSPEC_SCAN", "reference")  # numba would compile for ten seconds


def network(kind: str) -> Any:
    stage = {"width": 4, "downsample": {"stride": 2}, "mixer": {"kind": kind}}
    tree = {
        "name": "tiny",
        "patch_size": [6, 7, 8],
        "encoder": {"stages": [stage]},
        "decoder": {"kind": "sum"},
    }
    return archspec.build(tree, in_channels=2, num_classes=3)


def exported(net: Any, file: Path) -> Exported:
    return write_pt2(net, info_of(net), file)


def difference(net: Any, file: Path, batch: int) -> float:
    """Return by how much the program's logits differ, relative to the largest."""
    x = torch.randn(batch, net.planned.in_channels, *net.planned.patch_size)
    with torch.no_grad():
        want, found = net.eval()(x), torch.export.load(file).module()(x)
    assert found.shape == want.shape
    return float((found - want).abs().max() / want.abs().max())


@pytest.mark.parametrize(("kind", "operators"), [("conv", ()), ("mamba", SCANS)])
def test_a_program_gives_the_networks_logits(
    tmp_path: Path, kind: str, operators: tuple[str, ...]
) -> None:
    net, file = network(kind).train(), tmp_path / "net.pt2"
    net.decoder.deep_supervision = True
    found = exported(net, file)
    assert net.training and net.decoder.deep_supervision and found.operators == operators
    net.decoder.deep_supervision = False
    assert ("import blocks.mixers before" in found.needs) == bool(operators)
    for batch in (1, 3):
        assert difference(net, file, batch) < 1e-6
    extra = {EXTRA: ""}
    torch.export.load(file, extra_files=extra)
    assert json.loads(extra[EXTRA]) == info_of(net).to_json()
    assert str(Path(archspec.__file__).parent).encode() not in file.read_bytes()


def test_targets_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, file = network("conv"), tmp_path / "net.pt2"

    def refused(path: Path) -> str:
        with pytest.raises(SpecError) as caught:
            exported(net, path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "must end in .pt2" in refused(tmp_path / "net.onnx")
    assert "does not exist" in refused(tmp_path / "no" / "net.pt2")
    file.write_text("mine")
    assert f"{file}: exists" in refused(file)
    assert file.read_text() == "mine"
    other = tmp_path / "other.pt2"
    monkeypatch.setattr(net, "forward", lambda x: x.numpy())
    assert "torch.export does not take it" in refused(other)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["net.pt2"]


def test_the_verb_says_what_is_needed(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    source, out = tmp_path / "net.safetensors", tmp_path / "net.pt2"
    net = network("mamba")
    archspec.save(net, source)
    code, said, err = cli("convert-model", source, "--to", "pt2", "-o", out)
    assert code == 0, err
    assert "it calls archspec::causal_conv1d" in said and max(map(len, said.splitlines()[1:])) <= 80
    assert difference(net, out, 2) < 1e-6
    code, said, err = cli("convert-model", source, "--to", "pt2", "-o", out)
    assert (code, said) == (2, "") and "exists" in err and err.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("name", archspec.list_specs())
def test_every_bundled_spec_at_a_small_size(tmp_path: Path, name: str) -> None:
    ndim = len(archspec.load(name).patch_size)
    net, file = archspec.build(name, patch_size=SMALL[ndim]), tmp_path / "net.pt2"
    found = exported(net, file)
    assert set(found.operators) <= set(SCANS)
    assert difference(net, file, 1) < 1e-5


@pytest.mark.long
def test_a_program_without_a_scan_needs_torch_alone(tmp_path: Path) -> None:
    net = network("conv").eval()
    exported(net, tmp_path / "net.pt2")
    x = torch.randn(3, 2, 6, 7, 8)
    with torch.no_grad():
        torch.save({"x": x, "y": net(x)}, tmp_path / "pair.pt")
    line = [sys.executable, "-c", ALONE]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-6


@pytest.mark.long
def test_a_program_with_a_scan_loads_as_it_is_told(tmp_path: Path) -> None:
    exported(network("mamba"), tmp_path / "net.pt2")
    file = str(tmp_path / "net.pt2")
    script = f"import blocks.mixers, torch; torch.export.load({file!r})"
    root = Path(archspec.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
