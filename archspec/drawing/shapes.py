"""What a drawing is made of: boxes, bars, lines and labels, each as one element of SVG."""

from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from archspec.drawing.lettering import width

Anchor = Literal["start", "middle", "end"]
_TIP = 7.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `role` is its colour, `round` the radius of its corners."""

    x: float
    y: float
    w: float
    h: float
    role: str
    round: float = 0
    dashed: bool = False

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def middle(self) -> float:
        """Return the height of its middle."""
        return self.y + self.h / 2

    def svg(self) -> str:
        corner = f' rx="{_n(self.round)}"' if self.round else ""
        dashes = ' stroke-dasharray="4 3"' if self.dashed else ""
        return (
            f'<rect class="{self.role}" x="{_n(self.x)}" y="{_n(self.y)}" '
            f'width="{_n(self.w)}" height="{_n(self.h)}"{corner}{dashes}/>'
        )


@dataclass(frozen=True, slots=True)
class Label:
    """One line of text on its base line; it fits wherever it was put, see `lettering`."""

    x: float
    y: float
    text: str
    size: float
    role: str = "ink"
    bold: bool = False
    anchor: Anchor = "start"

    @property
    def w(self) -> float:
        """Return at most how wide it is."""
        return width(self.text, self.size, bold=self.bold)

    def svg(self) -> str:
        weight = ' font-weight="bold"' if self.bold else ""
        anchor = "" if self.anchor == "start" else f' text-anchor="{self.anchor}"'
        return (
            f'<text class="{self.role}" x="{_n(self.x)}" y="{_n(self.y)}" '
            f'font-size="{_n(self.size)}"{weight}{anchor}>{escape(self.text)}</text>'
        )


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line through points, level or upright from each to the next, with a tip at the last."""

    points: tuple[tuple[float, float], ...]
    tip: bool = True

    def svg(self) -> str:
        *first, last = self.points
        path = " L".join(f"{_n(x)} {_n(y)}" for x, y in (*first, last))
        line = f'<path class="line" d="M{path}"/>'
        if not self.tip:
            return line
        (x, y), (before_x, before_y) = last, first[-1]
        along = ((x > before_x) - (x < before_x), (y > before_y) - (y < before_y))
        base = (x - _TIP * along[0], y - _TIP * along[1])
        side = (_TIP / 2 * along[1], _TIP / 2 * along[0])
        corners = (last, *((base[0] + s * side[0], base[1] + s * side[1]) for s in (1, -1)))
        tip = " ".join(f"{_n(a)},{_n(b)}" for a, b in corners)
        return f'{line}<polygon class="head" points="{tip}"/>'


Shape = Box | Label | Arrow


def _n(number: float) -> str:
    """Return the number as short as it can be written, to a tenth."""
    return f"{number:.1f}".removesuffix(".0")
