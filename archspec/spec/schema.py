"""The spec: what the author of a network writes, validated and frozen."""

from itertools import islice
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from archspec.spec.claims import ClaimSpec, PatchSize
from archspec.spec.training import TrainingSpec
from archspec.spec.words import nearest
from blocks.base import Added, ComponentSpec, Count, Depth, NotWeights, Width
from blocks.decoders import AnyDecoder
from blocks.decoders.library import LibraryDecoderSpec, NetworkSpec
from blocks.downsample import AnyDownsample
from blocks.downsample.conv import DownsampleSpec
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.ffn import AnyFFN
from blocks.ffn.none import NoFFNSpec
from blocks.layers.norm import Norm
from blocks.local import AnyLocal
from blocks.local.none import NoLocalSpec
from blocks.mixers import AnyMixer
from blocks.mixers.cycle import KIND as CYCLE
from blocks.mixers.cycle import mixers_in
from blocks.post import AnyPost
from blocks.post.mixer import MixerPostSpec
from blocks.post.none import NoPostSpec
from blocks.registry import rebuilt_with_slots
from blocks.skip import AnySkip
from blocks.skip.transform import SkipSpec
from blocks.wrappers import AnyBlock
from blocks.wrappers.residual import ResidualBlockSpec

SCHEMA_VERSION = 1
MAX_STAGES = 16
MAX_NAME = 200
"""Letters of a name, which is part of names of folders."""

Init = Literal["default", "segformer", "nnunet"]

_LABEL = NotWeights(label=True)


@rebuilt_with_slots
class StageSpec(ComponentSpec, defer_build=True):
    """Blocks at one resolution: downsample -> local -> depth x block(mixer, ffn) -> post -> norm.

    The result goes to the next stage, and through `skip` to the decoder.
    """

    width: Width
    depth: Depth = 1
    downsample: AnyDownsample = DownsampleSpec()
    local: AnyLocal = NoLocalSpec()
    block: AnyBlock = ResidualBlockSpec()
    mixer: AnyMixer
    ffn: AnyFFN = NoFFNSpec()
    post: AnyPost = NoPostSpec()
    norm: Norm = "none"
    skip: AnySkip = SkipSpec()

    @property
    def has_local(self) -> bool:
        """Say whether a local module is built: one for every block needs a block."""
        return self.has_local_per("stage") or (self.has_local_per("block") and self.depth > 0)

    def mixers(self) -> tuple[AnyMixer, ...]:
        """Return the mixers of its blocks, each once, and that behind them, if there is one."""
        behind = (self.post.mixer,) if isinstance(self.post, MixerPostSpec) else ()
        return (*mixers_in(self.mixer)[: self.depth], *behind)

    def has_local_per(self, what: Literal["stage", "block"]) -> bool:
        """Say whether the stage, or each of its blocks, has a local module before it."""
        repeat = getattr(self.local, "repeat", "stage")  # one without the field stands once
        return self.local.kind != "none" and repeat == what


def _check_stages(stages: Any) -> Any:
    """Refuse too many before each of them is validated."""
    if isinstance(stages, tuple) and len(stages) > MAX_STAGES:
        raise PydanticKnownError(
            "too_long",
            {
                "field_type": "Tuple",
                "max_length": MAX_STAGES,
                "actual_length": len(stages),
            },
        )
    return stages


def merge_defaults(defaults: Any, stage: Any) -> Any:
    """Return the stage with missing fields taken from the defaults, component by component.

    A component of another `kind` than the default's takes nothing from it; members of a cycle of
    mixers are merged one by one where the default is none.
    """
    if not isinstance(defaults, dict) or not isinstance(stage, dict):
        return stage
    if stage.get("kind") == CYCLE != defaults.get("kind") and isinstance(stage.get("of"), tuple):
        return {**stage, "of": tuple(merge_defaults(defaults, one) for one in stage["of"])}
    if stage.get("kind", defaults.get("kind")) != defaults.get("kind"):
        return stage
    merged = {key: merge_defaults(defaults.get(key), value) for key, value in stage.items()}
    return {**defaults, **merged}


@rebuilt_with_slots
class EncoderSpec(ComponentSpec, defer_build=True):
    """Stages, fine to coarse. In YAML, `defaults` is merged into every stage."""

    stages: Annotated[
        tuple[StageSpec, ...],
        BeforeValidator(_check_stages),
        Field(min_length=1, max_length=MAX_STAGES),
    ]

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or "defaults" not in tree:
            return tree
        if not isinstance(tree["defaults"], dict):
            raise ValueError("defaults must be a mapping")
        rest = {key: value for key, value in tree.items() if key != "defaults"}
        stages = rest.get("stages")
        if isinstance(stages, tuple) and len(stages) <= MAX_STAGES:
            rest["stages"] = tuple(merge_defaults(tree["defaults"], stage) for stage in stages)
        return rest


def _form_of_encoder(value: Any) -> str:
    """Return the class that an encoder's mapping is meant for, also where a key is mistyped."""
    of_timm = isinstance(value, TimmEncoderSpec)
    if isinstance(value, dict):
        fields = list(TimmEncoderSpec.model_fields)
        known = ["stages", "defaults", *fields]
        keys = [str(key) for key in islice(value, len(known))]
        own = any(key in value for key in ("stages", "defaults"))
        of_timm = "timm" in value or (not own and any(nearest(k, known) in fields for k in keys))
    return (TimmEncoderSpec if of_timm else EncoderSpec).__name__


AnyEncoder = Annotated[
    Annotated[EncoderSpec, Tag("EncoderSpec")] | Annotated[TimmEncoderSpec, Tag("TimmEncoderSpec")],
    Discriminator(_form_of_encoder),
]
NO_STAGES = EncoderSpec.model_construct(stages=())
"""The encoder of a spec that names a library's network: it has no stages of ours."""
_OF_LIBRARY = object()


def _check_decoder(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if value is _OF_LIBRARY else handler(value)


def _check_alone(value: Any, info: ValidationInfo) -> Any:
    """Refuse a library's network beside an encoder or a decoder of ours."""
    if value is not None and info.data.get("decoder", _OF_LIBRARY) is not _OF_LIBRARY:
        raise ValueError("stands instead of encoder and decoder: give one of the two forms")
    return value


class DeepSupervisionSpec(ComponentSpec):
    """How many outputs are built, the full-resolution one included."""

    heads: Count = 1


@rebuilt_with_slots
class ArchSpec(ComponentSpec, defer_build=True):
    """One network: an encoder and a decoder of ours, or instead of both a library's `network`.

    The encoder has stages of ours, or is a model of timm.

    `in_channels`, `num_classes` and `patch_size` are defaults for `build`.
    `patch_size` is in voxels, depth first; its length, 2 or 3, makes the network 2-D or 3-D.
    `claims` are figures that sources state about the network; they change nothing in it.
    """

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION), _LABEL] = SCHEMA_VERSION
    name: Annotated[
        str,
        Field(min_length=1, max_length=MAX_NAME, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        _LABEL,
    ]
    title: Annotated[str, _LABEL] = ""
    sources: Annotated[tuple[str, ...], _LABEL] = ()
    claims: Annotated[tuple[ClaimSpec, ...], _LABEL] = ()
    in_channels: Width = 1
    num_classes: Width = 2
    patch_size: Annotated[PatchSize, NotWeights()]
    encoder: AnyEncoder
    decoder: Annotated[AnyDecoder, WrapValidator(_check_decoder)]
    network: Annotated[NetworkSpec | None, Added(None), BeforeValidator(_check_alone)] = None
    deep_supervision: DeepSupervisionSpec = DeepSupervisionSpec()
    init: Annotated[Init, NotWeights()] = "default"
    training: Annotated[TrainingSpec, NotWeights()] = TrainingSpec()

    @model_validator(mode="before")
    @classmethod
    def _without_stages(cls, tree: Any) -> Any:
        """Fill the places of encoder and decoder where a library's network stands instead."""
        if not isinstance(tree, dict) or tree.get("network") is None:
            return tree
        if "encoder" in tree or "decoder" in tree:
            return tree
        return {**tree, "encoder": NO_STAGES, "decoder": _OF_LIBRARY}

    @model_validator(mode="after")
    def _with_library(self) -> Self:
        if self.network is not None:
            self.__dict__["decoder"] = LibraryDecoderSpec(network=self.network)
        return self

    def tree(self) -> dict[str, Any]:
        """Return the spec as plain dicts, lists and scalars, ready for YAML or JSON.

        It has the one of the two forms that the spec has.
        """
        absent = {"network"} if self.network is None else {"encoder", "decoder"}
        return self.model_dump(mode="json", by_alias=True, exclude=absent)
