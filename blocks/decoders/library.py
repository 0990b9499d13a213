"""A network of another library, as a decoder that takes the network's input and nothing else."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from blocks.base import Axes, ComponentSpec, Grid, SpecError, StageShape, per_axis
from blocks.decoders.decoder import Decoder, DecoderSpec, Heads, Skips
from blocks.decoders.libraries import (
    LIBRARIES,
    LibraryName,
    arguments,
    is_sized,
    make,
    network_class,
    probed_divisor,
    trace,
)
from blocks.layers.foreign import TooManyModulesError, positions_and_scales

_MOST = 16_384
"""Of an integer, of letters and of entries among the arguments."""


def _check_plain(value: object) -> object:
    """Refuse what is no plain data, and what would make a network that nobody can build."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("keys must be names")
        return {key: _check_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        if len(value) > _MOST:
            raise ValueError(f"a list must have at most {_MOST} entries")
        return tuple(_check_plain(item) for item in value)
    if isinstance(value, int) and abs(value) > _MOST:
        raise ValueError(f"an integer must be at most {_MOST}")
    if isinstance(value, str) and len(value) > _MOST:
        raise ValueError(f"a text must have at most {_MOST} letters")
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"must be plain values, but has a {type(value).__name__}")
    return value


class NetworkSpec(ComponentSpec):
    """Name a network class of MONAI or of dynamic_network_architectures (dna).

    `args` go to its constructor as they are, but that `torch.nn.LeakyReLU`, say, is that class.
    Channels, classes, dimensions and the size of the input are not among them: archspec gives what
    the constructor has of those. `divisor` is by what every axis of the input must divide; left
    out, it is found by running the network without memory at several sizes.
    """

    library: Annotated[LibraryName, Field(alias="from")]
    name: Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_]{0,99}$")]
    args: Annotated[dict[str, Any], BeforeValidator(_check_plain)] = Field(default={})
    divisor: Axes | None = None

    def __hash__(self) -> int:
        return hash(json.dumps(self.model_dump(mode="json"), sort_keys=True))

    @property
    def distribution(self) -> str:
        """Return the name of the package."""
        return LIBRARIES[self.library].distribution

    def build(self, inp: StageShape, num_classes: int) -> nn.Module:
        """Return the library's own network on the default device, as its constructor makes it.

        Raises:
            SpecError: no such class, or it refuses the arguments.
        """
        cls = network_class(self.library, self.name)
        return make(cls, arguments(cls, self.args, inp, num_classes))


class LibraryDecoderSpec(DecoderSpec):
    """Stand where a decoder does; nobody writes it, `ArchSpec` makes it of `network`."""

    network: NetworkSpec

    @property
    def kind(self) -> str:
        """Return the name of the class."""
        return self.network.name

    @property
    def takes_input(self) -> bool:
        return True

    def divisor(self, ndim: int) -> Grid:
        if self.network.divisor is not None:
            return per_axis(self.network.divisor, ndim, where="network.divisor")
        return _divisor(self.network, ndim)

    def feature_shapes(self, skips: Skips) -> tuple[StageShape, ...]:
        return (skips[0],)

    def norms(self, skips: Skips) -> list[tuple[str, str, StageShape]]:
        return []

    def check(self, skips: Skips, heads: Heads) -> None:
        if heads.count > 1:
            raise SpecError(
                f"{heads.count} heads, but a network of a library has one",
                field="deep_supervision.heads",
                suggestion="use 1",
            )
        _largest(self.network, skips[0], heads.num_classes)

    def largest(self, skips: Skips, heads: Heads) -> int:
        return _largest(self.network, skips[0], heads.num_classes)

    def build(self, skips: Skips, heads: Heads) -> "LibraryNetwork":
        return LibraryNetwork(skips[0], spec=self, heads=heads)


@cache
def _divisor(network: NetworkSpec, ndim: int) -> Grid:
    return probed_divisor(network_class(network.library, network.name), network.args, ndim)


@cache
def _largest(network: NetworkSpec, inp: StageShape, num_classes: int) -> int:
    """Return the elements of the largest tensor at batch 1.

    Raises:
        SpecError: the network cannot be made, or does not run at this input; where it runs at a
            larger one, the patch may be the one to change.
    """
    try:
        return _traced(network, inp, num_classes)
    except TooManyModulesError:
        raise
    except SpecError as error:
        if not _runs(network, StageShape(inp.channels, _larger(network, inp.grid)), num_classes):
            raise error from None
        raise SpecError([replace(one, other="patch_size") for one in error.problems]) from None


def _larger(network: NetworkSpec, grid: Grid) -> Grid:
    """Return the largest size that a plan tries where this one does not suit."""
    divisor = LibraryDecoderSpec(network=network).divisor(len(grid))
    return tuple(n + 2 * step for n, step in zip(grid, divisor, strict=True))


@cache
def _runs(network: NetworkSpec, inp: StageShape, num_classes: int) -> bool:
    try:
        _traced(network, inp, num_classes)
    except SpecError:
        return False
    return True


def _traced(network: NetworkSpec, inp: StageShape, num_classes: int) -> int:
    with torch.device("meta"):
        net = network.build(inp, num_classes)
    return trace(net, inp, num_classes)


class LibraryNetwork(Decoder):
    """The library's network, whose logits are the only output."""

    def __init__(self, inp: StageShape, *, spec: LibraryDecoderSpec, heads: Heads) -> None:
        super().__init__((inp,), spec=spec, heads=heads)
        self.takes_input = True
        self.network = spec.network.build(inp, heads.num_classes)
        self.only = inp.grid if is_sized(type(self.network)) else None

    @property
    def spared_from_decay(self) -> frozenset[str]:
        """Return what is no weight of a layer: tables of positions, say."""
        return positions_and_scales(self)

    def make_heads(self, features: Skips, *, spec: DecoderSpec, heads: Heads) -> list[nn.Module]:
        return [_AsItIs()]

    def features(self, skips: list[Tensor]) -> list[Tensor]:
        (x,) = skips
        if self.only is not None and tuple(x.shape[2:]) != self.only:
            raise ValueError(
                f"input of {tuple(x.shape[2:])}: {type(self.network).__name__} was built for "
                f"{self.only} and runs at no other size; give windows of that size"
            )
        return [self.network(x)]


class _AsItIs(nn.Module):
    """Stand where a head does: the library's network has its own."""

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x
