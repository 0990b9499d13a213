"""Words of messages: what may have been meant, a value as YAML has it."""

import difflib
from collections.abc import Sequence
from itertools import islice
from typing import Any

from blocks.errors import digits

SYNONYMS = {
    "heads": "num_heads",
    "n_heads": "num_heads",
    "channels": "width",
    "features": "width",
    "dim": "width",
    "embed_dim": "width",
    "out_channels": "width",
    "num_blocks": "depth",
    "blocks": "depth",
    "num_layers": "depth",
    "state": "d_state",
    "slices": "num_slices",
    "kernel": "kernel_size",
    "type": "kind",
    "name": "kind",
    "classes": "num_classes",
    "channels_in": "in_channels",
    "input_channels": "in_channels",
    "patch": "patch_size",
    "learning_rate": "lr",
    "initial_lr": "lr",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "scheduler": "schedule",
    "lr_schedule": "schedule",
    "grad_clip": "clip",
    "warmup_steps": "warmup",
    "warmup_epochs": "warmup",
    "activation": "act",
    "fusion": "combine",
    "sr_ratio": "reduction",
    "bias": "qkv_bias",
}
"""What other tools call a field -> ours."""
_MAX_SHOWN = 60


def nearest(word: str, allowed: Sequence[str]) -> str:
    """Return the word that may have been meant; nothing where none is near."""
    found = difflib.get_close_matches(word, allowed, n=1)
    return next(iter(found or difflib.get_close_matches(word.lower(), allowed, n=1)), "")


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
    if isinstance(value, int):
        return digits(value)
    if isinstance(value, tuple | list) and len(value) > _MAX_SHOWN:
        return f"a list of {len(value)}"
    if isinstance(value, tuple | list):
        text = f"[{', '.join(map(shown, islice(value, _MAX_SHOWN)))}]"
    else:
        text = repr(value[:_MAX_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def listed(values: Sequence[str], *, most: int = 12) -> str:
    """Return the values with commas; of many the first ones, and how many there are."""
    text = ", ".join(values[:most])
    return text if len(values) <= most else f"{text}, ... ({len(values)} in all)"
