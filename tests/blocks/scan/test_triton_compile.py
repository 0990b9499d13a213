"""The kernels of real layers compile for the GPUs in use, without one here, and hardly spill.

What is compiled is what a ToM layer launches, whose B and C are columns of rows 35 to 56 wide.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
from blocks.scan.backends import triton_rows
from blocks.scan.backends.triton_rows import INTERPRETED

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
import recorded_launches
from recorded_launches import Launch

pytestmark = [
    pytest.mark.smoke,
    pytest.mark.skipif(INTERPRETED, reason="interpreted kernels are not compiled"),
]
reads_code = pytest.mark.skipif(
    not recorded_launches.CUOBJDUMP.is_file(), reason="this Triton cannot read CUDA binaries"
)
MOST_STACK_BYTES = 32
"""What a kernel may spill per thread."""
KERNELS = ("chunk_ends", "combine", "scan", "adjoint_ends", "scan_backward")
KERNELS += ("conv", "conv_backward_input", "conv_backward_weight", "sum_parts", "sum_rows")
CASES = [(90, "bfloat16", name) for name in KERNELS]
CASES += [(80, "float32", name) for name in ("scan", "conv_backward_input")]
MORE = [
    (capability, low, name)
    for capability in (75, 86, 120)
    for low in ("float16", "float32")
    for name in KERNELS
]


@pytest.fixture(scope="module")
def launched() -> dict[str, dict[str, Launch]]:
    """Return the last launch of each kernel by precision, of a layer of SegMamba's first stage."""
    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": None}
    return {
        low: {one.name: one for one in recorded_launches.tom_step(8, 96, dtype)[0]}
        for low, dtype in dtypes.items()
    }


@pytest.fixture(autouse=True)
def _cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Keep compiled kernels elsewhere where the user has no home that can be written."""
    if not os.access(Path.home(), os.W_OK):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))
    yield


def test_a_layer_launches_every_kernel(launched: dict[str, dict[str, Launch]]) -> None:
    for found in launched.values():
        assert sorted(found) == sorted(KERNELS)


def test_vector_loads_fit_every_row(launched: dict[str, dict[str, Launch]]) -> None:
    """In the layer's rows, 3 steps, 16 B and 16 C, no state is aligned."""
    for found in launched.values():
        for name in ("scan", "scan_backward"):
            scan = found[name]
            aligned = {scan.kernel.arg_names[index] for (index,) in scan.attributes}
            assert {"u", "u_l", "delta", "delta_l", "B", "B_l", "C", "C_l", "z", "z_l"} <= aligned


def test_fusion_is_asked_for_at_every_launch(launched: dict[str, dict[str, Launch]]) -> None:
    """Triton 3.10 leaves multiplications and additions apart unless told."""
    for found in launched.values():
        assert all(one.options["enable_fp_fusion"] is True for one in found.values())


@reads_code
@pytest.mark.parametrize(
    ("capability", "low", "name"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.long) for case in MORE)],
)
def test_kernel_compiles_without_spills(
    capability: int, low: str, name: str, launched: dict[str, dict[str, Launch]]
) -> None:
    code = recorded_launches.compiled(launched[low][name], capability)
    assert recorded_launches.usage(code)["stack_bytes"] <= MOST_STACK_BYTES


@reads_code
@pytest.mark.long
@pytest.mark.parametrize("capability", [75, 90])
def test_kernels_with_more_states_do_not_spill(capability: int) -> None:
    launches, _ = recorded_launches.tom_step(8, 96, torch.bfloat16, states=64)
    for launch in {one.name: one for one in launches}.values():
        code = recorded_launches.compiled(launch, capability)
        assert recorded_launches.usage(code)["stack_bytes"] <= MOST_STACK_BYTES, launch.name


@pytest.mark.long
def test_kernels_compile_for_tensors_beyond_int32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_rows, "MOST_REACH", 0)
    launches, _ = recorded_launches.tom_step(8, 96, torch.bfloat16)
    for launch in {one.name: one for one in launches}.values():
        assert ("*i64" in launch.signature.values()) == ("orders" in launch.kernel.arg_names)
        recorded_launches.compiled(launch, 90)
