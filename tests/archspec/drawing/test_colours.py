"""Colours that everyone can tell apart, and read text in: light and dark."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from archspec.drawing.colours import DARK, LIGHT, MIXERS, Theme, role_of
from blocks.mixers import MIXERS as KINDS

Floats = NDArray[np.float64]
VISIONS: dict[str, Floats] = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""Linear RGB as it is seen: Machado, Oliveira and Fernandes, 2009, at severity 1."""
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def linear(colour: str) -> Floats:
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: Floats) -> Floats:
    """Return hundredths of OKLab, of which about two can just be told apart."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    found: Floats = 100 * np.array(axes) @ np.cbrt(np.array(cones) @ np.clip(rgb, 0, 1))
    return found


def contrast(one: str, other: str) -> float:
    """Return the ratio of WCAG 2."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    dark, light = sorted(float(weights @ linear(colour)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


@THEMES
@pytest.mark.parametrize("vision", VISIONS)
def test_kinds_of_mixer_are_told_apart(theme: Theme, vision: str) -> None:
    seen = [oklab(VISIONS[vision] @ linear(getattr(theme, kind))) for kind in MIXERS]
    near = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
    assert near > 10


@THEMES
def test_text_and_marks_stand_out(theme: Theme) -> None:
    for ground in (theme.page, theme.panel, theme.box):
        assert contrast(theme.ink, ground) > 7
        assert contrast(theme.muted, ground) > 4.5
        for mark in (theme.line, theme.share, *(getattr(theme, kind) for kind in MIXERS)):
            assert contrast(mark, ground) >= 3, mark
    assert contrast(theme.share, theme.track) > 3


def test_every_mixer_of_ours_has_a_colour_and_others_share_one() -> None:
    assert {role_of(kind) for kind in KINDS.kinds() if kind != "cycle"} == {
        *MIXERS[:-1],
        "track",
    }
    assert role_of("page") == role_of("mine") == "other"
