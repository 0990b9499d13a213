"""One box of a drawing, or the panel around several, as what it says."""

from dataclasses import dataclass

from blocks.base import Grid


@dataclass(frozen=True, slots=True)
class Tile:
    """Three lines: heading and what stands to its right, grid, note; `share` is of all FLOPs.

    `mixers` are the kinds of mixer to mark, one per block where there are few; `stage` is its
    number, where it is one.
    """

    heading: str
    right: str = ""
    grid: str = ""
    note: str = ""
    share: float | None = None
    mixers: tuple[str, ...] = ()
    stage: int | None = None

    @property
    def words(self) -> str:
        """Return all of it as one line."""
        share = "" if self.share is None else share_text(self.share)
        stage = "" if self.stage is None else f"stage {self.stage}: "
        parts = [self.heading, self.right, self.grid, self.note]
        return stage + ", ".join(filter(None, [*parts, share if share != self.note else ""]))


@dataclass(frozen=True, slots=True)
class Panel:
    """What stands above tiles that are one part."""

    heading: str
    share: float

    @property
    def words(self) -> str:
        """Return all of it as one line."""
        return f"{self.heading}, {share_text(self.share)}"


def share_text(share: float) -> str:
    """Return a share of all FLOPs in whole per cent."""
    return f"{'<1%' if 0 < share < 0.005 else f'{share:.0%}'} of FLOPs"


def grid_text(grid: Grid) -> str:
    """Return sizes as `describe` prints them, with room between."""
    return " x ".join(map(str, grid))
