"""What `confirmed.json` says, for a terminal of 80 columns."""

from typing import Any

from archspec.text import table

_NO_TEST = (
    "The run has no test part (search.test_share): Dice is on the validation cases\n"
    "that the search chose by, so it flatters."
)


def confirmed_text(found: dict[str, Any]) -> str:
    """Return a table of points and a line per difference between neighbours."""
    tested = found["compared_on"] == "test"
    parts = ["validation", "test"][: 1 + tested]
    head = ["trial", "GFLOPs", "params", "searched"]
    head += [word for part in parts for word in (part, "sd")]
    rows = [[*head, "drop"]]
    for point in found["points"]:
        row = [str(point["trial"]), f"{point['gflops']:.3f}", f"{point['params']:,}"]
        row.append(f"{point['searched']:.3f}")
        for part in parts:
            row += [_number(point[part]["mean"], 3), _number(point[part]["sd"], 3)]
        rows.append([*row, _number(point["drop"], 3, sign=True)])
    seeds, steps = found["seeds"], found["steps"]
    lines = [
        f"The front, trained again with {seeds} seed{'s' * (seeds > 1)} for {steps} steps: mean "
        "Dice of the classes",
        *table(rows),
        f"searched: Dice when it was chosen; drop: from there to {parts[-1]}",
        "sd: standard deviation of the means of the seeds",
    ]
    counts = found["num_cases"]
    lines.append("cases: " + ", ".join(f"{counts[part]} {part}" for part in parts))
    if not tested:
        lines.append(_NO_TEST)
    if found["differences"]:
        lines += ["", f"Neighbours along the front, on {parts[-1]} cases:"]
        lines += [_compared(one) for one in found["differences"]]
    if seeds == 1:
        lines.append("One seed: intervals hold the noise of cases only; give --seeds 3 or more.")
    lines += [f"failed: {name}: {reason}" for name, reason in found["failed"].items()]
    return "\n".join(lines)


def _compared(one: dict[str, Any]) -> str:
    text = f"  {one['a']} - {one['b']}: {one['mean']:+.3f}"
    if one["p_holm"] is None:
        return f"{text}: one case, no interval"
    verdict = "exceeds noise" if one["exceeds_noise"] else "within noise"
    return (
        f"{text} [{one['low']:+.3f}, {one['high']:+.3f}], p {one['p_holm']:.4f} (Holm): {verdict}"
    )


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
