"""FLOP counters in common use beside ours, run on the real network: none of them is needed.

Each is imported only when asked for; `pip install "archspec-seg[counters]"` brings all three.
"""

import contextlib
import importlib.util
import io
import logging
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from archspec.costs.flops import CONVENTION, Cost, cost_plan
from archspec.network.build import build_plan
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, plan
from archspec.spec.schema import ArchSpec
from archspec.text import table
from blocks.errors import SpecError, reason

_AXES = (32, 48, 64, 96, 128)
_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Count:
    """What one counter says, `macs` being its sum, or why it says nothing (`problem`)."""

    counter: str
    macs: float | None
    params: float | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters on one network at one input, and ours."""

    spec: str
    input: tuple[int, ...]
    num_classes: int
    cost: Cost
    counts: tuple[Count, ...]

    def text(self) -> str:
        """Return a table of at most 80 columns; ratios are to ours."""
        ours = self.cost
        rows = [("Counters", "params", "ratio", "GMAC", "ratio")]
        rows.append(("archspec", f"{ours.params:,}", "1.000", f"{ours.macs / 1e9:.3f}", "1.000"))
        problems = []
        for one in self.counts:
            if one.macs is None or one.params is None:
                problems.append(f"{one.counter}: {one.problem}"[:_WIDTH])
                continue
            params = (f"{one.params:,.0f}", f"{one.params / ours.params:.3f}")
            macs = (f"{one.macs / 1e9:.3f}", f"{one.macs / ours.macs:.3f}")
            rows.append((one.counter, *params, *macs))
        size = " x ".join(map(str, self.input))
        lines = [f"{self.spec} really run at input {size}, {self.num_classes} classes:"]
        lines += [*table(rows), *problems]
        if ours.scan_flops:
            lines += textwrap.wrap(
                f"Scans, {ours.scan_flops / 1e9:.3f} GFLOP, come on top of archspec's GMAC. Layers "
                "are modules here, so counters see projections that a fused Mamba kernel hides "
                "from them.",
                _WIDTH,
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "input": list(self.input),
            "num_classes": self.num_classes,
            "convention": CONVENTION,
            "params": self.cost.params,
            "macs": self.cost.macs,
            "scan_flops": self.cost.scan_flops,
            "counters": [asdict(one) for one in self.counts],
        }


def small_plan(spec: ArchSpec) -> Plan:
    """Return the network at the smallest usual patch that it takes, else at its own."""
    for axis in _AXES:
        try:
            return plan(spec, InputSizes(patch_size=(axis,) * len(spec.patch_size)))
        except SpecError:
            continue
    return plan(spec)


def count(spec: ArchSpec) -> Counts:
    """Build the network on the CPU at a small input and run every counter that is installed."""
    planned = small_plan(spec)
    size = (1, planned.in_channels, *planned.patch_size)
    return Counts(
        spec=spec.name,
        input=size,
        num_classes=planned.num_classes,
        cost=cost_plan(planned),
        counts=tuple(_run(name, module, run, planned, size) for name, module, run in _COUNTERS),
    )


def _thop(net: nn.Module, x: Tensor) -> tuple[float, float]:
    from thop import profile

    macs, params = profile(net, inputs=(x,), verbose=False)
    return float(macs), float(params)


def _fvcore(net: nn.Module, x: Tensor) -> tuple[float, float]:
    from fvcore.nn import FlopCountAnalysis, parameter_count

    analysis = FlopCountAnalysis(net, x).unsupported_ops_warnings(False)
    return float(analysis.uncalled_modules_warnings(False).total()), parameter_count(net)[""]


def _ptflops(backend: str) -> Callable[[nn.Module, Tensor], tuple[float, float]]:
    def run(net: nn.Module, x: Tensor) -> tuple[float, float]:
        from ptflops import get_model_complexity_info

        macs, params = get_model_complexity_info(
            net, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, backend=backend
        )
        if macs is None:
            raise RuntimeError("it gave no figure")
        return float(macs), float(params)

    return run


_Counter = Callable[[nn.Module, Tensor], tuple[float, float]]
_COUNTERS: tuple[tuple[str, str, _Counter], ...] = (
    ("thop", "thop", _thop),
    ("fvcore", "fvcore", _fvcore),
    ("ptflops, pytorch", "ptflops", _ptflops("pytorch")),
    ("ptflops, aten", "ptflops", _ptflops("aten")),
)


def _run(name: str, module: str, counter: _Counter, planned: Plan, size: tuple[int, ...]) -> Count:
    if importlib.util.find_spec(module) is None:
        return Count(name, None, None, "not installed")
    net = build_plan(planned).eval()  # a fresh one: counters leave hooks and buffers behind
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            macs, params = counter(net, torch.randn(size))
    except Exception as error:  # foreign code on a network that it may not know
        return Count(name, None, None, f"failed: {type(error).__name__}: {reason(error)}")
    return Count(name, macs, params, None)
