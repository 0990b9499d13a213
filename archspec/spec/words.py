"""Words of messages: what is allowed, what may have been meant, a value as YAML has it."""

import difflib
from collections.abc import Sequence
from typing import Any


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """Return a clause that lists what is allowed, and the nearest word to what was written."""
    close = difflib.get_close_matches(word, allowed, n=1)
    return f"; allowed: {', '.join(allowed)}" + (f"; did you mean {close[0]!r}?" if close else "")


def shown(value: Any) -> str:
    """Return the value much as YAML has it, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    text = f"[{', '.join(map(shown, value))}]" if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
