"""Other people's counters: what is shown of them; really run only where they are installed."""

import importlib.util

import pytest
from torch import Tensor, nn

from archspec.costs import counters
from archspec.costs.counters import count, small_plan
from archspec.spec.load import load


def test_small_plan_takes_the_smallest_patch(spec_name: str) -> None:
    planned = small_plan(load(spec_name))
    assert max(planned.patch_size) <= 64


def test_counters_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(net: nn.Module, x: Tensor) -> tuple[float, float]:
        assert net(x).shape[1] == 2
        assert not net.training
        return 2e9, float(sum(p.numel() for p in net.parameters()))

    def broken(net: nn.Module, x: Tensor) -> tuple[float, float]:
        raise KeyError("what is a scan?\nno idea")

    found = (
        ("double", "torch", double),
        ("broken", "torch", broken),
        ("absent", "no_such_module", double),
    )
    monkeypatch.setattr(counters, "_COUNTERS", found)
    counted = count(load("mamba-unet"))
    text = counted.text()
    assert max(map(len, text.splitlines())) <= 80
    lines = text.splitlines()
    assert lines[0] == "mamba-unet really run at input 1 x 1 x 32 x 32 x 32, 2 classes:"
    assert lines[3].split()[0] == "double" and lines[3].split()[2:4] == ["1.000", "2.000"]
    assert lines[4].startswith("broken: failed: KeyError: ")
    assert lines[5] == "absent: not installed"
    assert "come on top" in text
    tree = counted.to_json()
    assert [one["problem"] for one in tree["counters"]][2] == "not installed"
    assert tree["macs"] == counted.cost.macs


@pytest.mark.parametrize("module", ["thop", "fvcore", "ptflops"])
def test_real_counters_know_convolutions(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; archspec-seg[counters] brings it")
    for one in count(load("small-unet")).counts:
        if one.counter.startswith(module):
            assert one.problem is None
            assert one.macs == pytest.approx(count(load("small-unet")).cost.macs, rel=0.02)
