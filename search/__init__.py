"""Architecture search: Dice against FLOPs, on nnU-Net data, with Optuna.

Names load when first used, as in `archspec`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.launch import run
    from search.space.space import Space, load_space
    from search.trials.cases import Cases

__all__ = ["Cases", "Space", "load_space", "run"]

_HOMES = {
    "Cases": "search.trials.cases",
    "Space": "search.space.space",
    "load_space": "search.space.space",
    "run": "search.launch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
