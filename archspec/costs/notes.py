"""What a researcher would want to be told about a network's costs."""

import math

from archspec.costs.flops import Cost, cost_plan
from archspec.network.plan import Plan, plan
from archspec.spec.words import shown
from blocks.base import SpecError
from blocks.decoders.concat import ConcatDecoderSpec
from blocks.encoders.timm_encoder import TimmEncoderSpec

MUCH_PADDING = 1.5
"""Times the voxels from which ways to need less padding are named."""
_MUCH = 0.4
_MOST = 0.5
_MANY_TOKENS = 64  # tokens per channel from which full attention is worth a word


def notes(planned: Plan, cost: Cost, saved: dict[str, int]) -> tuple[str, ...]:
    """Return a line each; `saved` are the bytes kept for backward by path."""
    return (
        *_padding(planned),
        *_attention(planned),
        *_most(planned, cost, saved),
        *_cheaper_concat(planned, cost),
    )


def _padding(planned: Plan) -> list[str]:
    if planned.padding < MUCH_PADDING:
        return []
    return [
        f"padding makes {planned.padding:.1f} times the voxels; a patch that divides by "
        f"{list(planned.total_stride)}, or strides from the dataset (archspec export "
        "--stages-from-dataset), need less"
    ]


def _attention(planned: Plan) -> list[str]:
    found = []
    for index, stage in enumerate(planned.stages):
        tokens, width = math.prod(stage.out.grid), stage.out.channels
        full = any(
            mixer.kind == "attention" and mixer.divisor(stage.out.ndim) == (1,) * stage.out.ndim
            for mixer in stage.spec.mixers()
        )
        if full and tokens > _MANY_TOKENS * width:
            found.append(
                f"stage {index} attends among {tokens:,} tokens of width {width}: products of "
                "queries and keys dominate; mixer.reduction or a scan is cheaper"
            )
    return found


def _most(planned: Plan, cost: Cost, saved: dict[str, int]) -> list[str]:
    timm = isinstance(planned.spec.encoder, TimmEncoderSpec)  # the only stage
    if not planned.stages and not timm:  # a library's network, which is one part
        return []
    found = []
    parts = [f"stages.{index}" for index in range(timm or len(planned.stages))] + ["decoder"]
    for what, of, whole in (
        ("FLOPs", {path: cost.by_path[path].flops for path in parts}, cost.flops),
        ("parameters", {path: cost.by_path[path].params for path in parts}, cost.params),
        ("bytes saved for backward", {p: saved.get(p, 0) for p in parts}, saved["Global"]),
    ):
        most = max(of, key=lambda path: of[path])
        if of[most] >= _MUCH * whole:
            name = "encoder" if timm else most.replace("stages.", "stage ")
            name = "decoder" if most == "decoder" else name
            found.append(f"{name} holds {of[most] / whole:.0%} of all {what}")
    return found


def _cheaper_concat(planned: Plan, cost: Cost) -> list[str]:
    """Return what nnU-Net's setting of a concat decoder would cost, where it holds most FLOPs."""
    decoder = planned.spec.decoder
    if not isinstance(decoder, ConcatDecoderSpec):
        return []
    if cost.by_path["decoder"].flops <= _MOST * cost.flops:
        return []
    setting = {"skip_block": "none", "num_convs": 2, "bottleneck_width": None}
    changed = decoder.model_copy(update=setting)
    if changed == decoder:
        return []
    try:
        other = plan(planned.spec.model_copy(update={"decoder": changed}), planned.sizes)
    except SpecError:
        return []
    macs = cost_plan(other).macs
    if macs >= cost.macs:
        return []
    written = {key: value for key, value in setting.items() if getattr(decoder, key) != value}
    fields = ", ".join(f"{key}: {shown(value)}".replace("'", "") for key, value in written.items())
    return [
        f"a decoder as nnU-Net's ({{{fields}}}) would make the whole network {macs / 1e9:.3f} GMAC"
    ]
