"""What proposes networks: Optuna's samplers, by name and with Optuna's own options, and ours.

A hole is conditional where it stands inside a member of a choice: it is drawn in those trials only
that drew that member.
"""

import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

import optuna
from optuna.samplers import BaseSampler
from pydantic import BeforeValidator, Field

from archspec.spec.words import nearest, shown
from blocks.base import ComponentSpec, Count

_Share = Annotated[float, Field(ge=0, le=1)]
_Population = Annotated[int, Field(ge=2, le=10_000)]


class SamplerSpec(ComponentSpec):
    """A sampler: `make` gives Optuna's, `packages` are what it imports when it draws.

    Ours has none to give: it needs the space, and `search.study.sampling` makes it.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    repeats_itself: ClassVar[bool] = False
    """It proposes again and again what was refused or tried, since it learns nothing from that."""
    kind: str

    @property
    def models_shared_holes(self) -> bool:
        """Say whether it models only the holes that every finished trial drew."""
        return False

    def make(self, seed: int) -> BaseSampler:
        raise NotImplementedError

    def missing(self) -> tuple[str, ...]:
        """Return the packages that are not installed."""
        return tuple(name for name in self.packages if importlib.util.find_spec(name) is None)

    def written(self) -> str | dict[str, Any]:
        """Return it as a space writes it: its name, or a mapping with the options given."""
        options = self.model_dump(mode="json", exclude_defaults=True)
        return {"kind": self.kind, **options} if options else self.kind


class TpeSpec(SamplerSpec):
    """Tree-structured Parzen estimators, Optuna's default: how good trials drew, against the rest.

    Each hole is modelled alone, from the trials that drew it, so a conditional hole is modelled
    like any other. `multivariate` models together the holes that all trials drew, and each of the
    others alone; `group` (experimental in Optuna) models together what was always drawn together,
    conditional holes too. It learns from stopped trials as well. The first `n_startup_trials` are
    random; `constant_liar` counts trials that still train as bad ones, so that workers spread.
    """

    kind: Literal["tpe"] = "tpe"
    n_startup_trials: Count = 10
    n_ei_candidates: Count = 24
    multivariate: bool = False
    group: bool = False
    constant_liar: bool = True

    @property
    def models_shared_holes(self) -> bool:
        return self.multivariate and not self.group

    def make(self, seed: int) -> BaseSampler:
        return optuna.samplers.TPESampler(
            n_startup_trials=self.n_startup_trials,
            n_ei_candidates=self.n_ei_candidates,
            multivariate=self.multivariate or self.group,
            group=self.group,
            constant_liar=self.constant_liar,
            seed=seed,
        )


class _GeneticSpec(SamplerSpec):
    population_size: _Population = 50
    mutation_prob: _Share | None = None
    crossover_prob: _Share = 0.9
    swapping_prob: _Share = 0.5

    @property
    def models_shared_holes(self) -> bool:
        return True


class Nsga2Spec(_GeneticSpec):
    """NSGA-II: a generation of networks is bred from the best of the ones before.

    Only holes that every finished trial drew are inherited; a conditional hole is drawn at random
    each time. A generation has `population_size` trials that were trained to the end: until so
    many have been, all are random, and stopped trials, anchors and trials of another sampler are
    in none.
    """

    kind: Literal["nsga2"] = "nsga2"

    def make(self, seed: int) -> BaseSampler:
        return optuna.samplers.NSGAIISampler(
            population_size=self.population_size,
            mutation_prob=self.mutation_prob,
            crossover_prob=self.crossover_prob,
            swapping_prob=self.swapping_prob,
            seed=seed,
        )


class Nsga3Spec(_GeneticSpec):
    """NSGA-III (experimental in Optuna): as `nsga2`, spread over directions of the objectives.

    `dividing_parameter` says how many of them; meant for three objectives. Conditional holes are
    drawn at random, as by `nsga2`.
    """

    kind: Literal["nsga3"] = "nsga3"
    dividing_parameter: Annotated[int, Field(ge=1, le=100)] = 3

    def make(self, seed: int) -> BaseSampler:
        return optuna.samplers.NSGAIIISampler(
            population_size=self.population_size,
            mutation_prob=self.mutation_prob,
            crossover_prob=self.crossover_prob,
            swapping_prob=self.swapping_prob,
            dividing_parameter=self.dividing_parameter,
            seed=seed,
        )


class GpSpec(SamplerSpec):
    """A Gaussian process: the largest expected gain in hypervolume. Needs torch and scipy.

    Only holes that every finished trial drew are modelled; a conditional hole is drawn at random.
    It learns from trials that were trained to the end, not from stopped ones, and takes seconds of
    the driver per draw. The first `n_startup_trials` of them are random.
    """

    packages = ("torch", "scipy")
    repeats_itself = True
    kind: Literal["gp"] = "gp"
    n_startup_trials: Count = 10
    deterministic_objective: bool = False

    @property
    def models_shared_holes(self) -> bool:
        return True

    def make(self, seed: int) -> BaseSampler:
        return optuna.samplers.GPSampler(
            n_startup_trials=self.n_startup_trials,
            deterministic_objective=self.deterministic_objective,
            warn_independent_sampling=False,  # of conditional holes: the docstring tells
            seed=seed,
        )


class RandomSpec(SamplerSpec):
    """Every hole at random, conditional or not: learns nothing, and is what others must beat."""

    kind: Literal["random"] = "random"

    def make(self, seed: int) -> BaseSampler:
        return optuna.samplers.RandomSampler(seed=seed)


class CostAwareSpec(SamplerSpec):
    """The largest expected gain in hypervolume per predicted second. Needs scikit-learn.

    Costs of a network are exact before it trains, so a Gaussian process over holes and rungs
    guesses its Dice alone, and a line through measured steps its seconds. It learns from stopped
    trials too, and models conditional holes like any other. Each draw weighs `candidates` networks,
    eight more with every trial, and variants of the front: all have to be planned, which takes
    seconds of the driver. The first `n_startup_trials` are random, cheap ones the likelier.
    """

    packages = ("sklearn",)
    kind: Literal["cost_aware"] = "cost_aware"
    n_startup_trials: Count = 3
    candidates: Annotated[int, Field(ge=1, le=2000)] = 64


_AnySampler = TpeSpec | Nsga2Spec | Nsga3Spec | GpSpec | RandomSpec | CostAwareSpec
SAMPLERS: Mapping[str, type[SamplerSpec]] = {
    str(one.model_fields["kind"].default): one for one in get_args(_AnySampler)
}
_OURS = "ours"
"""A second name of `cost_aware`."""


def _as_mapping(value: object) -> object:
    """Return a name as the mapping that it stands for.

    Raises:
        ValueError: no sampler is called so.
    """
    if isinstance(value, SamplerSpec):
        return value
    kind = value.get("kind") if isinstance(value, dict) else value
    if kind == _OURS:
        kind = CostAwareSpec.model_fields["kind"].default
        value = {**value, "kind": kind} if isinstance(value, dict) else kind
    if isinstance(kind, str) and kind in SAMPLERS:
        return {"kind": kind} if isinstance(value, str) else value
    meant = nearest(str(kind), list(SAMPLERS))
    raise ValueError(
        f"must be a sampler, one of {', '.join(SAMPLERS)}, or a mapping such as "
        "{kind: tpe, n_startup_trials: 10}, got "
        f"{shown(value)}{f'; did you mean {meant!r}?' if meant else ''}"
    )


_Name = Literal["tpe", "nsga2", "nsga3", "gp", "random", "cost_aware", "ours"]
AnySampler = Annotated[
    _AnySampler,
    Field(discriminator="kind"),
    BeforeValidator(
        _as_mapping,
        json_schema_input_type=_Name | _AnySampler,
    ),
]
