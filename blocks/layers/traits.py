"""What a module may say about itself to those who look at whole networks.

Structural: a module has the member, on its class, and need not know of this file.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class HasDirections(Protocol):
    """It scans, in one direction or several."""

    @property
    def directions(self) -> Mapping[str, nn.Module]:
        """Return what has the parameters of each direction, by the direction's name."""
        ...


@runtime_checkable
class KeepsStart(Protocol):
    """It and all below it keep their own start values, whatever `init` a spec asks for."""

    keeps_start: ClassVar[bool]


@runtime_checkable
class SparesFromDecay(Protocol):
    """It has parameters that look like weights of a layer and are none: decay would bias them."""

    @property
    def spared_from_decay(self) -> frozenset[str]:
        """Return their names."""
        ...


@runtime_checkable
class AddsToShortcut(Protocol):
    """It adds the output of a norm to its shortcut; at 0 that norm leaves the shortcut alone."""

    @property
    def last_norm(self) -> nn.Module:
        """Return the norm."""
        ...
