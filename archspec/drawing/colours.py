"""The colours of drawings, light and dark.

Kinds of mixer are told apart with any colour vision: a test simulates three deficiencies. No colour
says what a word beside it does not.
"""

from dataclasses import dataclass, fields

ROOT = "archspec-drawing"
"""The class of every drawing: its style may stand in a page beside others."""
FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Theme:
    """One colour for each role; `track` is what shares are measured along."""

    page: str
    box: str
    panel: str
    ink: str
    muted: str
    line: str
    track: str
    share: str
    conv: str
    attention: str
    mamba: str
    tom: str
    other: str


LIGHT = Theme(
    page="#ffffff",
    box="#f6f8fa",
    panel="#ffffff",
    ink="#1f2328",
    muted="#57606a",
    line="#818b98",
    track="#d8dee4",
    share="#57606a",
    conv="#0e5ac9",
    attention="#f35c10",
    mamba="#12a375",
    tom="#a7377f",
    other="#692f15",
)
DARK = Theme(
    page="#0d1117",
    box="#161b22",
    panel="#0d1117",
    ink="#e6edf3",
    muted="#9ba5b0",
    line="#768390",
    track="#343b45",
    share="#9ba5b0",
    conv="#6996ff",
    attention="#f4b100",
    mamba="#39e2b3",
    tom="#c16c9d",
    other="#ffff28",
)
MIXERS = ("conv", "attention", "mamba", "tom", "other")


def role_of(mixer: str) -> str:
    """Return whose colour a kind of mixer has: its own, none, or that of all other kinds."""
    if mixer == "identity":
        return "track"
    return mixer if mixer in MIXERS else "other"


def style() -> str:
    """Return the style sheet: light, and dark where the reader's system is."""
    return "\n".join(
        [
            f".{ROOT}{{font-family:{FONTS}}}",
            *_rules(LIGHT),
            "@media (prefers-color-scheme:dark){",
            *_rules(DARK),
            "}",
        ]
    )


def _rules(theme: Theme) -> list[str]:
    colours = {one.name: getattr(theme, one.name) for one in fields(theme)}
    filled = [f".{ROOT} .{name}{{fill:{colour}}}" for name, colour in colours.items()]
    return [
        *(rule for rule in filled if ".line{" not in rule),
        f".{ROOT} .line{{fill:none;stroke:{theme.line}}}",
        f".{ROOT} .head{{fill:{theme.line}}}",
        f".{ROOT} .box,.{ROOT} .panel{{stroke:{theme.line}}}",
    ]
