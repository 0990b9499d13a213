"""What a network makes of an input's size: padded where it does not divide, refused by its axes."""

from dataclasses import dataclass

from torch import Tensor

from blocks.base import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The input of a network: (B, in_channels, *grid), padded at the far end of every axis.

    An input at `patch_size` is padded to `padded_size`, which the plan found; any other to the next
    size that divides by `total_stride`.
    """

    in_channels: int
    patch_size: Grid
    padded_size: Grid
    total_stride: Grid

    def padded(self, grid: Grid) -> Grid:
        """Return the size that the network runs at."""
        if grid == self.patch_size:
            return self.padded_size
        return next_size(grid, self.total_stride)

    def check(self, x: Tensor) -> None:
        """Refuse what is no batch of this network's images.

        Raises:
            ValueError: one sentence: an axis too few or too many, or other channels.
        """
        ndim, shape = len(self.patch_size), tuple(x.shape)
        axes = "(batch, channels, height, width)"
        if ndim == 3:
            axes = "(batch, channels, depth, height, width)"
        if x.ndim == ndim + 1:
            raise ValueError(
                f"input of shape {shape}: this {ndim}-D network takes {axes}; where the batch axis "
                "is missing, give x[None]"
            )
        if x.ndim != ndim + 2:
            raise ValueError(
                f"input of shape {shape}: this {ndim}-D network takes {axes}, which are {ndim + 2} "
                f"axes and not {x.ndim}"
            )
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"input of shape {shape}: {x.shape[1]} channels, but this network was built for "
                f"{self.in_channels}; build it with in_channels={x.shape[1]}, or give axes as "
                f"{axes}"
            )


def next_size(grid: Grid, divisor: Grid) -> Grid:
    """Return the smallest size that is nowhere smaller and divides."""
    return tuple(-(-n // d) * d for n, d in zip(grid, divisor, strict=True))


def far_end(grid: Grid, padded: Grid) -> list[int]:
    """Return what `torch.nn.functional.pad` takes to fill an input up at its far end."""
    pairs = [(0, to - n) for n, to in zip(grid, padded, strict=True)]
    return [count for pair in reversed(pairs) for count in pair]
