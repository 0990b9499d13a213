"""Ranges and ticks of the axes that both the page's and the picture's figures use."""

import math
from collections.abc import Iterable


def log_ticks(values: Iterable[float]) -> tuple[list[float], list[str]]:
    """Return ticks at 1, 2 and 5 of every decade that the values touch, or at 1 of many decades."""
    low, high = log_range(values)
    decades = range(math.floor(low), math.ceil(high) + 1)
    digits = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return ticks, [f"{tick:g}" for tick in ticks]


def log_range(values: Iterable[float]) -> tuple[float, float]:
    """Return log10 of the ends of an axis: a margin around the values, and room for two ticks."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = min(logs), max(logs)
    margin = max(0.06 * (high - low), 0.05, (0.7 - (high - low)) / 2)
    return low - margin, high + margin


def dice_range(values: Iterable[float]) -> tuple[float, float]:
    """Return the ends of an axis of Dice: a margin around the values, never outside -0.02..1.02."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    margin = max(0.07 * (high - low), 0.01)
    return max(low - margin, -0.02), min(high + margin, 1.02)


def apart(points: Iterable[tuple[float, float]], dx: float, dy: float) -> list[int]:
    """Return the indices of points to label: each farther than (dx, dy) from those before it."""
    chosen: list[tuple[int, float, float]] = []
    for index, (x, y) in enumerate(points):
        if all(abs(x - u) > dx or abs(y - v) > dy for _, u, v in chosen):
            chosen.append((index, x, y))
    return [index for index, _, _ in chosen]
