"""Where everything of a drawing stands: encoder going down, skips, decoder going up, outputs."""

from archspec.drawing.colours import role_of
from archspec.drawing.content import Content
from archspec.drawing.lettering import fitted, wrapped
from archspec.drawing.shapes import Arrow, Box, Label, Shape
from archspec.drawing.tile import Panel, Tile, share_text

MARGIN = 24.0
_TILE, _LEVEL, _HEAD = 270.0, 176.0, 176.0
_HEIGHT, _PITCH = 66.0, 92.0
_GAP, _PAD, _OUT = 152.0, 20.0, 30.0
_ABOVE = 54.0
"""What the heading of a panel takes above its first tile."""

_STAGES_X = MARGIN + _PAD
_LEVELS_X = _STAGES_X + _TILE + _GAP
_HEADS_X = _LEVELS_X + _LEVEL + _PAD + _OUT
WIDTH = _HEADS_X + _HEAD + MARGIN

_NAME, _TITLE, _BIG, _USUAL, _SMALL = 20.0, 13.0, 13.0, 12.0, 11.0


def lay_out(content: Content) -> tuple[list[Shape], float]:
    """Return what is drawn, back to front, and the height of it all; `WIDTH` is its width."""
    shapes, top = _heading(content)
    at_input = min(level.row for level in content.levels) == 0 and content.decoder is not None
    return _Rows(content, top + (_ABOVE if at_input else 0)).shapes(shapes)


def _heading(content: Content) -> tuple[list[Shape], float]:
    room = WIDTH - 2 * MARGIN
    y = MARGIN + 16
    name = fitted(content.name, room, _NAME, bold=True)
    shapes: list[Shape] = [Label(MARGIN, y, name, _NAME, bold=True)]
    lines = [(line, "ink") for line in wrapped(content.title, room, _TITLE, most=2)]
    figures = "; ".join(content.figures)
    lines += [(line, "muted") for line in wrapped(figures, room, _TITLE, most=2)]
    y += 4
    for text, role in lines:
        y += 18
        shapes.append(Label(MARGIN, y, text, _TITLE, role))
    return shapes, y + 24


class _Rows:
    """The columns of one network below its heading."""

    def __init__(self, content: Content, top: float) -> None:
        self.content, self.top = content, top
        self.stages = [
            Box(_STAGES_X, self._y(row), _TILE, _HEIGHT, "box", 5)
            for row in range(len(content.rows))
        ]
        wider = _GAP / 2 if content.decoder is None else 0  # alone, and its package has a long name
        self.levels = [
            Box(_LEVELS_X - wider, self._y(level.row), _LEVEL + wider, _HEIGHT, "box", 5)
            for level in content.levels
        ]
        self.heads = [
            Box(_HEADS_X, self.levels[head.level].y, _HEAD, _HEIGHT, "box", 20)
            for head in content.heads
        ]
        self.panel = self._panel()

    def _y(self, row: int) -> float:
        below_heading = _ABOVE if row and self.content.encoder is not None else 0
        return self.top + row * _PITCH + below_heading

    def _panel(self) -> Box:
        """Return the box around the decoder, its skips that end at no level included."""
        beside = {level.row for level in self.content.levels}
        ends = [skip.row for skip in self.content.skips if self.content.flow != "up"]
        rows = sorted(beside.union(ends))
        above = 0 if self.content.decoder is None else _ABOVE
        return _around(_LEVELS_X, _LEVEL, self._y(rows[0]) - above, self._y(rows[-1]))

    def shapes(self, heading: list[Shape]) -> tuple[list[Shape], float]:
        """Return all that is drawn, behind the heading, and the height."""
        content, found = self.content, list(heading)
        if content.encoder is not None:
            first, last = self._y(1), self._y(len(content.rows) - 1)
            around = _around(_STAGES_X, _TILE, first - _ABOVE, last)
            found += _panel_shapes(content.encoder, around)
            found.append(_down(self.stages[0].bottom, around.y, _STAGES_X))
        if content.decoder is not None:
            found += _panel_shapes(content.decoder, self.panel)
        start = 1 if content.encoder is None else 2
        for above, below in zip(self.stages[start - 1 :], self.stages[start:], strict=False):
            found.append(_down(above.bottom, below.y, _STAGES_X))
        found += self._skips() + self._flow() + self._outputs()
        for tile, box in (
            *zip(content.rows, self.stages, strict=True),
            *((level.tile, box) for level, box in zip(content.levels, self.levels, strict=True)),
            *((head.tile, box) for head, box in zip(content.heads, self.heads, strict=True)),
        ):
            found += _tile_shapes(tile, box)
        boxes = [shape for shape in found if isinstance(shape, Box)]
        return found, max(box.bottom for box in boxes) + MARGIN

    def _skips(self) -> list[Shape]:
        found: list[Shape] = []
        beside = {level.row for level in self.content.levels if level.is_fed}
        for skip in self.content.skips:
            start = self.stages[skip.row]
            y = start.middle
            end: tuple[tuple[float, float], ...] = ((self.panel.x, y),)
            if skip.row in beside:
                end = ((self.levels[0].x, y),)
            elif self.content.flow == "up":
                middle = _LEVELS_X + _LEVEL / 2
                end = ((middle, y), (middle, self.levels[-1].bottom))
            found.append(Arrow(((start.right, y), *end)))
            room, x = _GAP - 2 * _PAD - 8, start.right + _GAP / 2
            for line, text in enumerate(wrapped(skip.label, room, _SMALL, most=2)):
                below = y - 6 if line == 0 else y + 15
                found.append(Label(x, below, text, _SMALL, "muted", anchor="middle"))
        return found

    def _flow(self) -> list[Shape]:
        if self.content.flow == "up":
            x = _LEVELS_X + _LEVEL / 2
            pairs = zip(self.levels, self.levels[1:], strict=False)
            return [Arrow(((x, below.y), (x, above.bottom))) for above, below in pairs]
        if self.content.flow == "none" or len(self.levels) < 2:
            return []
        bus = self.levels[0].right + 12
        first, *others = [(box.right, box.middle + 20) for box in self.levels]
        lines: list[Shape] = [Arrow((at, (bus, at[1])), tip=False) for at in others[:-1]]
        return [*lines, Arrow((others[-1], (bus, others[-1][1]), (bus, first[1]), first))]

    def _outputs(self) -> list[Shape]:
        return [
            Arrow(((self.levels[head.level].right, box.middle), (box.x, box.middle)))
            for head, box in zip(self.content.heads, self.heads, strict=True)
        ]


def _down(above: float, below: float, x: float) -> Shape:
    return Arrow(((x + _TILE / 2, above), (x + _TILE / 2, below)))


def _around(x: float, w: float, top: float, last: float) -> Box:
    height = last + _HEIGHT + 14 - top
    return Box(x - _PAD, top, w + 2 * _PAD, height, "panel", 8, dashed=True)


def _panel_shapes(panel: Panel, around: Box) -> list[Shape]:
    x, room = around.x + _PAD, around.w - 2 * _PAD
    heading = fitted(panel.heading, room, _BIG, bold=True)
    return [
        around,
        Label(x, around.y + 18, heading, _BIG, bold=True),
        Label(x, around.y + 34, share_text(panel.share), _USUAL),
        *_bar(x, around.y + 41, room, panel.share),
    ]


def _bar(x: float, y: float, room: float, share: float) -> list[Shape]:
    filled = room * min(1, share)
    track: list[Shape] = [Box(x, y, room, 4, "track", 2)]
    return [*track, Box(x, y, filled, 4, "share", 2)] if filled >= 1 else track


def _tile_shapes(tile: Tile, box: Box) -> list[Shape]:
    """Return the box, its stripe of mixers, its three lines, its bar."""
    found: list[Shape] = [box]
    left = box.x + 12
    if tile.stage is not None:
        found.append(
            Label(box.x - 6, box.middle + 4, str(tile.stage), _SMALL, "muted", anchor="end")
        )
    if tile.mixers:
        found += _stripe(tile.mixers, box)
        left += 10
    right = box.right - 12
    room = right - left
    share = "" if tile.share is None or not tile.right else share_text(tile.share)
    lines = ((tile.heading, tile.right, _BIG), (tile.grid, share, _USUAL), (tile.note, "", _SMALL))
    for line, (text, beside, size) in enumerate(lines):
        y, taken = box.y + (18, 35, 51)[line], 0.0
        if beside:
            end = Label(right, y, beside, _USUAL, anchor="end")
            found.append(end)
            taken = end.w + 10
        if text:
            bold, role = line == 0, "ink" if line < 2 else "muted"
            short = fitted(text, room - taken, size, bold=bold)
            found.append(Label(left, y, short, size, role, bold))
    if tile.share is not None:
        found += _bar(left, box.bottom - 9, room, tile.share)
    return found


def _stripe(mixers: tuple[str, ...], box: Box) -> list[Shape]:
    height = (box.h - 12 - 2 * (len(mixers) - 1)) / len(mixers)
    return [
        Box(box.x + 7, box.y + 6 + index * (height + 2), 8, height, role_of(kind), 1)
        for index, kind in enumerate(mixers)
    ]
