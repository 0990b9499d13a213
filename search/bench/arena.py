"""Who meets on which data: networks planned for each dataset, and the folds that are asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from archspec.costs.flops import Cost, cost_plan
from archspec.network.plan import Plan, plan
from archspec.network.resolve import resolve
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.splits import NUM_FOLDS, stored_folds
from archspec.spec.hashing import trial_hash
from archspec.spec.load import load
from archspec.spec.yaml_file import parse
from blocks.errors import Place, SpecError, argument
from search.space.references import PLANS_KEY, SPEC_KEY, WIDTH_KEY, Reference, planned_networks

_MAX_FOLD = 1000


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What is asked of every network: overrides of its spec, and how it takes a dataset's sizes."""

    overrides: Sequence[str] = ()
    exact: bool = False
    fit_stages: bool = False


@dataclass(frozen=True)
class Arena:
    """A dataset and the networks, by their labels, as they are planned for it."""

    dataset: PreprocessedDataset
    planned: dict[str, Plan]

    @property
    def hashes(self) -> dict[str, str]:
        """Return what tells the trainings of networks apart."""
        return {label: trial_hash(one.spec) for label, one in self.planned.items()}

    def costs(self) -> dict[str, Cost]:
        """Return what each network costs at the dataset's patch; traced anew."""
        return {label: cost_plan(one) for label, one in self.planned.items()}


def reference(word: str) -> Reference:
    """Return the network that a word names: a spec, or `{plans: nnUNetPlans, width: 8}`.

    Raises:
        SpecError: it is in braces and is not such a mapping.
    """
    if not word.startswith("{"):
        return Reference("spec", word)
    where = Place(word)
    given: Any = parse(word, where).tree
    known = isinstance(given, dict) and (
        {PLANS_KEY} <= set(given) <= {PLANS_KEY, WIDTH_KEY} or set(given) == {SPEC_KEY}
    )
    width = given.get(WIDTH_KEY, 1) if known else None
    found = Reference.of_anchor(given) if known else None
    if found is None or not found.name or type(width) is not int or width < 1:
        raise SpecError(
            "must name plans of a dataset, as {plans: nnUNetPlans} or {plans: nnUNetPlans, width: "
            "8} does",
            where=where,
        )
    return found


def arena(words: Sequence[str], dataset: PreprocessedDataset, options: NetworkOptions) -> Arena:
    """Plan the networks for the dataset.

    Raises:
        SpecError: one cannot be read or planned, or two are the same or are called the same.
    """
    planned: dict[str, Plan] = {}
    same: dict[str, str] = {}
    for word in words:
        label, one = _planned(reference(word), dataset, options)
        if label in planned:
            raise SpecError(
                f"two networks are called {label}",
                field="networks",
                suggestion="give each once, and each spec a `name` of its own",
            )
        digest = trial_hash(one.spec)
        if digest in same:
            raise SpecError(
                f"{same[digest]} and {label} are the same network on {dataset.name}",
                field="networks",
                suggestion="give each once",
            )
        planned[label], same[digest] = one, label
    return Arena(dataset, planned)


def _planned(
    named: Reference, dataset: PreprocessedDataset, options: NetworkOptions
) -> tuple[str, Plan]:
    """Return the label of a network, and its plan; what nnU-Net planned has its stages already."""
    sizes = replace(dataset.sizes, exact=options.exact, fit_stages=options.fit_stages)
    if named.kind == "spec":
        found = resolve(named.name, sizes, overrides=options.overrides)
        return found.spec.name, found
    networks = planned_networks([named], dataset)
    if named not in networks.specs:
        raise SpecError(f"{dataset.name}: {networks.left_out[named]}", where=named.label)
    spec = networks.specs[named]
    if options.overrides:
        spec = load(spec.tree(), overrides=options.overrides)
    return named.label, plan(spec, replace(sizes, fit_stages=False))


def check_folds(folds: Sequence[int], dataset: PreprocessedDataset) -> None:
    """Refuse folds that the dataset's splits do not have.

    Raises:
        SpecError: see above.
    """
    stored = stored_folds(dataset)
    last = (NUM_FOLDS if stored is None else len(stored)) - 1
    if max(folds) > last:
        raise SpecError(f"{dataset.name} has 0 to {last}", where=argument("folds", folds))


def folds_of(text: str) -> tuple[int, ...]:
    """Return the folds of `0-4`, `0,2` or `0-2,4`, each once, in order.

    Raises:
        SpecError: another text; `all`, which trains on what it would be scored on.
    """
    where = argument("folds", text)
    if text.strip() == "all":
        raise SpecError(
            "nnU-Net's fold all trains on every case, so that none is left to score",
            where=where,
            suggestion="give 0-4 for all five folds",
        )
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", part)
        first = int(match[1]) if match else 1
        last = int(match[2] or first) if match else 0
        if not first <= last <= _MAX_FOLD:
            raise SpecError("must be folds such as 0-4 or 0,2", where=where)
        found |= set(range(first, last + 1))
    return tuple(sorted(found))
