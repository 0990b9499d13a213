"""Where a sampler's random generators stand, in the study: a resumed search draws what one that was
never cut off would have drawn. Optuna keeps them in the process alone.
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState

_KEY = "sampler_state"

State = list[dict[str, Any]]


def state_of(sampler: BaseSampler) -> State:
    """Return where the generators stand."""
    return [generator.get_state(legacy=False) for generator in _generators(sampler)]


def set_state(sampler: BaseSampler, state: State) -> None:
    """Put the generators back to where they stood."""
    for generator, one in zip(_generators(sampler), state, strict=True):
        generator.set_state(one)


def keep_state(study: optuna.Study) -> None:
    """Write where the generators of the study's sampler stand into the study."""
    told = [{**one, "state": _written(one["state"])} for one in state_of(study.sampler)]
    if told:
        study.set_user_attr(_KEY, {"kind": _kind(study.sampler), "generators": told})


def go_on(study: optuna.Study, sampler: BaseSampler) -> None:
    """Put the generators of a sampler to where those of the last one like it stood, if any did."""
    kept = study.user_attrs.get(_KEY)
    before = state_of(sampler)
    try:
        if kept is not None and kept["kind"] == _kind(sampler):
            set_state(
                sampler, [{**one, "state": _read(one["state"])} for one in kept["generators"]]
            )
    except (TypeError, ValueError, KeyError):  # somebody changed it
        set_state(sampler, before)


def _generators(sampler: BaseSampler) -> list[np.random.RandomState]:
    """Return the generators of the sampler and of what it is made of, each once."""
    found = {id(one): one.rng for one in _lazy(sampler, set())}
    return list(found.values())


def _lazy(part: object, seen: set[int]) -> Iterator[LazyRandomState]:
    seen.add(id(part))
    for _, inner in sorted(getattr(part, "__dict__", {}).items()):
        if isinstance(inner, LazyRandomState):
            yield inner
        elif type(inner).__module__.startswith("optuna.samplers") and id(inner) not in seen:
            yield from _lazy(inner, seen)


def _kind(sampler: BaseSampler) -> str:
    """Return the name of Optuna's class, also where ours is around it."""
    return type(getattr(sampler, "sampler", sampler)).__name__


def _written(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "key": base64.b64encode(state["key"].tobytes()).decode()}


def _read(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "key": np.frombuffer(base64.b64decode(state["key"]), np.uint32)}
