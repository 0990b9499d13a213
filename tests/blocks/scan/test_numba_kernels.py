"""What is special about compiled kernels: processes, the cache, their own functions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

from blocks.scan.backends import numba_kernel
from blocks.scan.backends.numba_math import exp2, sigmoid, softplus
from blocks.scan.backends.numba_memory import load, store
from blocks.scan.backends.numba_simd import LANES

ROOT = Path(__file__).parents[3]

FORK = """
import os, torch
from blocks.scan.backends import numba_backend
torch.set_num_threads(2)
torch.manual_seed(0)
x, weight, bias = torch.randn(1, 100, 40), torch.randn(2, 40, 4), torch.randn(2, 40)
want = numba_backend.causal_conv1d(x, weight, bias, (1, -1))
child = os.fork()
found = numba_backend.causal_conv1d(x, weight, bias, (1, -1))
if child == 0:
    os._exit(0 if torch.equal(found, want) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_works_in_a_forked_child() -> None:
    assert run_python(FORK).returncode == 0


def run_python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


ONE_SCAN = """
import torch
from blocks.scan.backends import numba_backend
tokens, states = torch.randn(1, 1, 9, 3), torch.randn(1, 1, 9, 4)
A, D = -torch.rand(1, 3, 4), torch.randn(1, 3)
numba_backend.selective_scan(tokens, tokens, A, states, states, D, D, None, (1,))
"""


@pytest.mark.long
def test_says_when_it_compiles(tmp_path: Path) -> None:
    cold, warm = (run_python(ONE_SCAN, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert cold.returncode == warm.returncode == 0
    assert cold.stderr.startswith("archspec: compiling the CPU scan, once")
    assert str(tmp_path) in cold.stderr
    assert cold.stderr.count("\n") == 1
    assert warm.stderr == ""


def fill(values: Any) -> None:
    values[:] = 1


def test_works_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> Any:
        if "cache" in options:
            raise RuntimeError("cannot cache function 'fill': no locator available")
        return njit(**options)

    monkeypatch.setattr(numba_kernel, "njit", refuse)
    values = np.zeros(3)
    numba_kernel.Kernel(fill)(values)
    assert values.all()


def test_cache_depends_on_every_source() -> None:
    keyed = numba_kernel._keyed(fill)
    assert [cell.cell_contents for cell in keyed.__closure__ or ()] == [numba_kernel._SOURCES]


def lanewise(function: Callable[[Any], Any]) -> Callable[[np.ndarray[Any, Any]], Any]:
    @njit
    def run(values: Any) -> Any:
        found = np.empty_like(values)
        for at in range(0, values.size, LANES):
            store(found, at, function(load(values, at)))
        return found

    return run


@njit
def _exp2(x: Any) -> Any:
    return exp2(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_are_exact(dtype: Any) -> None:
    limit = 2e-7 if dtype is np.float32 else 1e-15
    span = np.concatenate([-np.logspace(-9, 2, 8000), np.logspace(-9, 1.9, 8000)]).astype(dtype)
    wide = span.astype(np.longdouble)
    exact = {
        _exp2: np.exp2(wide),
        softplus: np.maximum(wide, 0) + np.log1p(np.exp(-abs(wide))),
        sigmoid: np.exp(-np.maximum(-wide, 0)) / (1 + np.exp(-abs(wide))),
    }
    for function, wanted in exact.items():
        found = lanewise(function)(span)
        normal = (wanted > 2e-38) & (wanted < 3e38)
        error = abs(found[normal] / wanted[normal] - 1)
        assert error.max() < limit * (1 if function is _exp2 else 2), function
        assert abs(found[~normal & (wanted < 1)]).max(initial=0) < 4e-38
    extreme = np.array([-np.inf, np.inf, np.nan, -200, 200, 0, -0.0, 1, *[0] * 8], dtype)
    assert extreme.size % LANES == 0
    found = lanewise(_exp2)(extreme)
    assert found[0] == 0 and np.isinf(found[1]) and np.isnan(found[2])
    assert (found[5:7] == 1).all() and found[7] == 2
    if dtype is np.float32:
        assert found[3] == 0 and np.isinf(found[4])
    found = lanewise(softplus)(extreme)
    assert found[0] == 0 and np.isinf(found[1]) and np.isnan(found[2]) and found[4] == 200
    found = lanewise(sigmoid)(extreme)
    assert found[0] == 0 and found[1] == 1 and np.isnan(found[2]) and found[5] == 0.5
