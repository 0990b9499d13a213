"""Pictures of scored cases: a slice of each, with the outlines of its label and its prediction.

Of every training the best, the median and the worst case are kept, small and of bounded size, so
that whoever shows them needs neither the data nor the network.
"""

import base64
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from archspec.files import write_text
from blocks.errors import SpecError
from search.trials.cases import Predicted

PICTURES = "pictures.json"
SIDE = 224
"""Pixels of the longer side, at most."""
LARGEST = SIDE * (SIDE + 1) + 1024
"""Bytes of a picture that deflate cannot make smaller."""
Which = Literal["best", "median", "worst"]
LABEL, PREDICTION, BOTH = "#E69F00", "#56B4E9", "#FFFFFF"
"""Colours of outlines: of the label alone, of the prediction alone, and where they are one."""
_GRAYS = 64
_BRIGHTEST = 200
_MARGIN = 0.3
"""Of the extent of what is outlined, that is shown around it."""
_LEAST_MARGIN = 12
_START = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Drawn:
    """A PNG of plane `plane` of `planes`, counted from 1 along the first axis."""

    plane: int
    planes: int
    png: bytes


@dataclass(frozen=True)
class Picture:
    """A case, its Dice, and what of it is shown."""

    which: Which
    case: str
    dice: float
    drawn: Drawn


def draw(one: Predicted) -> Drawn:
    """Draw the plane where the label has most foreground: first channel, and outlines.

    Where it has none that of the prediction counts. The plane is cut to the outlines and a margin,
    and thinned or enlarged by whole factors.
    """
    assert one.image is not None
    image, label, prediction = (
        np.asarray(part)[None] if np.ndim(part) == 2 else np.asarray(part)
        for part in (one.image[0], one.reference, one.prediction)
    )
    judged = np.ones(label.shape, bool) if one.ignore is None else label != one.ignore
    label, prediction = (np.where(judged & (part > 0), part, 0) for part in (label, prediction))
    marked = (label > 0) | (prediction > 0)
    areas = (label > 0 if label.any() else marked).sum((1, 2))
    plane = int(areas.argmax()) if areas.any() else len(areas) // 2
    rows, columns = (_window(marked[plane].any(axis)) for axis in (1, 0))
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    thinned = slice(None, None, math.ceil(longer / SIDE))
    zoom = max(1, SIDE // longer)
    gray, *outlined = (
        np.kron(part[rows, columns][thinned, thinned], np.ones((zoom, zoom), part.dtype))
        for part in (_gray(image[plane]), label[plane], prediction[plane])
    )
    first, second = map(_outline, outlined)
    gray[first], gray[second], gray[first & second] = _GRAYS, _GRAYS + 1, _GRAYS + 2
    return Drawn(plane + 1, len(areas), _png(gray))


def three_of(
    scores: Mapping[str, Mapping[str, float]], drawn: Mapping[str, Drawn]
) -> list[Picture]:
    """Return the best, the median and the worst case by mean Dice; fewer where there are fewer."""
    known = {case: scores[case]["mean"] for case in drawn}
    order = sorted((case for case in known if not math.isnan(known[case])), key=known.__getitem__)
    if not order:
        return []
    places: dict[int, Which] = {len(order) - 1: "best"}
    for place, which in ((0, "worst"), (len(order) // 2, "median")):
        places.setdefault(place, which)  # type: ignore[arg-type]
    found = [
        Picture(which, order[place], known[order[place]], drawn[order[place]])
        for place, which in places.items()
    ]
    return sorted(found, key=lambda picture: get_args(Which).index(picture.which))


def write_pictures(file: Path, part: str, pictures: list[Picture]) -> None:
    """Write them, of cases of this part.

    Raises:
        WriteError: they cannot be written.
    """
    rows = [
        {
            "which": one.which,
            "case": one.case,
            "dice": one.dice,
            "plane": one.drawn.plane,
            "planes": one.drawn.planes,
            "png": base64.b64encode(one.drawn.png).decode(),
        }
        for one in pictures
    ]
    write_text(file, json.dumps({"part": part, "pictures": rows}))


def read_pictures(file: Path) -> tuple[str, list[Picture]]:
    """Return the part that the cases are of, and the pictures.

    Raises:
        SpecError: it holds something else; it may be of any size.
    """
    try:
        if file.stat().st_size > len(get_args(Which)) * 2 * LARGEST:
            raise ValueError("too large")
        content = json.loads(file.read_bytes().decode())
        found = [_picture(row) for row in content["pictures"]]
        if len({one.which for one in found}) < len(found):
            raise ValueError("one kind twice")
        return str(content["part"]), found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SpecError("damaged", where=file, suggestion="archspec report --no-images") from None


def _picture(row: Any) -> Picture:
    """Read a picture.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    png = base64.b64decode(row["png"], validate=True)
    dice, plane, planes = float(row["dice"]), int(row["plane"]), int(row["planes"])
    if row["which"] not in get_args(Which) or not png.startswith(_START) or not 0 <= dice <= 1:
        raise ValueError("no picture")
    return Picture(row["which"], str(row["case"]), dice, Drawn(plane, planes, png))


def _window(marked: NDArray[Any]) -> slice:
    """Return what of an axis is shown: all where nothing is marked."""
    places = np.flatnonzero(marked)
    if not len(places):
        return slice(0, len(marked))
    low, high = int(places[0]), int(places[-1]) + 1
    margin = max(_LEAST_MARGIN, round(_MARGIN * (high - low)))
    return slice(max(0, low - margin), min(len(marked), high + margin))


def _gray(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """Return indices of grays; what few voxels have alone does not set the ends."""
    low, high = np.percentile(plane, (0.5, 99.5))
    share = (plane.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.asarray((share.clip(0, 1) * (_GRAYS - 1)).round(), np.uint8)


def _outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the foreground pixels beside one of another label."""
    around = np.pad(labels, 1)
    size = around.shape
    beside = [
        around[1 + y : size[0] - 1 + y, 1 + x : size[1] - 1 + x]
        for y, x in ((0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    return np.asarray((labels > 0) & np.any([other != labels for other in beside], axis=0))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG of grays and the colours of outlines, by their indices."""
    grays = np.linspace(0, _BRIGHTEST, _GRAYS).astype(np.uint8)
    palette = grays.repeat(3).tobytes()
    palette += b"".join(bytes.fromhex(color[1:]) for color in (LABEL, PREDICTION, BOTH))
    height, width = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each begins with its filter, 0: none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": palette,
        b"IDAT": zlib.compress(lines.tobytes(), 9),
        b"IEND": b"",
    }
    return _START + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
