"""Make and run networks of other libraries: quietly, bounded, and on the meta device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from blocks.base import SpecError

MAX_MODULES = 3000
"""Of one network; SwinUNETR has 300."""


class TooManyModulesError(SpecError):
    """A network was refused for its number of modules, whatever its input."""


def positions_and_scales(root: nn.Module) -> frozenset[str]:
    """Return the names of parameters that are no weight of a layer: tables of positions, say."""
    layers = (nn.Linear, nn.modules.conv._ConvNd)
    weights = {id(module.weight) for module in root.modules() if isinstance(module, layers)}
    return frozenset(name for name, p in root.named_parameters() if id(p) not in weights)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what libraries warn of: their authors are meant, not those of a spec."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def bounded(name: str, *, field: str) -> Iterator[None]:
    """Refuse a network of more modules than anyone would train, before all of them are made.

    Raises:
        TooManyModulesError: see above.
    """
    count = 0

    def one_more(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > MAX_MODULES:
            raise TooManyModulesError(
                f"{name} is made of too many modules",
                field=field,
                allowed=f"at most {MAX_MODULES:,}",
            )

    handle = register_module_module_registration_hook(one_more)
    try:
        yield
    finally:
        handle.remove()


class NumbersOnHost(TorchFunctionMode):
    """Make `linspace` on the host, whose values constructors read as rates of drop path."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.linspace:
            return func(*args, **{"device": "cpu", **(kwargs or {})})
        return func(*args, **(kwargs or {}))


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remember the elements of the largest result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.untyped_storage().nbytes() // 4)
        return out
