"""The Triton kernels compile for the GPUs in use, without one here, and keep to their registers."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from blocks.scan.backends import (  # noqa: E402
    triton_backend,
    triton_backward,
    triton_conv,
    triton_forward,
)
from blocks.scan.backends.triton_rows import INTERPRETED  # noqa: E402

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
pytestmark = [
    pytest.mark.smoke,
    pytest.mark.skipif(INTERPRETED, reason="interpreted kernels are not compiled"),
    pytest.mark.skipif(not CUOBJDUMP.is_file(), reason="this Triton cannot read CUDA binaries"),
]
MOST_STACK_BYTES = 32
"""What a kernel may spill per thread."""
LOW = {"u", "delta", "B", "C", "z", "out", "grad", "x", "du", "ddelta", "dz", "dx"}
WIDE = {"A", "D", "bias", "weight", "ends", "sums", "boundaries", "total", "scratch"}
WIDE |= {"dA", "dB", "dC", "dD", "dbias", "dweight"}
ANY = {"k", "directions", "chunks", "segments", "count"}
"""Integers that need not be multiples of 16."""
SCAN: dict[str, Any] = {
    "HAS_Z": True,
    "SEGMENT": triton_backend.SEGMENT,
    "BLOCK_N": 16,
    "BLOCK_D": triton_backend.BLOCK_D,
}
ENDS = SCAN | {"STEPS": triton_backend.ENDS_STEPS}
STEPS = SCAN | {"STEPS": triton_backend.SCAN_STEPS}
COMBINE = {"REVERSE": True, "BLOCK": 64, "ROWS": 16}
CONV = {"WIDTH": 4, "BLOCK_W": 4, "BLOCK_L": triton_backend.CONV_ROWS}
CONV |= {"BLOCK_D": triton_backend.BLOCK_D}
KERNELS: dict[str, tuple[Any, dict[str, Any], dict[str, int]]] = {
    "chunk_ends": (triton_forward.chunk_ends, ENDS, {"num_warps": 1}),
    "combine": (triton_forward.combine, COMBINE, {"num_warps": 2}),
    "scan": (
        triton_forward.scan,
        STEPS,
        {"num_warps": 1, "maxnreg": triton_backend.SCAN_REGISTERS},
    ),
    "adjoint_ends": (triton_backward.adjoint_ends, ENDS, {"num_warps": 1}),
    "scan_backward": (triton_backward.scan_backward, STEPS, {"num_warps": 1}),
    "conv": (triton_conv.conv, CONV, {}),
    "conv_backward_input": (triton_conv.conv_backward_input, CONV, {}),
    "conv_backward_weight": (triton_conv.conv_backward_weight, CONV, {}),
}
CASES = [(90, "bf16", name) for name in KERNELS]
CASES += [(80, "fp32", name) for name in ("scan", "conv_backward_input")]


def source(kernel: Any, constants: dict[str, Any], low: str) -> ASTSource:
    """Describe a call with contiguous channels and states, and aligned sizes."""
    pointers = dict.fromkeys(LOW, f"*{low}") | dict.fromkeys(WIDE, "*fp32") | {"orders": "*i32"}
    signature: dict[str, str] = {}
    fixed: dict[tuple[int], Any] = {}
    aligned: dict[tuple[int], list[list[object]]] = {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants or name.endswith(("_d", "_n")):
            signature[name] = "constexpr"
            fixed[(index,)] = constants.get(name, 1)
            continue
        signature[name] = pointers.get(name, "i32")
        if name not in ANY:
            aligned[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, fixed, aligned)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep compiled kernels elsewhere where the user has no home that can be written."""
    if not os.access(Path.home(), os.W_OK):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


@pytest.mark.parametrize(("capability", "low", "name"), CASES)
def test_kernel_compiles_without_spills(
    capability: int, low: str, name: str, tmp_path: Path
) -> None:
    kernel, constants, options = KERNELS[name]
    compiled = triton.compile(
        source(kernel, constants, low), target=GPUTarget("cuda", capability, 32), options=options
    )
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    usage = subprocess.run(
        [str(CUOBJDUMP), "-res-usage", str(binary)], capture_output=True, text=True, check=True
    ).stdout
    stack = re.search(r"STACK:(\d+)", usage)
    assert stack is not None, usage
    assert int(stack.group(1)) <= MOST_STACK_BYTES, usage
