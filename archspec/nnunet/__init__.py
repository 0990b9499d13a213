"""nnU-Net: its datasets as we read them, our networks as it builds, trains and predicts them.

`archspec.nnunet.ArchSpecNet` stands in users' plans files: that dotted name never moves.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archspec.nnunet.network import ArchSpecNet

__all__ = ["ArchSpecNet"]


def __getattr__(name: str) -> Any:
    """Load the network's class, and torch with it, when it is asked for."""
    if name != "ArchSpecNet":
        raise AttributeError(f"module 'archspec.nnunet.network' has no attribute {name!r}")
    from archspec.nnunet.network import ArchSpecNet

    return ArchSpecNet
