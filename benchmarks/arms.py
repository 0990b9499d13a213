"""The arms of the experiments, made from the bundled spaces so that both have one host."""

import copy
from typing import Any

from experiment import Arm
from optuna.trial import FixedTrial

import archspec
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.spec.load import load
from blocks.base import Grid
from search.space.match import match_spec, step_seconds
from search.space.settings import MatchSpec
from search.space.space import load_space

STAGES = ("encoder.stages.0.mixer", "encoder.stages.1.mixer")

PLACEMENTS = {
    "MMAA": ("tom", "attention"),
    "AAMM": ("attention", "tom"),
    "MMMM": ("tom", "tom"),
    "AAAA": ("attention", "attention"),
    "conv": ("conv", "conv"),
}
"""The four blocks' mixers: two in the first stage, two in the second; M is ToM, A attention."""

ORDERS = {
    "forward": ["forward"],
    "two orders": ["forward", "reverse"],
    "three orders": ["forward", "reverse", "inter_slice"],
}

_HEADS = {"one head": 1, "three heads": 3}


def mixer_arm(
    name: str, mixers: tuple[str, str], patch: Grid, *, overrides: tuple[str, ...] = ()
) -> Arm:
    """Return the host of the space `mixers` with a mixer per stage."""
    space = load_space("mixers", overrides=(f"patch_size={list(patch)}", *overrides))
    params = {**dict(zip(STAGES, mixers, strict=True)), "training.lr": 4e-3}
    planned = plan(space.suggest(FixedTrial(params)))
    return Arm(name, _named(name, planned.spec.tree()))


def placement_arms(patch: Grid) -> list[Arm]:
    """Return the placements, the leak of instance norm, and a residual U-Net as reference."""
    arms = [mixer_arm(name, mixers, patch) for name, mixers in PLACEMENTS.items()]
    leaky = ("encoder.defaults.block.norm=instance",)
    arms.append(mixer_arm("conv, instance", ("conv", "conv"), patch, overrides=leaky))
    return [*arms, residual_unet(patch, arms[0].tree["training"])]


def order_arms(patch: Grid) -> list[Arm]:
    """Return ToM in every block with one, two and three scan orders, and convolutions."""
    arms = []
    for name, orders in ORDERS.items():
        arm = mixer_arm(name, ("tom", "tom"), patch)
        for stage in arm.tree["encoder"]["stages"]:
            stage["mixer"]["orders"] = orders
        arms.append(arm)
    return [*arms, mixer_arm("conv", ("conv", "conv"), patch)]


def decoder_arms(patch: Grid) -> list[Arm]:
    """Return the host of the space `decoders` with each decoder, and concat with FUE."""
    space = load_space("decoders", overrides=(f"patch_size={list(patch)}",))
    arms = []
    for kind in ("mlp", "sum", "concat"):
        params = {"decoder": kind, f"decoder[{kind}].head": "transpose", "training.lr": 4e-3}
        params |= {"decoder[mlp].width": 32} if kind == "mlp" else {}
        planned = plan(space.suggest(FixedTrial(params)))
        arms.append(Arm(kind, _named(kind, planned.spec.tree())))
    certain = {**arms[-1].tree, "decoder": {**arms[-1].tree["decoder"], "fue": True}}
    return [*arms, Arm("concat + FUE", _named("concat + FUE", certain), rate_of="concat")]


def kernel_arms(patch: Grid) -> list[Arm]:
    """Return the narrow SegResMamba with CMMB's kernel 5, the paper's, and with 3."""
    five = supervision_arms(patch)[0]
    tree = copy.deepcopy(five.tree)
    for stage in tree["encoder"]["stages"]:
        stage["block"]["resize_kernel"] = 3
    return [
        Arm("kernel 5", _named("kernel 5", five.tree)),
        Arm("kernel 3", _named("kernel 3", tree), rate_of="kernel 5"),
    ]


def supervision_arms(patch: Grid) -> list[Arm]:
    """Return a narrow SegResMamba with the host's recipe, with one head and with three."""
    widths = [f"encoder.stages.{stage}.width={8 * 2**stage}" for stage in range(4)]
    tree = load("segresmamba", overrides=(*widths, f"patch_size={list(patch)}")).tree()
    tree = {**tree, "claims": (), "training": decoder_arms(patch)[0].tree["training"]}
    heads = {name: {**tree, "deep_supervision": {"heads": n}} for name, n in _HEADS.items()}
    return [
        Arm(name, _named(name, made), rate_of="" if name == "one head" else "one head")
        for name, made in heads.items()
    ]


def residual_unet(patch: Grid, training: dict[str, Any]) -> Arm:
    """Return a small residual encoder U-Net with nnU-Net's parts, its instance norm included.

    It starts at stride 2: at full resolution the others' cost would leave it two channels.
    """
    stages = [
        {"width": width, "depth": depth, "downsample": {"kernel_size": 3, "stride": 2}}
        for width, depth in ((16, 1), (32, 3), (64, 4))
    ]
    block = {"kind": "basic", "norm": "instance_affine", "act": "leaky_relu"}
    tree = {
        "name": "resenc",
        "patch_size": tuple(patch),
        "encoder": {
            "defaults": {"block": block, "mixer": {"kind": "conv", "act": "none"}},
            "stages": tuple(stages),
        },
        "decoder": {
            "kind": "concat",
            "skip_block": "none",
            "num_convs": 1,
            "norm": "instance_affine",
            "head": "transpose",
        },
        "training": training,
    }
    return Arm("ResEnc U-Net", load(tree).tree())


def matched(arms: list[Arm], target: MatchSpec, *, classes: int, channels: int = 1) -> list[Arm]:
    """Return the arms with widths at the target's cost."""
    sizes = InputSizes(in_channels=channels, num_classes=classes)
    return [
        Arm(
            arm.name,
            match_spec(arm.tree, target, sizes).tree(),
            arm.rate_of,
        )
        for arm in arms
    ]


def macs_of(arm: Arm, *, classes: int, channels: int = 1) -> int:
    """Return the multiply-adds of an arm as it stands."""
    return archspec.cost(arm.tree, in_channels=channels, num_classes=classes).macs


def seconds_of(arm: Arm, *, classes: int, channels: int = 1) -> float:
    """Return the seconds of a forward and backward pass of two patches, on this CPU."""
    planned = archspec.plan(arm.tree, in_channels=channels, num_classes=classes)
    return step_seconds(planned, batch_size=2, repeats=5)


def _named(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    word = name.replace(", ", "-").replace(" + ", "-").replace(" ", "-")
    return {**tree, "name": word}
