"""The op and the reference against SegMamba's own scan; data: tests/golden/segmamba/README.md."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan import reference
from blocks.scan.op import selective_scan

FILE = Path(__file__).parents[2] / "golden" / "segmamba" / "selective_scan.npz"
TOLERANCES = {
    "f64": {"rtol": 1e-10, "atol": 1e-10},
    "f32": {"rtol": 1e-4, "atol": 2e-5},
}
NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias", "z")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(FILE, allow_pickle=False) as data:
        return dict(data)


def by_op(*tensors: Tensor | None) -> Tensor:
    return selective_scan(*tensors, (1,))  # type: ignore[arg-type]


def by_reference(*tensors: Tensor | None) -> Tensor:
    *inputs, z = tensors
    y = reference.selective_scan(*inputs)[0].squeeze(1)  # type: ignore[arg-type]
    return y if z is None else y * F.silu(z)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("variant", ["full", "noz"])
@pytest.mark.parametrize("scan", [by_op, by_reference])
def test_scan_equals_official_code(
    golden: dict[str, Any], scan: Any, variant: str, dtype: str
) -> None:
    width = torch.float64 if dtype == "f64" else torch.float32
    leaves = {
        name: torch.from_numpy(golden[f"in_{name}"]).to(width).requires_grad_() for name in NAMES
    }
    if variant == "noz":
        del leaves["z"]
    tokens = {name: leaves[name].mT for name in ("u", "delta", "B", "C", "z") if name in leaves}
    out = scan(
        tokens["u"].unsqueeze(1),
        tokens["delta"].unsqueeze(1),
        leaves["A"].unsqueeze(0),
        tokens["B"].unsqueeze(1),
        tokens["C"].unsqueeze(1),
        leaves["D"].unsqueeze(0),
        leaves["delta_bias"].unsqueeze(0),
        tokens.get("z"),
    )
    want = torch.from_numpy(golden[f"{variant}_{dtype}_out"])
    torch.testing.assert_close(out.mT, want, **TOLERANCES[dtype])
    out.backward(torch.from_numpy(golden["dout"]).to(width).mT)
    for name, leaf in leaves.items():
        want = torch.from_numpy(golden[f"{variant}_{dtype}_grad_{name}"])
        torch.testing.assert_close(leaf.grad, want, **TOLERANCES[dtype])
