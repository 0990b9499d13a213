"""What a ToM layer launches on a GPU, recorded and compiled on a machine without one.

A real layer runs forward and backward on CPU tensors under autocast; its launches are recorded
instead of made, each with what Triton would compile it for: alignments, strides, options.
"""

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import blocks.scan.causal_conv
import blocks.scan.op
from blocks.layers.scan_branch import ScanBranch, scan_branches
from blocks.scan.backends import triton_backend, triton_checks

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


@dataclass(frozen=True)
class Launch:
    """One launch: what is compiled for it, and the programs and warps that it starts."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[tuple[int], Any]
    attributes: dict[tuple[int], list[list[object]]]
    options: dict[str, Any]
    grid: tuple[int, ...]
    bytes: int
    """Of the tensors; where the launch is of one direction, its share of those that have them."""

    @property
    def name(self) -> str:
        name: str = self.kernel.fn.__name__
        return name


def launch_of(kernel: Any, args: tuple[Any, ...], grid: Any, given: dict[str, Any]) -> Launch:
    """Specialise a call as Triton does: on ones, multiples of 16 and aligned pointers."""
    names = [parameter.name for parameter in kernel.params]
    values = dict(zip(names, args, strict=False))
    options = {name: value for name, value in given.items() if name not in names}
    values |= {name: value for name, value in given.items() if name in names}
    signature: dict[str, str] = {}
    constants: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], list[list[object]]] = {}
    for index, parameter in enumerate(kernel.params):
        name, value = parameter.name, values[parameter.name]
        fixed = parameter.is_constexpr or (value_is_one(value) and not parameter.do_not_specialize)
        if fixed:
            signature[name], constants[(index,)] = "constexpr", value
            continue
        is_tensor = isinstance(value, Tensor)
        wide = not is_tensor and abs(value) >= 2**31
        signature[name] = POINTERS[value.dtype] if is_tensor else ("i64" if wide else "i32")
        number = value.data_ptr() if is_tensor else value
        if number % 16 == 0 and not parameter.do_not_specialize:
            attributes[(index,)] = [["tt.divisibility", 16]]
    tensors = {t.data_ptr(): t for t in values.values() if isinstance(t, Tensor)}.values()
    moved = [t.numel() * t.element_size() for t in tensors]
    if "k" in values:
        every = values["directions"]
        shares = [every if t.ndim >= 4 and t.shape[1] == every else 1 for t in tensors]
        moved = [size // share for size, share in zip(moved, shares, strict=True)]
    return Launch(kernel, signature, constants, attributes, options, tuple(grid), sum(moved))


def value_is_one(value: object) -> bool:
    return isinstance(value, int) and value == 1


@contextlib.contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Record the launches of the block instead of making them; CPU tensors stand for a GPU's."""
    found: list[Launch] = []

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **given: Any) -> None:
        found.append(launch_of(self, args, grid, given))

    before = JITFunction.run, triton_checks.INTERPRETED
    JITFunction.run, triton_checks.INTERPRETED = run, True
    try:
        yield found
    finally:
        JITFunction.run, triton_checks.INTERPRETED = before


class Counter(TorchDispatchMode):
    """Counts PyTorch's own operators that would launch a kernel, by name."""

    NONE = (
        *("view", "empty", "detach", "expand", "slice", "select", "split", "transpose", "alias"),
        *("unsqueeze", "squeeze", "permute", "as_strided", "unbind", "aten.t."),
        *("archspec", "promote_types", "lift_fresh"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if not any(part in name for part in self.NONE):
            self.found[name] = self.found.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def triton_for_all(counter: Counter) -> Iterator[None]:
    """Let the operators call Triton's backend, on the CPU's tensors too, and count inside them."""

    def counted(function: Any) -> Any:
        def call(*args: Any) -> Any:
            with counter:  # which does not see into an operator by itself
                return function(*args)

        return call

    names = ("selective_scan", "selective_scan_backward")
    names += ("causal_conv1d", "causal_conv1d_backward")
    backend = SimpleNamespace(**{name: counted(getattr(triton_backend, name)) for name in names})
    modules = (blocks.scan.op, blocks.scan.causal_conv)
    before = [module.backend_for for module in modules]
    for module in modules:
        module.backend_for = lambda device, dtype: backend  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            module.backend_for = function


def tom_step(
    edge: int, channels: int, dtype: torch.dtype | None, *, states: int = 16
) -> tuple[list[Launch], dict[str, int]]:
    """Return the launches of a ToM layer's scan, forward and backward, and PyTorch's beside them.

    `channels` are those of the scan, D; the projections of steps, B and C are in it.
    """
    rank, length = -(-channels // 32), edge**3
    branches = torch.nn.ModuleList(
        [ScanBranch(channels, d_state=states, d_conv=4, dt_rank=rank) for _ in range(3)]
    )
    rows = torch.zeros(1, length, 2 * channels, dtype=dtype or torch.float32, requires_grad=True)
    above = torch.zeros_like(rows[..., :channels])
    counter = Counter()
    with recorded() as launches, triton_for_all(counter), counter:
        x, z = rows.chunk(2, dim=-1)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            out = scan_branches(branches, x, z, (1, -1, edge))
        out.backward(above)
    return launches, counter.found


def compiled(launch: Launch, architecture: int) -> bytes:
    """Return the machine code."""
    source = ASTSource(launch.kernel, launch.signature, launch.constants, launch.attributes)
    target = GPUTarget("cuda", architecture, 32)
    kernel = triton.compile(source, target=target, options=launch.options)
    code: bytes = kernel.asm["cubin"]
    return code


def dumped(code: bytes, option: str) -> str:
    """Return what cuobjdump says of machine code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(code)
        command = [str(CUOBJDUMP), option, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def usage(code: bytes) -> dict[str, int]:
    """Return the registers and the bytes of stack of a thread."""
    text = dumped(code, "-res-usage")
    found = {name: re.search(rf"{name}:(\d+)", text) for name in ("REG", "STACK")}
    missing = [name for name, match in found.items() if match is None]
    if missing:
        raise ValueError(f"cuobjdump does not tell {missing}: {text}")
    return {
        key: int(match.group(1))
        for key, match in zip(("registers", "stack_bytes"), found.values(), strict=True)
        if match is not None
    }
