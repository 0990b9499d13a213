"""Several mixers that the blocks of a stage take in turn."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field
from torch import nn

from blocks.base import Grid, LayerSpec, SpecError, StageShape
from blocks.errors import Problem
from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.identity import IdentityMixerSpec
from blocks.registry import KindsOf, rebuilt_with_slots

KIND = "cycle"
MAX_MEMBERS = 64

if TYPE_CHECKING:
    from blocks.mixers.attention import AttentionMixerSpec
    from blocks.mixers.mamba import MambaMixerSpec
    from blocks.mixers.tom import TomMixerSpec

    OneMixer = (
        ConvMixerSpec | MambaMixerSpec | TomMixerSpec | AttentionMixerSpec | IdentityMixerSpec
    )
else:
    OneMixer = Annotated[LayerSpec, KindsOf("mixer", without=(KIND,))]
"""Any mixer but a cycle."""


@rebuilt_with_slots
class CycleMixerSpec(LayerSpec, defer_build=True):
    """Give the blocks of a stage the mixers of `of` in turn, from the first on.

    In YAML, a list in the place of a mixer stands for it, in which a word stands for its kind with
    defaults: `mixer: [conv, {kind: mamba, d_state: 8}]`. A member of the kind that
    `encoder.defaults` names takes the rest of its fields from there. The grid must divide by what
    all members ask for.
    """

    divisor_field: ClassVar[str] = "of"

    kind: Literal["cycle"] = "cycle"
    of: Annotated[tuple[OneMixer, ...], Field(min_length=1, max_length=MAX_MEMBERS)] = (
        ConvMixerSpec(),
        IdentityMixerSpec(),
    )

    def divisor(self, ndim: int) -> Grid:
        """Return, per axis, the least common multiple of what the members ask for."""
        needs = list(_each(self.of, lambda one: one.divisor(ndim)))
        return tuple(map(math.lcm, *needs)) if len(needs) > 1 else needs[0]

    def settled(self, at: StageShape, largest: Callable[[int], Grid]) -> Self:
        of = tuple(_each(self.of, lambda one: one.settled(at, largest)))
        same = all(new is old for new, old in zip(of, self.of, strict=True))
        return self if same else self.model_copy(update={"of": of})

    def check(self, at: StageShape) -> None:
        list(_each(self.of, lambda one: one.check(at)))

    def largest(self, at: StageShape) -> int:
        return max(one.largest(at) for one in self.of)

    def build(self, at: StageShape) -> nn.Module:
        """Return the first block's mixer, (B, C, *grid) -> same shape; see `mixer_of_block`."""
        return self.of[0].build(at)


def mixer_of_block(mixer: OneMixer | CycleMixerSpec, index: int) -> OneMixer:
    """Return the mixer of a stage's block."""
    members = mixers_in(mixer)
    return members[index % len(members)]


def mixers_in(mixer: OneMixer | CycleMixerSpec) -> tuple[OneMixer, ...]:
    """Return the mixers of a stage, each once."""
    return mixer.of if isinstance(mixer, CycleMixerSpec) else (mixer,)


def _each(members: tuple[OneMixer, ...], action: Callable[[OneMixer], Any]) -> Iterator[Any]:
    """Yield what the action gives of each member.

    Raises:
        SpecError: what is wrong with any of them.
    """
    problems: list[Problem] = []
    for index, one in enumerate(members):
        try:
            yield action(one)
        except SpecError as error:
            problems += error.below(f"of.{index}").problems
    if problems:
        raise SpecError(problems)
