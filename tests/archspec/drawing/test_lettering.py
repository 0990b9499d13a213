"""Estimated widths of text, beside those of the fonts that drawings ask for."""

import re
import string

import pytest

from archspec.drawing.lettering import fitted, width, wrapped
from tests.archspec.drawing.picture import FONTS, font

LETTERS = string.ascii_letters + string.digits + string.punctuation + " "
WORDS = ["128 x 128 x 128", "2 x conv/mamba + attention", "100% of FLOPs", "AVAST, Tomato: WAVY"]


def helvetica(bold: bool) -> dict[str, int]:
    """Return the thousandths of each letter's width; Arial and Liberation Sans have the same."""
    name = "phvb8a.afm" if bold else "phvr8a.afm"
    text = (FONTS / "afm" / name).read_text(encoding="latin-1")
    found = re.findall(r"^C (\d+) ; WX (\d+) ;", text, re.MULTILINE)
    return {chr(int(code)): int(size) for code, size in found}


@pytest.mark.parametrize("bold", [False, True])
def test_no_letter_is_wider_than_estimated_nor_far_narrower(bold: bool) -> None:
    other = helvetica(bold)
    for letter in LETTERS:
        real = max(font(bold).getlength(letter), other.get(letter, 0))
        assert real <= 1000 * width(letter, 1, bold=bold) < real + 15, letter


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("text", [*WORDS, "Gro\u00dfe \u00c4rzte", "\u0416\u0429\u042e \u03a9"])
def test_no_text_is_wider_than_estimated(text: str, bold: bool) -> None:
    assert font(bold).getlength(text) <= 1000 * width(text, 1, bold=bold)


def test_what_does_not_fit_is_cut() -> None:
    assert fitted("conv", width("conv", 12), 12) == "conv"
    cut = fitted("a long name of a kind", 60, 12)
    assert cut.endswith("...") and cut.startswith("a lo") and width(cut, 12) <= 60
    assert fitted("a\nb\u202e", 200, 12) == r"a\nb\u202e"


def test_lines_fit_and_no_word_is_lost_while_there_is_room() -> None:
    text = "one two three four five six seven"
    lines = wrapped(text, 80, 12, most=9)
    assert " ".join(lines) == text and len(lines) > 2
    assert all(width(line, 12) <= 80 for line in lines)
    assert wrapped(text, 80, 12, most=2) == [lines[0], fitted(" ".join(lines[1:]), 80, 12)]
    assert wrapped("", 80, 12, most=2) == []
    assert wrapped("x" * 99, 80, 12, most=2) == [fitted("x" * 99, 80, 12)]
