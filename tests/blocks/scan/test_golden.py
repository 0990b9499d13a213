"""The op and the reference against SegMamba's own scan; data: tests/golden/segmamba/README.md."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.scan.backends import reference
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
    y = reference.recurrence(*inputs)[0].squeeze(1)  # type: ignore[arg-type]
    return y if z is None else y * F.silu(z)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("variant", ["full", "noz", "plain"])
def test_reference_equals_official_code(golden: dict[str, Any], variant: str, dtype: str) -> None:
    check(golden, by_reference, variant, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("variant", ["full", "noz", "plain"])
def test_op_equals_official_code(
    golden: dict[str, Any], backend: str, variant: str, dtype: str
) -> None:
    check(golden, by_op, variant, dtype)


def check(golden: dict[str, Any], scan: Any, variant: str, dtype: str) -> None:
    width = torch.float64 if dtype == "f64" else torch.float32
    leaves = {
        name: torch.from_numpy(golden[f"in_{name}"]).to(width).requires_grad_() for name in NAMES
    }
    if variant != "full":
        del leaves["z"]
    delta = leaves["delta"]
    if variant == "plain":  # without D, bias and softplus, whose inverse goes before it here
        del leaves["D"], leaves["delta_bias"]
        leaves["delta"] = torch.from_numpy(golden["plain_delta"]).to(width).requires_grad_()
        delta = leaves["delta"] + torch.log(-torch.expm1(-leaves["delta"]))
    tokens = {name: leaves[name].mT for name in ("u", "B", "C", "z") if name in leaves}
    nothing = torch.zeros(len(leaves["A"]), dtype=width)

    def run(C: Tensor, D: Tensor) -> Tensor:
        return scan(  # type: ignore[no-any-return]
            tokens["u"].unsqueeze(1),
            delta.mT.unsqueeze(1),
            leaves["A"].unsqueeze(0),
            tokens["B"].unsqueeze(1),
            C.unsqueeze(1),
            D.unsqueeze(0),
            leaves.get("delta_bias", nothing).unsqueeze(0),
            None if C is not tokens["C"] else tokens.get("z"),
        )

    out = run(tokens["C"], leaves.get("D", nothing))
    want = torch.from_numpy(golden[f"{variant}_{dtype}_out"])
    torch.testing.assert_close(out.mT, want, **TOLERANCES[dtype])
    # with C a unit vector, y is one component of the state
    units = torch.eye(leaves["A"].shape[-1], dtype=width)
    last = [run(unit.expand_as(tokens["C"]), nothing)[:, -1] for unit in units]
    want = torch.from_numpy(golden[f"{variant}_{dtype}_last_state"])
    torch.testing.assert_close(torch.stack(last, dim=-1), want, **TOLERANCES[dtype])
    out.backward(torch.from_numpy(golden["dout"]).to(width).mT)
    for name, leaf in leaves.items():
        want = torch.from_numpy(golden[f"{variant}_{dtype}_grad_{name}"])
        torch.testing.assert_close(leaf.grad, want, **TOLERANCES[dtype])
