"""Words of messages: what may have been meant, a value as YAML has it."""

import difflib
from collections.abc import Sequence
from typing import Any


def nearest(word: str, allowed: Sequence[str]) -> str:
    """Return the word that may have been meant; nothing where none is near."""
    return next(iter(difflib.get_close_matches(word, allowed, n=1)), "")


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """Return a question with the word that may have been meant; nothing where none is near."""
    close = nearest(word, allowed)
    return f"did you mean {close!r}?" if close else ""


def shown(value: Any) -> str:
    """Return the value much as YAML has it, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    text = f"[{', '.join(map(shown, value))}]" if isinstance(value, tuple) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
