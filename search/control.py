"""The control of a search: the same space with convolution and identity as its only mixers."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.trial import TrialState

from archspec.spec.load import load
from archspec.spec.yaml_file import Source
from blocks.base import SpecError
from search.anchors import SPEC_KEY
from search.front import hypervolume
from search.holes import hole_kind
from search.ledger import Ledger, ended
from search.opening import open_run
from search.settings import of_earlier_release
from search.sizing import size_of
from search.space import Space

_KINDS = ("conv", "identity")
_LEVEL = 0.95
_SAME = ("dataset", "configuration", "fold", "convention")
_SAME_SETTINGS = ("steps", "batch_size", "rungs", "eta", "stopper", "limits", "match")


def control_space(space: Space) -> Space:
    """Return the space for the control search, with the anchors that still are in it.

    Raises:
        SpecError: the space has no other mixer than convolution and identity.
    """
    source = control_source(space.source)
    if source.tree == space.source.tree:
        raise SpecError(
            f"{space.source.where(())}  --control: {space.name} has no mixer but conv and "
            "identity; it is its own control"
        )
    tree = {**source.tree, "name": f"{space.name}-control"}
    changed = replace(space, source=Source(source.name, tree, source.marks))
    options = {hole.name: hole for hole in changed.holes()}

    def in_space(anchor: dict[str, Any]) -> bool:
        return all(
            name in options and (options[name].kind != "choice" or value in options[name].options)
            for name, value in anchor.items()
        )

    kept = tuple(
        anchor
        for anchor in space.settings.anchors
        if (_is_local_spec(anchor[SPEC_KEY]) if SPEC_KEY in anchor else in_space(anchor))
    )
    return replace(changed, settings=space.settings.model_copy(update={"anchors": kept}))


def control_source(source: Source) -> Source:
    """Return the source with every mixer replaced by a choice of convolution and identity.

    A choice keeps those of its members, with their fields, and its name. A mixer without a kind of
    its own, which takes the rest from the defaults, goes where the defaults' mixer is replaced.
    """
    encoder = source.tree.get("encoder", {}) if isinstance(source.tree, dict) else {}
    defaults = encoder.get("defaults", {}) if isinstance(encoder, dict) else {}
    default = defaults.get("mixer") if isinstance(defaults, dict) else None
    return replace(source, tree=_restricted(source.tree, drop=not _is_local(default)))


def _restricted(node: Any, *, drop: bool) -> Any:
    """Return the tree restricted; `drop` says that a mixer without a kind has lost its meaning."""
    if isinstance(node, tuple):
        return tuple(_restricted(item, drop=drop) for item in node)
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        if key != "mixer":
            found[key] = _restricted(value, drop=drop)
        elif not isinstance(value, dict) or "kind" in value or hole_kind(value) is not None:
            found[key] = value if _is_local(value) else _choice(value)
        elif not drop:
            found[key] = value
    if hole_kind(found) == "choice" and isinstance(found["choice"], tuple):
        members = found["choice"]  # those that differed in their mixer only are equal now
        found["choice"] = tuple(m for i, m in enumerate(members) if m not in members[:i])
    return found


def _is_local_spec(name: str) -> bool:
    return all(stage.mixer.kind in _KINDS for stage in load(name).encoder.stages)


def _is_local(mixer: Any) -> bool:
    """Say whether nothing but convolution and identity can stand there."""
    if mixer is None:
        return True
    if not isinstance(mixer, dict):
        return False
    if hole_kind(mixer) == "choice" and isinstance(mixer["choice"], tuple):
        return all(map(_is_local, mixer["choice"]))
    return mixer.get("kind") in _KINDS


def _choice(mixer: Any) -> dict[str, Any]:
    """Return the choice with its local members, convolution and identity at least."""
    members = mixer.get("choice") if isinstance(mixer, dict) else None
    kept = [m for m in members if _is_local(m)] if isinstance(members, tuple) else []
    kinds = {member.get("kind") for member in kept}
    kept += [{"kind": kind} for kind in _KINDS if kind not in kinds]
    name = {"name": mixer["name"]} if isinstance(mixer, dict) and "name" in mixer else {}
    return {"choice": tuple(kept), **name}


@dataclass(frozen=True)
class ControlVerdict:
    """Mean hypervolume of searches less that of their controls, with its 95 % interval.

    The interval is Welch's for a difference of two means over seeds of searches: the numbers of
    runs are small, and their spreads may differ. Its ends are NaN where either has one run.
    """

    searches: list[float]
    controls: list[float]
    low: float
    high: float

    @classmethod
    def of(cls, searches: Sequence[float], controls: Sequence[float]) -> "ControlVerdict":
        """Return the verdict on hypervolumes, one per run."""
        return cls(list(searches), list(controls), *_welch(searches, controls))

    @property
    def mean(self) -> float:
        return statistics.fmean(self.searches) - statistics.fmean(self.controls)

    def text(self) -> str:
        """Return the verdict in one sentence; the strong word only where the interval allows it."""
        runs = f"{len(self.searches)} and {len(self.controls)} runs"
        if math.isnan(self.low):
            return (
                f"cannot tell whether mixers matter from {runs}: hypervolume {self.mean:+.4f} "
                "against the control; repeat both searches with other seeds"
            )
        found = f"hypervolume {self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}], {runs}"
        if self.low > 0:
            return f"mixers matter: {found}"
        if self.high < 0:
            return f"the control is better: {found}"
        return f"no difference shown between mixers and the control: {found}"


def compare_with_control(searches: Sequence[Path], controls: Sequence[Path]) -> ControlVerdict:
    """Compare runs, one per seed, with runs of the control space at the same budget.

    The hypervolume is over log10 FLOPs and validation Dice, as seen from Dice 0 and ten times the
    FLOPs of the dearest finished trial of all runs.

    Raises:
        SpecError: no run, no finished trial, a run given twice, or runs that cannot be compared:
            other data, other training, or fewer trials, unless its space has no more networks.
            Test cases depend on the seed of a run; both sides must have held out the same.
    """
    folders = [*searches, *controls]
    if not searches or not controls:
        raise SpecError("control: give at least one search and one control")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise SpecError("control: a run is given twice; a seed counts once")
    points: list[list[tuple[float, float]]] = []
    first: dict[str, Any] | None = None
    counts: dict[Path, tuple[int, bool]] = {}
    held_out: dict[Path, tuple[str, ...]] = {}
    for folder in folders:
        study, record = open_run(folder)
        budget = _budget(record)
        first = first or budget
        counts[folder] = len(ended(study)), _is_used_up(study, record)
        held_out[folder] = tuple(record.get("test_cases") or ())
        changed = [key for key in first if budget[key] != first[key]]
        if changed:
            raise SpecError(
                f"{folder}: its {', '.join(changed)} differ from {folders[0]}'s; a control needs "
                "the same budget on the same data"
            )
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished:
            raise SpecError(f"{folder}: no trial has finished yet")
        points.append([(trial.values[1], trial.values[0]) for trial in finished])
    most = max(count for count, _ in counts.values())
    for folder, (count, used_up) in counts.items():
        if count < most and not used_up:
            raise SpecError(
                f"{folder}: its number of trials differ from others', {count} against {most}; a "
                "control needs the same budget on the same data"
            )
    if {held_out[folder] for folder in searches} != {held_out[folder] for folder in controls}:
        raise SpecError(
            "control: searches and controls held other test cases out, so they trained on others; "
            "give runs of the same seeds"
        )
    reference = (max(cost for own in points for cost, _ in own) + 1, 0.0)
    volumes = [hypervolume(own, reference) for own in points]
    return ControlVerdict.of(volumes[: len(searches)], volumes[len(searches) :])


def _budget(record: dict[str, Any]) -> dict[str, Any]:
    """Return what two runs must have in common, beside the number of trials."""
    settings = of_earlier_release(record.get("settings", {}))
    return {
        **{key: record.get(key) for key in _SAME},
        **{key: settings.get(key) for key in _SAME_SETTINGS},
    }


def _is_used_up(study: Study, record: dict[str, Any]) -> bool:
    """Say whether every network of the run's space was drawn: more trials would add nothing."""
    if "space" not in record:
        return False
    size = size_of(frozen(record["space"]))
    drawn = Ledger(study.get_trials(deepcopy=False)).num_drawn
    return not size.ranges and drawn >= size.combinations


def frozen(node: Any) -> Any:
    """Return the tree with tuples for the lists that JSON makes of them."""
    if isinstance(node, dict):
        return {key: frozen(value) for key, value in node.items()}
    return tuple(map(frozen, node)) if isinstance(node, list) else node


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the interval of mean(a) - mean(b); NaN where a spread is unknown."""
    if len(a) < 2 or len(b) < 2:
        return math.nan, math.nan
    parts = [statistics.variance(values) / len(values) for values in (a, b)]
    mean = statistics.fmean(a) - statistics.fmean(b)
    if sum(parts) == 0:
        return math.nan, math.nan  # equal to the last bit: one seed, run twice
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True)
    )
    from scipy.stats import t

    half = float(t.ppf((1 + _LEVEL) / 2, freedom)) * math.sqrt(sum(parts))
    return mean - half, mean + half
