"""Plan -> SegNet."""

from itertools import accumulate

from torch import nn

from archspec.network.initialise import initialise
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, StagePlan
from archspec.network.resolve import resolve
from archspec.network.segnet import SegNet, Stage
from archspec.network.start_weights import load_start_weights
from archspec.spec.load import SpecLike
from blocks.base import Grid
from blocks.decoders.decoder import Decoder, Heads
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.layers.norm import build_norm
from blocks.mixers.cycle import mixer_of_block
from blocks.wrappers.block import ConvBlockSpec


def build(
    spec: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
) -> SegNet:
    """Compile a spec (or its name, path or mapping) into a network on the default device.

    The result is an ordinary module: logits out, `decoder.deep_supervision` off. Pretrained weights
    that the spec names are loaded.

    Raises:
        SpecError: the spec is wrong, or does not fit the sizes; pretrained weights do not come.
    """
    sizes = InputSizes(in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    net = build_plan(resolve(spec, sizes))
    load_start_weights(net)
    return net


def build_plan(planned: Plan) -> SegNet:
    """Compile a plan into a network on the default device, without pretrained weights."""
    stages, decoder = build_parts(planned)
    return SegNet(stages, decoder, planned=planned)


def build_parts(planned: Plan) -> tuple[list[nn.Module], Decoder]:
    """Return what `SegNet` is made of, for subclasses of it."""
    heads = Heads(
        count=len(planned.output_grids),
        num_classes=planned.num_classes,
        patch_size=planned.padded_size,
    )
    decoder = planned.spec.decoder.build(planned.decoder_inputs, heads)
    stages = _build_stages(planned)
    for part in (*stages, decoder):
        initialise(part, planned.spec.init)
    return stages, decoder


def _build_stages(planned: Plan) -> list[nn.Module]:
    """Return the stages, fine to coarse; a model of timm is one."""
    if isinstance(planned.spec.encoder, TimmEncoderSpec):
        return [planned.spec.encoder.build(planned.input)]
    depths = [stage.spec.depth for stage in planned.stages]
    last = max(sum(depths) - 1, 1)
    return [
        _build_stage(stage, [block / last for block in range(end - depth, end)])
        for stage, depth, end in zip(planned.stages, depths, accumulate(depths), strict=True)
    ]


def _build_stage(stage: StagePlan, positions: list[float]) -> Stage:
    """Return the stage; `positions` are its blocks' places in the network, from 0 to 1."""
    spec, at = stage.spec, stage.out
    local = spec.local.build(at) if spec.has_local_per("stage") else None
    downsample = spec.downsample.build(stage.inp, at)
    entry = downsample if spec.downsample.is_in_block else None
    return Stage(
        downsample=downsample if entry is None else nn.Identity(),
        local=nn.Identity() if local is None else local,
        blocks=[
            _build_block(stage, index, position, entry=None if index else entry)
            for index, position in enumerate(positions)
        ],
        post=spec.post.build(at),
        norm=build_norm(spec.norm, at),
        skip=spec.skip.build(at),
        tap=spec.skip.tap,
    )


def _build_block(
    stage: StagePlan, index: int, position: float, *, entry: nn.Module | None
) -> nn.Module:
    """Return one block; `entry` is the stage's strided convolution, for the first to hold."""
    spec, at = stage.spec, stage.out
    mixer, ffn = mixer_of_block(spec.mixer, index).build(stage.mixed), spec.ffn.build(at)
    if entry is not None:
        assert isinstance(spec.block, ConvBlockSpec)
        return spec.block.build_first(stage.inp, at, conv=entry, mixer=mixer, ffn=ffn)
    block = spec.block.build(at, mixer=mixer, ffn=ffn, position=position)
    local = spec.local.build(at) if spec.has_local_per("block") else None
    return block if local is None else nn.Sequential(local, block)
