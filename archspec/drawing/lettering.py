"""How wide text is, estimated from above, so that it fits its box in any usual font.

A letter counts as wide as the widest of DejaVu Sans and Helvetica, with which Arial and Liberation
Sans agree, has it: these are the fonts that a drawing asks for. What is not ASCII is taken for
wider than in most fonts.
"""

from blocks.errors import printable

_REGULAR = {
    **{28: "'ijl", 30: "I", 32: " ,.", 34: "/:;\\|", 36: "f", 37: "-", 40: "()[]t", 41: "!"},
    **{42: "r", 46: '"', 50: "*J`", 53: "sz", 55: "c", 56: "?L_", 58: "k", 60: "vxy"},
    **{62: "FTaeo", 64: "$0123456789bdghnpqu{}", 67: "EKPSY", 69: "ABVXZ", 73: "CR", 74: "U"},
    **{75: "N", 76: "H", 78: "&DG", 79: "OQ", 82: "w", 84: "#+<=>^~", 87: "M", 96: "%"},
    **{98: "m", 99: "W", 102: "@"},
}
_BOLD = {
    **{31: "'", 35: " ijl", 37: "/\\|", 38: ",.I", 40: ":;", 42: "-", 44: "f", 46: "!()[]"},
    **{48: "t", 50: "`r", 53: '"*', 56: "J_", 59: "z", 60: "cs", 62: "?", 64: "L", 65: "x"},
    **{66: "vy", 67: "k", 68: "ae", 69: "EFTo", 70: "$0123456789", 72: "bdghnpqu{}"},
    **{73: "SYZ", 74: "CP", 77: "B", 78: "AKRVX", 82: "U", 83: "G", 84: "#+<=>DHN^~", 86: "OQ"},
    **{88: "&", 93: "w", 100: "@M", 101: "%", 105: "m", 111: "W"},
}
"""Hundredths of the size of the font -> letters."""
_OTHER = 140

_WIDTHS = {
    bold: {letter: width for width, letters in table.items() for letter in letters}
    for bold, table in ((False, _REGULAR), (True, _BOLD))
}
_CUT = "..."


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Return at most how wide the text is, in the unit of the font's size."""
    table = _WIDTHS[bold]
    return sum(table.get(letter, _OTHER) for letter in text) * size / 100


def fitted(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """Return the text as it can be printed, cut off with dots where it is wider than the room."""
    text = printable(text)
    if width(text, size, bold=bold) <= room:
        return text
    while text and width(text + _CUT, size, bold=bold) > room:
        text = text[:-1]
    return text.rstrip() + _CUT


def wrapped(text: str, room: float, size: float, *, most: int) -> list[str]:
    """Return the text in lines that fit the room; what is more than `most` lines is cut off."""
    words = printable(text).split()
    lines: list[str] = []
    while words and len(lines) < most - 1:
        count = 1
        while count < len(words) and width(" ".join(words[: count + 1]), size) <= room:
            count += 1
        lines.append(fitted(" ".join(words[:count]), room, size))
        words = words[count:]
    return [*lines, fitted(" ".join(words), room, size)] if words else lines
