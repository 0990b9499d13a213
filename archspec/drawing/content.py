"""What a drawing says, read from a plan and its cost: tiles in rows, skips, levels, heads."""

from dataclasses import dataclass
from typing import Literal

from archspec.costs.flops import CONVENTION, Cost
from archspec.drawing.decoder_content import Level, levels_of, skip_units
from archspec.drawing.tile import Panel, Tile, grid_text
from archspec.network.plan import Plan
from archspec.spec.schema import StageSpec
from blocks.base import Grid
from blocks.decoders.decoder import head_levels
from blocks.decoders.library import LibraryDecoderSpec
from blocks.decoders.mlp import MLPDecoderSpec
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import printable
from blocks.mixers.cycle import mixer_of_block, mixers_in
from blocks.post.mixer import MixerPostSpec

Flow = Literal["up", "fuse", "none"]
_SEGMENTS = 11
"""Blocks that are marked one by one."""
_LONGEST = 20
"""Letters of kinds of mixers that a heading has room for."""


@dataclass(frozen=True, slots=True)
class Skip:
    """What the decoder gets of a row, and what happens to it on the way."""

    row: int
    label: str


@dataclass(frozen=True, slots=True)
class Head:
    """An output, of the features of a level."""

    level: int
    tile: Tile


@dataclass(frozen=True, slots=True)
class Content:
    """One network. Rows go down from the input; a panel around them is a model of timm.

    Levels of the decoder stand beside rows, fine to coarse. They go `up` one by one from the
    coarsest skip, or `fuse` at the finest; how those of another package go is told only where they
    are one less than what they get.
    """

    name: str
    title: str
    figures: tuple[str, ...]
    rows: tuple[Tile, ...]
    encoder: Panel | None
    skips: tuple[Skip, ...]
    decoder: Panel | None
    levels: tuple[Level, ...]
    flow: Flow
    heads: tuple[Head, ...]

    @property
    def description(self) -> str:
        """Return in words what is drawn."""
        words = [
            *(tile.words for tile in self.rows),
            *(panel.words for panel in (self.encoder, self.decoder) if panel is not None),
            *(level.tile.words for level in self.levels),
            *(head.tile.words for head in self.heads),
        ]
        return ". ".join([*self.figures, *map(printable, words)]) + "."


def content_of(planned: Plan, cost: Cost) -> Content:
    """Return what the drawing of the network says."""
    spec, encoder = planned.spec, planned.spec.encoder
    shares = {path: part.flops / max(1, cost.flops) for path, part in cost.by_path.items()}
    of_decoder = shares["decoder"]
    panel: Panel | None = None
    if isinstance(encoder, TimmEncoderSpec):
        panel = Panel(f"{encoder.timm} of timm", shares["stages.0"])
        tiles = [Tile(f"width {at.channels}", grid=grid_text(at.grid)) for at in planned.skips]
    else:
        tiles = [
            _stage_tile(index, stage.spec, stage.out.grid, shares[f"stages.{index}"])
            for index, stage in enumerate(planned.stages)
        ]
    rows = (_input_tile(planned), *tiles)
    fed = _fed_rows(planned)
    levels = levels_of(spec.decoder, planned.decoder_inputs, fed, of_decoder)
    is_library = isinstance(spec.decoder, LibraryDecoderSpec)
    return Content(
        name=spec.name,
        title=spec.title,
        figures=_figures(planned, cost),
        rows=rows,
        encoder=panel,
        skips=tuple(Skip(row, _skip_label(planned, row)) for row in fed),
        decoder=None if is_library else Panel(f"{spec.decoder.kind} decoder", of_decoder),
        levels=levels,
        flow=_flow(planned),
        heads=_heads(planned),
    )


def _fed_rows(planned: Plan) -> tuple[int, ...]:
    """Return the rows that the decoder gets, in its order; the input is row 0."""
    if isinstance(planned.spec.encoder, TimmEncoderSpec):
        found = list(range(1, len(planned.skips) + 1))
    else:
        found = [
            row
            for row, stage in enumerate(planned.stages, start=1)
            if stage.spec.skip.tap != "none"
        ]
    return (0, *found) if planned.spec.decoder.takes_input else tuple(found)


def _input_tile(planned: Plan) -> Tile:
    padded = planned.padded_size != planned.patch_size
    return Tile(
        "input",
        right=_counted(planned.in_channels, "channel"),
        grid=grid_text(planned.patch_size),
        note=f"padded to {grid_text(planned.padded_size)}" if padded else "",
    )


def _stage_tile(index: int, stage: StageSpec, grid: Grid, share: float) -> Tile:
    behind = [stage.post.mixer.kind] if isinstance(stage.post, MixerPostSpec) else []
    members = mixers_in(stage.mixer)[: stage.depth]
    kinds = "/".join(one.kind for one in members)
    is_long = len(" + ".join([kinds, *behind])) > _LONGEST
    blocks = f"{stage.depth} x {stage.mixer.kind if is_long else kinds}"
    marks = [mixer_of_block(stage.mixer, index).kind for index in range(stage.depth)]
    if len(marks) + len(behind) > _SEGMENTS:
        marks = list(dict.fromkeys(one.kind for one in members))
    return Tile(
        " + ".join([blocks if stage.depth else "no blocks", *behind]),
        right=f"width {stage.width}",
        grid=grid_text(grid),
        note=", ".join([*([kinds] if is_long else []), *_parts(stage)]),
        share=share,
        mixers=tuple(marks + behind),
        stage=index,
    )


def _parts(stage: StageSpec) -> list[str]:
    """Return the parts around the mixers that are not plain."""
    entry = getattr(stage.downsample, "kind", "")  # the plain one has none
    parts = [f"{entry} entry"] if entry else []
    if stage.depth:
        parts.append(f"{stage.block.kind} block")
        parts += [] if stage.ffn.kind == "none" else [f"{stage.ffn.kind} FFN"]
    parts += [stage.local.kind] if stage.has_local else []
    if stage.post.kind != "none" and not isinstance(stage.post, MixerPostSpec):
        parts.append(f"{stage.post.kind} post")
    return parts


def _skip_label(planned: Plan, row: int) -> str:
    parts = []
    if row and planned.stages:
        skip = planned.stages[row - 1].spec.skip
        parts += ["before blocks"] if skip.tap == "before_blocks" else []
        parts += [] if skip.norm == "none" else ["norm"]
        parts += [] if skip.mlp_ratio is None else ["MLP"]
    return ", ".join(parts + skip_units(planned.spec.decoder))


def _flow(planned: Plan) -> Flow:
    decoder, inputs = planned.spec.decoder, planned.decoder_inputs
    if isinstance(decoder, MLPDecoderSpec):
        return "fuse"
    return "up" if len(decoder.feature_shapes(inputs)) == len(inputs) - 1 else "none"


def _heads(planned: Plan) -> tuple[Head, ...]:
    features = planned.spec.decoder.feature_shapes(planned.decoder_inputs)
    classes = _counted(planned.num_classes, "class", "es")
    from_coarser = features[0].grid != planned.padded_size
    grids = planned.output_grids
    return tuple(
        Head(
            level,
            Tile(
                "auxiliary output" if index else "output",
                right=planned.spec.decoder.head if from_coarser and not index else "",
                grid=grid_text(grid),
                note=classes,
            ),
        )
        for index, (level, grid) in enumerate(zip(head_levels(features), grids, strict=False))
    )


def _figures(planned: Plan, cost: Cost) -> tuple[str, ...]:
    scans = f" + {cost.scan_flops / 1e9:.3f} scan GFLOP" if cost.scan_flops else ""
    return (
        f"{cost.params:,} parameters",
        f"{cost.flops / 1e9:.3f} GFLOP = 2 x {cost.macs / 1e9:.3f} GMAC{scans} ({CONVENTION})",
    )


def _counted(count: int, word: str, ending: str = "s") -> str:
    return f"{count} {word}{'' if count == 1 else ending}"
