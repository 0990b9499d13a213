"""The scan's backends that this machine can run on its CPU; Triton's through its interpreter."""

import os

import pytest

BACKENDS = ("reference", "kscan", "numba", "triton")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", BACKENDS, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the operators use one backend; returns its name."""
    name: str = request.param
    if name == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("test_triton_interpreted.py runs it")
    monkeypatch.setenv("ARCHSPEC_SCAN", name)
    return name
