"""ONNX files: equal logits in onnxruntime for any batch, scans in every order, what is refused."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

import archspec
from archspec.saved.onnx import OPSET, write_onnx
from archspec.saved.pt2 import EXTRA
from archspec.saved.save import info_of
from blocks.base import SpecError
from tests.archspec.saved.targets import LABELS, difference, run


@pytest.fixture(autouse=True)
def _readable_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSPEC_SCAN", "reference")  # numba would compile for ten seconds


def network(patch: tuple[int, ...], **mixer: Any) -> Any:
    stage = {"width": 4, "downsample": {"stride": 2}, "mixer": mixer}
    tree = {
        "name": "tiny",
        "patch_size": list(patch),
        "encoder": {"stages": [stage]},
        "decoder": {"kind": "sum"},
    }
    torch.manual_seed(0)
    return archspec.build(tree, in_channels=2, num_classes=3)


def images(net: Any, batch: int) -> torch.Tensor:
    return torch.randn(batch, net.planned.in_channels, *net.planned.patch_size)


def off(net: Any, file: Path, batch: int) -> float:
    x = images(net, batch)
    with torch.no_grad():
        return difference(run(file, x), net.eval()(x))


ALL_ORDERS = ["dhw", "hwd", "dwh", "-whd", "hdw", "-wdh"]
"""Every way to read three axes, some of them from the last token."""


def case(name: str, patch: tuple[int, ...], *marks: pytest.MarkDecorator, **mixing: Any) -> Any:
    return pytest.param(patch, mixing, id=name, marks=marks)


@pytest.mark.parametrize(
    ("patch", "mixing"),
    [
        case("orders", (5, 9, 6), kind="mamba", d_state=3, orders=["dwh", "-whd"]),
        case("all orders", (5, 9, 6), pytest.mark.long, kind="mamba", orders=ALL_ORDERS),
        case("conv", (6, 7, 8), pytest.mark.long, kind="conv"),
        case("tom", (8, 6), pytest.mark.long, kind="tom", d_state=3),
        case("reduced", (8, 8), pytest.mark.long, kind="mamba", d_conv=1, reduction=2),
    ],
)
def test_a_file_gives_the_networks_logits(
    tmp_path: Path, patch: tuple[int, ...], mixing: dict[str, Any]
) -> None:
    net, file = network(patch, **mixing).train(), tmp_path / "net.onnx"
    net.decoder.deep_supervision = True
    written = write_onnx(net, info_of(net), file)
    assert net.training and net.decoder.deep_supervision
    net.decoder.deep_supervision = False
    assert f"(opset {OPSET})" in written.needs
    for batch in (1, 3):
        assert off(net, file, batch) < 1e-6


def test_what_a_file_holds(tmp_path: Path) -> None:
    net, file = network((4, 6), kind="mamba"), tmp_path / "net.onnx"
    info = info_of(net, spacing=(1.0, 2.0), labels={"background": 0, "a": 1, "b": 2})
    write_onnx(net, info, file)
    model = onnx.load(file)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert {one.key: json.loads(one.value) for one in model.metadata_props} == {
        EXTRA: info.to_json()
    }
    sizes = [
        [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in (*model.graph.input, *model.graph.output)
    ]
    assert sizes == [["batch", 2, 4, 6], ["batch", 3, 4, 6]]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Scan") == 1 and all(not node.domain for node in model.graph.node)
    # the decays of one token at a time: of all tokens they would be the largest tensor by far
    (scan,) = (node for node in model.graph.node if node.op_type == "Scan")
    (body,) = (one.g for one in scan.attribute if one.name == "body")
    assert "Exp" in [node.op_type for node in body.node]
    for folder in (Path(archspec.__file__).parent, Path(torch.__file__).parent):
        assert str(folder).encode() not in file.read_bytes()
    found = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert list(found) == [EXTRA]


def trained(net: Any) -> Any:
    """Teach the network which of its two channels is larger, or none: labels without ties."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(40):
        x = images(net, 2)
        logits = net(x)
        loss = torch.nn.functional.cross_entropy(logits, wanted(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def wanted(x: torch.Tensor) -> torch.Tensor:
    return (x.abs().amax(1) > 1) * (1 + x.argmax(1))


@pytest.mark.long
def test_half(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    net = trained(network((8, 6, 8), kind="mamba"))
    archspec.save(net, tmp_path / "net.safetensors")
    line = ("--to", "onnx", "--half", "-o", tmp_path / "net.onnx")
    code, said, err = cli("convert-model", tmp_path / "net.safetensors", *line)
    assert (code, err) == (0, "") and "weights in float16" in said
    x = images(net, 8)
    with torch.no_grad():
        want, found = net(x), run(tmp_path / "net.onnx", x)
    assert found.dtype == torch.float32 and 1e-5 < difference(found, want) < 1e-2
    assert len(want.argmax(1).unique()) == 3
    assert (found.argmax(1) == want.argmax(1)).float().mean() >= LABELS
    weights = onnx.load(tmp_path / "net.onnx").graph.initializer
    kinds = {one.data_type for one in weights if len(one.dims) > 1}
    assert onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds


def refused(do: Callable[[], object]) -> str:
    with pytest.raises(SpecError) as caught:
        do()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, file = network((4, 6), kind="conv"), tmp_path / "net.onnx"
    info = info_of(net)

    def written(path: Path) -> str:
        return refused(lambda: write_onnx(net, info, path))

    assert "must end in .onnx" in written(tmp_path / "net.pt2")
    assert "does not exist" in written(tmp_path / "no" / "net.onnx")
    file.write_text("mine")
    assert written(file) == f"{file}: exists; give another name, or `force` to replace it"
    other = tmp_path / "other.onnx"
    with monkeypatch.context() as patched:
        patched.setattr("archspec.saved.onnx._LARGEST", 10)
        assert "an ONNX file holds 2" in written(other)
    with monkeypatch.context() as patched:
        patched.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
        assert written(other) == "tiny: torch.onnx does not take it: division by zero"
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        assert written(other) == (
            f'{other}: writing ONNX needs the package onnx; pip install "archspec-seg[onnx]"'
        )
    assert file.read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["net.onnx"]


def test_the_verb(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    source, out = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    net = network((4, 6), kind="conv")
    archspec.save(net, source)

    def convert(*options: object) -> tuple[int, str, str]:
        return cli("convert-model", source, "-o", out, *options)

    code, said, err = convert("--to", "onnx")
    assert (code, err) == (0, "")
    assert "onnxruntime runs it without archspec" in said
    assert off(net, out, 2) < 1e-6
    whole = out.read_bytes()
    for options, words in {
        ("--to", "onnx"): f"{out}: exists; give another name, or --force to replace it",
        ("--to", "onyx"): "--to onyx: not a target; allowed: safetensors, onnx, pt2; did you mean",
        ("--to", "pt2", "--half"): "--half is for onnx, but the target is pt2",
    }.items():
        code, said, err = convert(*options)
        assert (code, said, err.count("\n")) == (2, "", 1) and words in err
    assert out.read_bytes() == whole
