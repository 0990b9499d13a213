"""Look at an SVG as a reader does: which of its texts, boxes and lines are in each other's way.

Widths of text are those of a real font, not those that the drawing was laid out by.
"""

import itertools
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

FONTS = Path(matplotlib.get_data_path()) / "fonts"
_SVG = "{http://www.w3.org/2000/svg}"
_ABOVE, _BELOW = 0.76, 0.24
"""Of the font's size: how far letters reach from the base line in DejaVu Sans."""


@cache
def font(bold: bool) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, the widest of the fonts that drawings ask for, at 1000 units."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(FONTS / "ttf" / name), 1000)


@dataclass(frozen=True)
class Area:
    """A rectangle, and what it is."""

    what: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Area") -> bool:
        """Say whether both share more than an edge."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: "Area") -> bool:
        """Say whether the other is inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def _text(element: ElementTree.Element) -> Area:
    text, size = element.text or "", float(element.attrib["font-size"])
    wide = font("font-weight" in element.attrib).getlength(text) * size / 1000
    x, y = float(element.attrib["x"]), float(element.attrib["y"])
    left = {"start": x, "middle": x - wide / 2, "end": x - wide}[
        element.attrib.get("text-anchor", "start")
    ]
    return Area(text, left, y - _ABOVE * size, left + wide, y + _BELOW * size)


def _rect(element: ElementTree.Element) -> Area:
    x, y, w, h = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
    return Area(element.attrib["class"], x, y, x + w, y + h)


def _lines(element: ElementTree.Element) -> list[Area]:
    words = element.attrib["d"].replace("M", "").split(" L")
    points = [tuple(map(float, word.split())) for word in words]
    return [
        Area("line", min(a, c), min(b, d), max(a, c), max(b, d))
        for (a, b), (c, d) in itertools.pairwise(points)
    ]


def faults(svg: str) -> list[str]:
    """Return what overlaps, sticks out or is crossed."""
    root = ElementTree.fromstring(svg)
    texts = [_text(one) for one in root.iter(f"{_SVG}text")]
    rects = [_rect(one) for one in root.iter(f"{_SVG}rect")]
    lines = [line for one in root.iter(f"{_SVG}path") for line in _lines(one)]
    page, *rects = rects
    boxes = [one for one in rects if one.what == "box"]
    panels = [one for one in rects if one.what == "panel"]
    bars = [one for one in rects if one.what not in ("box", "panel")]
    found = [f"off the page: {one}" for one in texts + rects + lines if not page.holds(one)]
    pairs = [
        *itertools.combinations(texts, 2),
        *itertools.combinations(boxes, 2),
        *itertools.combinations(panels, 2),
        *itertools.product(texts, bars),
        *itertools.product(lines, texts),
        *itertools.product(lines, boxes),
        *itertools.product(lines, bars),
    ]
    found += [f"{one} meets {other}" for one, other in pairs if one.meets(other)]
    for frame, inner in itertools.product(boxes + panels, texts + boxes + bars):
        if frame is not inner and frame.meets(inner) and not frame.holds(inner):
            found.append(f"{inner} leaves {frame}")
    return found


def words(svg: str) -> list[str]:
    """Return all texts."""
    return [one.text or "" for one in ElementTree.fromstring(svg).iter(f"{_SVG}text")]
