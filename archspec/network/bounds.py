"""How large a network may be: its input, its blocks, and every tensor of it."""

from collections.abc import Mapping

from archspec.spec.claims import MAX_PATCH_AXIS
from archspec.spec.schema import ArchSpec, StageSpec
from blocks.base import MAX_BLOCKS, Grid, StageShape
from blocks.decoders.decoder import Heads
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import Problem

MAX_TENSOR = 64 * 2**30
"""Bytes of one tensor in float32: of a weight, or of one sample."""


def input_problems(patch: Grid, inp: StageShape) -> list[Problem]:
    """Return what is wrong with the input, which the patch is padded to."""
    if any(size > MAX_PATCH_AXIS for size in inp.grid):
        return [
            Problem(
                f"{list(patch)} is padded to {list(inp.grid)}, which strides and reductions need",
                field="patch_size",
                allowed=f"at most {MAX_PATCH_AXIS} along an axis",
            )
        ]
    return tensor_problems({"patch_size": inp.elements}, inp.grid)


def blocks_problems(spec: ArchSpec, inputs: tuple[StageShape, ...]) -> list[Problem]:
    """Return what is wrong with the number of blocks; `inputs` are the decoder's."""
    depths = [stage.depth for stage in spec.encoder.stages] or [0]
    in_decoder = spec.decoder.num_steps(inputs)
    blocks = sum(depths) + in_decoder
    if blocks <= MAX_BLOCKS:
        return []
    deepest = f"encoder.stages.{depths.index(max(depths))}.depth"
    return [
        Problem(
            f"{blocks:,} blocks in all, {in_decoder:,} of them in the decoder",
            field=deepest if max(depths) > in_decoder else "decoder",
            allowed=f"at most {MAX_BLOCKS:,}",
        )
    ]


def part_problems(
    spec: ArchSpec, inp: StageShape, inputs: tuple[StageShape, ...], heads: Heads
) -> list[Problem]:
    """Return the first part beside stages with a tensor that is too large."""
    parts = {"decoder": spec.decoder.largest(inputs, heads)}
    if isinstance(spec.encoder, TimmEncoderSpec):
        parts = {"encoder": spec.encoder.largest(inp), **parts}
    return tensor_problems(parts, inp.grid)


def stage_problems(
    stage: StageSpec, path: str, inp: StageShape, mixed: StageShape, out: StageShape
) -> list[Problem]:
    """Return the first part of a stage with a tensor that is too large."""
    parts = {
        "width": out.elements,
        "downsample": stage.downsample.largest(inp, out),
        "post": stage.post.largest(out),
        "skip": stage.skip.largest(out),
    }
    if stage.has_local:
        parts["local"] = stage.local.largest(out)
    if stage.depth:
        parts["block"] = stage.block.largest(out)
        parts["mixer"] = stage.mixer.largest(mixed)
        parts["ffn"] = stage.ffn.largest(out)
    return tensor_problems({f"{path}.{name}": size for name, size in parts.items()}, out.grid)


def tensor_problems(largest: Mapping[str, int], grid: Grid) -> list[Problem]:
    """Return the first field whose largest tensor, of so many elements, is too large.

    Features that are too large may be the patch's fault.
    """
    for field, elements in largest.items():
        size = 4 * elements
        if size > MAX_TENSOR:
            return [
                Problem(
                    f"makes a tensor of {size / 2**30:,.0f} GiB at grid {list(grid)}",
                    field=field,
                    allowed=f"at most {MAX_TENSOR // 2**30} GiB, for a weight or for one sample",
                    other="patch_size" if field.endswith(".width") else "",
                )
            ]
    return []


def up_to(most: int, *values: object) -> str:
    """Return what is allowed where one of the integers exceeds it."""
    return f"at most {most}" if any(type(n) is int and n > most for n in values) else ""
