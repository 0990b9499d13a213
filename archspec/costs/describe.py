"""Describe networks without building them."""

from collections.abc import Sequence

from archspec.costs.description import (
    Comparison,
    DecoderPart,
    Description,
    EncoderPart,
    Share,
    StagePart,
    TrainingStep,
)
from archspec.costs.fit import Fit
from archspec.costs.flops import Cost, cost_plan
from archspec.costs.memory import training_memory
from archspec.costs.notes import notes
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.spec.load import SpecLike
from archspec.spec.schema import StageSpec
from blocks.base import Grid
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.mixers.cycle import mixers_in
from blocks.post.mixer import MixerPostSpec

_LONGEST = 20
"""Letters of the mixers of a stage that its row has room for."""


def describe(
    spec: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
    batch: int = 2,
    spacing: tuple[float, ...] | None = None,
) -> Description:
    """Say what a network is and costs, without building it; `print` shows a page.

    To a `spacing` (mm per axis of the patch) strides, kernels and stages are fitted first. Costs
    are those of one forward pass at batch 1, the FLOP convention named beside them; memory is an
    estimate, in bytes, for training at `batch`.

    Raises:
        SpecError: the spec is wrong, or does not fit the sizes.
    """
    sizes = InputSizes(
        in_channels=in_channels,
        num_classes=num_classes,
        patch_size=patch_size,
        spacing=spacing,
        fit_stages=spacing is not None,
    )
    return describe_plan(resolve(spec, sizes), batch=batch)


def describe_plans(
    plans: Sequence[Plan], *, batch: int = 2, available: int | None = None
) -> Description | Comparison:
    """Describe one network, or compare several that are planned at one input."""
    found = tuple(describe_plan(planned, batch=batch, available=available) for planned in plans)
    return found[0] if len(found) == 1 else Comparison(found)


def describe_plan(planned: Plan, *, batch: int = 2, available: int | None = None) -> Description:
    """Return shapes, costs of one forward pass at batch 1, memory of training at `batch`.

    `available` bytes of GPU memory are asked about: does training under AMP fit?
    """
    cost = cost_plan(planned)
    single = training_memory(planned, batch=batch, amp=False)
    saved = single.saved_by_path
    return Description(
        name=planned.spec.name,
        input=(1, planned.in_channels, *planned.patch_size),
        padded=planned.padded_size,
        num_classes=planned.num_classes,
        params=cost.params,
        macs=cost.macs,
        scan_flops=cost.scan_flops,
        by_kind=cost.by_kind,
        training=TrainingStep(
            batch=batch,
            optimizer=planned.spec.training.optimizer,
            float32=single,
            amp=training_memory(planned, batch=batch, amp=True),
        ),
        stages=tuple(
            StagePart(
                stage=index,
                mixer=_mixers(stage.spec),
                depth=stage.spec.depth,
                width=stage.out.channels,
                grid=stage.out.grid,
                share=_share(cost, saved, f"stages.{index}"),
            )
            for index, stage in enumerate(planned.stages)
        ),
        encoder=_encoder(planned, cost, saved),
        decoder=DecoderPart(
            kind=planned.spec.decoder.kind,
            outputs=tuple(planned.output_grids),
            share=_share(cost, saved, "decoder"),
        ),
        notes=notes(planned, cost, saved),
        fit=None if available is None else Fit.of(planned, batch, available),
    )


def _encoder(planned: Plan, cost: Cost, saved: dict[str, int]) -> EncoderPart | None:
    encoder = planned.spec.encoder
    if not isinstance(encoder, TimmEncoderSpec):
        return None
    return EncoderPart(
        timm=encoder.timm,
        widths=tuple(skip.channels for skip in planned.skips),
        grids=tuple(skip.grid for skip in planned.skips),
        share=_share(cost, saved, "stages.0"),
    )


def _mixers(stage: StageSpec) -> str:
    """Return the kinds that blocks have in turn, and behind a plus that which follows them."""
    behind = f" + {stage.post.mixer.kind}" if isinstance(stage.post, MixerPostSpec) else ""
    text = "/".join(mixer.kind for mixer in mixers_in(stage.mixer)) + behind
    return text if len(text) <= _LONGEST else f"{stage.mixer.kind}{behind}"


def _share(cost: Cost, saved: dict[str, int], path: str) -> Share:
    part = cost.by_path[path]
    return Share(part.params, part.macs, part.scan_flops, part.by_kind, saved.get(path, 0))
