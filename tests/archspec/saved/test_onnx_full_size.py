"""Networks of papers as ONNX at their own sizes, scans over up to 262,144 tokens."""

from pathlib import Path

import pytest
import torch

import archspec
from archspec.saved.onnx import write_onnx
from archspec.saved.save import info_of
from tests.archspec.saved.targets import LOGITS, difference, example, run


@pytest.mark.long
@pytest.mark.parametrize("name", ["segmaformer", "segresmamba"])
def test_logits_at_full_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = archspec.build(name).eval()
    assert net.planned.patch_size == (128, 128, 128)
    file = tmp_path / "net.onnx"
    with torch.no_grad():
        x, _ = example(net)
        write_onnx(net, info_of(net), file)
        assert difference(run(file, x), net(x)) <= LOGITS
