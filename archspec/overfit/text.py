"""What `archspec overfit` prints: a page of at most 80 columns, or JSON."""

import math
from typing import Any

import torch

from archspec.network.plan import Plan
from archspec.nnunet.loss import output_weights
from archspec.overfit.patch import FixedPatch
from archspec.overfit.train import RECIPE, SHARE, Overfit
from archspec.text import table

_SHOWN = 6


def overfit_json(
    done: Overfit,
    planned: Plan,
    patch: FixedPatch,
    *,
    dataset: str,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Return the result with what it takes to repeat it."""
    weights = enumerate(output_weights(planned.spec.deep_supervision.heads))
    return {
        "name": planned.spec.name,
        "dataset": dataset,
        "case": patch.case,
        "patch": [planned.in_channels, *planned.patch_size],
        "start": list(patch.start),
        "cap": {
            "head_grid": list(done.cap.grid),
            "mean": done.cap.mean,
            "classes": dict(done.cap.scores),
            "averaged": done.cap.averaged,
        },
        "dice": {"mean": done.mean, "classes": done.scores},
        "share": done.share,
        "wanted_share": SHARE,
        "reached": done.reached,
        "failure": done.failure,
        "steps": done.steps,
        "seconds": done.seconds,
        "directions": {
            path: {
                name: {"first": _finite(norm), "last": _finite(done.last[path][name])}
                for name, norm in norms.items()
            }
            for path, norms in done.first.items()
        },
        "dead_directions": done.dead,
        "parameters_without_gradient": list(done.silent),
        "unweighted_head": next(
            (f"decoder.seg_layers.{i}" for i, weight in weights if weight == 0), None
        ),
        "recipe": RECIPE,
        "seed": seed,
        "device": str(device),
    }


def _finite(norm: float) -> float | None:
    """Return the norm, or None, for JSON has no word for what is not finite."""
    return norm if math.isfinite(norm) else None


def overfit_text(found: dict[str, Any]) -> str:
    """Return the page; one line if the numbers stopped being finite."""
    if found["failure"]:
        return f"{found['name']} failed at {found['failure']}"
    size = " x ".join(str(n) for n in found["patch"])
    return "\n".join(
        [
            f"{found['name']} on {found['dataset']}, {found['case']}",
            f"patch {size} from {found['start']}; {found['device']}, seed {found['seed']}",
            *_scores(found),
            _verdict(found),
            *_directions(found),
            *_silent(found),
            f"recipe: {found['recipe']}",
        ]
    )


def _scores(found: dict[str, Any]) -> list[str]:
    cap, dice = found["cap"], found["dice"]
    grid = " x ".join(str(n) for n in cap["head_grid"])
    rows = [["", "cap", "Dice"]]
    rows += [
        [name, f"{score:.3f}", f"{dice['classes'][name]:.3f}"]
        for name, score in cap["classes"].items()
    ]
    rows.append(["mean", f"{cap['mean']:.3f}", f"{dice['mean']:.3f}"])
    note = f"logits are made at {grid}"
    if cap["head_grid"] != found["patch"][1:]:
        note += f" and interpolated; averaged labels would give {cap['averaged']:.3f}"
    return [note, *table(rows)]


def _verdict(found: dict[str, Any]) -> str:
    spent = f"{found['steps']} steps, {found['seconds']:.0f} s"
    if found["reached"]:
        return f"reached: {found['share']:.4f} of the cap after {spent}"
    return f"NOT reached: {found['share']:.4f} of the cap, not {SHARE}, after {spent}"


def _directions(found: dict[str, Any]) -> list[str]:
    if not found["directions"]:
        return []
    rows = [["gradient norm of", "", "first step", "last step"]]
    for path, norms in found["directions"].items():
        for index, (name, norm) in enumerate(norms.items()):
            dead = "  DEAD" if f"{path} {name}" in found["dead_directions"] else ""
            shown = path if index == 0 else ""
            rows.append([shown, name, f"{norm['first']:.1e}", f"{norm['last']:.1e}{dead}"])
    return table(rows, left=2)


def _silent(found: dict[str, Any]) -> list[str]:
    names = found["parameters_without_gradient"]
    if not names:
        return []
    more = len(names) - _SHOWN
    return [f"without gradient: {', '.join(names[:_SHOWN])}" + (f" and {more} more" * (more > 0))]
