"""What `ablation.json` says, for a terminal of 80 columns."""

from typing import Any

_POINTS = 100
"""Dice points: hundredths."""


def ablation_text(found: dict[str, Any]) -> str:
    """Return three lines per part: what it is worth and over what, if that is sure, its cost."""
    seeds, cases = found["seeds"], found["num_cases"]
    lines = [
        f"{found['name']} on {found['dataset']}: {found['steps']} steps, {seeds} "
        f"seed{'s' * (seeds != 1)}, {cases} {found['compared_on']} case{'s' * (cases != 1)}",
    ]
    if found["original"]["dice"] is not None:
        lines.append(f"as it is: Dice {_POINTS * found['original']['dice']:.1f} of 100")
    for part in found["parts"]:
        lines += _part(part)
    lines += [f"left out: {name}: {reason}" for name, reason in found["left_out"].items()]
    lines += [f"failed: {name}: {reason}" for name, reason in found["failed"].items()]
    lines.append("worth: Dice points, mean with its 95 % interval over seeds and cases; p by Holm")
    if seeds == 1:
        lines.append("One seed: intervals hold the noise of cases only; give --seeds 3 or more.")
    return "\n".join(lines)


def _part(part: dict[str, Any]) -> list[str]:
    worth, costs = part["worth"], part["costs"]
    over = f"over {part['instead']}" if part["instead"] != "none" else "over leaving it out"
    if worth is None:
        text, verdict = f"{part['part']}: no training to compare", "unknown"
    else:
        mean = f"{_POINTS * worth['mean']:+.1f}"
        interval = "" if worth["low"] is None else _interval(worth["low"], worth["high"])
        text = f"{part['part']}: worth {mean}{interval} {over}"
        verdict = "one case, no interval"
        if worth["p_holm"] is not None:
            verdict = "exceeds noise" if worth["exceeds_noise"] else "within noise"
            verdict = f"p {worth['p_holm']:.4f}: {verdict}"
    scan = f", {costs['scan_gflop']:+.3f} scan GFLOP" if costs["scan_gflop"] else ""
    return [
        text,
        f"    {verdict}",
        f"    costs {costs['gmac']:+.3f} GMAC{scan}, {costs['params']:+,} parameters",
    ]


def _interval(low: float, high: float) -> str:
    return f" [{_POINTS * low:+.1f}, {_POINTS * high:+.1f}]"
