"""Networks from beside a space, which its anchors name: specs, and what nnU-Net planned."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from optuna.trial import BaseTrial, FrozenTrial

from archspec.network.plan import Plan
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.nnunet.from_plans import tree_beside
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import node_at, with_node
from blocks.base import SpecError
from search.space.scale import WIDTHS, width_paths

SPEC_KEY = "spec"
PLANS_KEY = "plans"
WIDTH_KEY = "width"
"""The keys of an anchor that names a network; the width goes with plans only."""
ANCHOR_SPEC = "anchor_spec"
ANCHOR_PLANS = "anchor_plans"
"""The user attributes that name the network of a trial, which its parameters do not say."""


@dataclass(frozen=True)
class Reference:
    """A network that an anchor names: a spec (bundled, or a file), or one of the dataset's plans.

    `width` is asked of the first stage of a planned network; without one it is whole.
    """

    kind: Literal["spec", "plans"]
    name: str
    width: int | None = None

    @classmethod
    def of_anchor(cls, given: Mapping[str, Any]) -> "Reference | None":
        """Return what an anchor of the settings names, None where it has values for holes alone."""
        if SPEC_KEY in given:
            return cls("spec", str(given[SPEC_KEY]))
        if PLANS_KEY in given:
            return cls("plans", str(given[PLANS_KEY]), given.get(WIDTH_KEY))
        return None

    @property
    def label(self) -> str:
        """Return what is asked for, in words."""
        return self.name if self.width is None else f"{self.name}, width {self.width}"

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the user attributes of its trial."""
        if self.kind == "spec":
            return {ANCHOR_SPEC: self.name}
        return {ANCHOR_PLANS: {"plans": self.name, "width": self.width}}

    def name_in(self, trial: BaseTrial) -> None:
        """Set the user attributes of a trial."""
        for name, value in self.attributes.items():
            trial.set_user_attr(name, value)

    def label_of(self, spec: ArchSpec) -> str:
        """Return what the network of its trial is: a planned one says whether it is whole."""
        return spec.title if self.kind == "plans" else self.name


def reference_of(trial: BaseTrial | FrozenTrial) -> Reference | None:
    """Return the network that the trial trains in place of one drawn."""
    spec = trial.user_attrs.get(ANCHOR_SPEC)
    if spec is not None:
        return Reference("spec", spec)
    planned = trial.user_attrs.get(ANCHOR_PLANS)
    return None if planned is None else Reference("plans", planned["plans"], planned["width"])


@dataclass(frozen=True)
class PlannedNetworks:
    """What a dataset's plans hold of the networks that a space's anchors ask for.

    `left_out` says why others are not there, in one line each.
    """

    specs: Mapping[Reference, ArchSpec] = field(default_factory=dict)
    left_out: Mapping[Reference, str] = field(default_factory=dict)

    def spec(self, reference: Reference) -> ArchSpec:
        """Return the network, whole or narrowed.

        Raises:
            SpecError: it is not there.
        """
        if reference not in self.specs:
            why = self.left_out.get(reference, "no dataset is given, whose plans it is of")
            raise SpecError(why, where=reference.label)
        return self.specs[reference]


NO_PLANS = PlannedNetworks()
"""Of a space that no dataset is given for."""
_WITHOUT = "nnU-Net did not plan these data"


def planned_networks(
    references: Iterable[Reference], dataset: PreprocessedDataset | None
) -> PlannedNetworks:
    """Return those of the references that are of plans; their files lie beside the dataset's."""
    specs, left_out = {}, {}
    for reference in references:
        if reference.kind == "plans":
            if dataset is None:
                left_out[reference] = _WITHOUT
                continue
            try:
                tree = tree_beside(dataset, reference.name)
                whole = load({**tree, "patch_size": dataset.patch_size})
                specs[reference] = narrowed(whole, reference)
            except SpecError as error:
                left_out[reference] = error.line
    return PlannedNetworks(specs, left_out)


def narrowed(whole: ArchSpec, reference: Reference) -> ArchSpec:
    """Return the planned network, of which every width is scaled by one factor, and its label.

    That is the width asked for over the first stage's. The cap that nnU-Net sets on features (320,
    in 2-D 512) is scaled alike: width 8 of 32, 64, 128, 256, 320 is 8, 16, 32, 64, 80. So a narrow
    network has the whole one's proportions, and is the one that nnU-Net's planner makes with that
    `UNet_base_num_features` wherever the plan does not come to the cap.

    Raises:
        SpecError: the plan is narrower than the width.
    """
    base, width = whole.encoder.stages[0].width, reference.width
    if width is None or width == base:
        return whole.model_copy(update={"title": f"nnU-Net's planned network ({reference.name})"})
    if width > base:
        raise SpecError(
            f"must be at most {base}, the width of the planned network, but is {width}",
            field=WIDTH_KEY,
            where=reference.name,
        )
    tree = whole.tree()
    for path in width_paths(tree, WIDTHS):
        tree = with_node(tree, path, max(round(node_at(tree, path) * width / base), 1))
    return load({**tree, "name": f"{whole.name}-width{width}", "title": reference.label})


def marked_as_scaled(planned: Plan, reference: Reference) -> Plan:
    """Return the plan of a planned network that limits made narrower, called what it is."""
    spec = planned.spec
    width = spec.encoder.stages[0].width
    title = f"{reference.label}, scaled to limits: width {width}"
    labels = {"name": f"{spec.name}-scaled-to-{width}", "title": title}
    return replace(planned, spec=spec.model_copy(update=labels))
