"""What a drawing says of a decoder: its levels, beside the rows that it gets, and its skips."""

from dataclasses import dataclass

from archspec.drawing.tile import Tile, grid_text, share_text
from blocks.base import StageShape
from blocks.decoders.concat import ConcatDecoderSpec
from blocks.decoders.decoder import DecoderSpec, Skips
from blocks.decoders.library import LibraryDecoderSpec
from blocks.decoders.mlp import MLPDecoderSpec
from blocks.decoders.sum import SumDecoderSpec


@dataclass(frozen=True, slots=True)
class Level:
    """Features of the decoder beside a row; `is_fed` says whether they take the row's."""

    row: int
    tile: Tile
    is_fed: bool = True


def levels_of(
    decoder: DecoderSpec, inputs: Skips, rows: tuple[int, ...], share: float
) -> tuple[Level, ...]:
    """Return the levels, those that heads may sit on first, fine to coarse.

    `rows` are those of the inputs, `share` is the decoder's of all FLOPs.
    """
    if isinstance(decoder, LibraryDecoderSpec):
        note = f"from {decoder.network.distribution}"
        return (Level(rows[0], Tile(decoder.kind, grid=note, note=share_text(share), share=share)),)
    features = decoder.feature_shapes(inputs)
    notes = _notes(decoder, inputs, len(features))
    beside = _beside(features, inputs, rows)
    is_fed = beside is not None
    beside = beside or [rows[0] + index for index in range(len(features))]
    if isinstance(decoder, ConcatDecoderSpec):
        last = decoder.levels(inputs)[-1]
        if decoder.skip_block == "residual" and len(inputs) > 1:
            features, notes = (*features, last), [*notes, "bottleneck"]
            beside = [*beside, rows[-1]]
    return tuple(
        Level(row, Tile(f"width {at.channels}", grid=grid_text(at.grid), note=note), is_fed)
        for row, at, note in zip(beside, features, notes, strict=True)
    )


def skip_units(decoder: DecoderSpec) -> list[str]:
    """Return what the decoder does to every skip before it uses it."""
    if not isinstance(decoder, ConcatDecoderSpec):
        return []
    units = ["residual unit"] if decoder.skip_block == "residual" else []
    return ["FUE", *units] if decoder.fue else units


def _beside(features: Skips, inputs: Skips, rows: tuple[int, ...]) -> list[int] | None:
    """Return the row for each of the features, that of the input with its grid.

    None where one of them has no such input.
    """
    found: list[int] = []
    left = list(zip(rows, inputs, strict=True))
    for at in features:
        match = next((n for n, (_, inp) in enumerate(left) if inp.grid == at.grid), None)
        if match is None:
            return None
        found.append(left[match][0])
        left = left[match + 1 :]
    return found


def _notes(decoder: DecoderSpec, inputs: tuple[StageShape, ...], count: int) -> list[str]:
    """Return what each of the features is made by."""
    if isinstance(decoder, MLPDecoderSpec):
        return ["all skips, fused", *["projected"] * (count - 1)]
    if len(inputs) < 2:
        return [""] * count
    if isinstance(decoder, ConcatDecoderSpec):
        kind = "residual unit" if decoder.num_convs is None else "convolution"
        counts = decoder.counts(inputs)
    elif isinstance(decoder, SumDecoderSpec):
        kind = "MedNeXt block" if decoder.block == "mednext" else "residual block"
        counts = tuple(level.count for level in decoder.levels(inputs))
    else:
        return [""] * count
    notes = [f"{one} {kind}{'' if one == 1 else 's'}" for one in counts]
    if isinstance(decoder, ConcatDecoderSpec) and decoder.skip_block == "residual":
        notes[0] += " + last"
    return notes
