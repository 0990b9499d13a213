"""Specs around models of timm, MONAI and dynamic_network_architectures, with odd arguments."""

import random
from datetime import date
from typing import Any

from tests.fuzz.mutate import WORDS, scalar

_TIMM = (
    "resnet18",
    "mobilenetv3_small_050",
    "convnext_atto",
    "regnetx_002",
    "mixer_s32_224",
)
_TIMM_NAMES = (*_TIMM, *_TIMM, "resnet18.a1_in1k", "resnet18.no_such", "resnet18.", "resnet_1")
_INDICES = ([0], [0, 1, 2], [1, 2], [2, 1], [0, 0], [4], [17], [], [-1], ["0"], 1, True)
_PRETRAINED = (False, False, True, "weights.safetensors", "", 1, ["a"])

_UNET = {"n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": 3, "strides": [1, 2]}
_LAYERS = {"conv_op": "torch.nn.Conv3d", "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}
_NETWORKS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("monai", "SegResNet", {"init_filters": 4}),
    ("monai", "BasicUNet", {"features": [4, 4, 4, 4, 4, 4]}),
    ("monai", "DenseNet121", {}),
    ("monai", "AutoEncoder", {"channels": [4, 8], "strides": [2, 2]}),
    ("monai", "no_such", {}),
    ("dna", "PlainConvUNet", {**_UNET, **_LAYERS}),
    ("dna", "PlainConvUNet", {**_UNET, **_LAYERS, "conv_op": "torch.nn.Conf3d"}),
    ("torch", "Linear", {}),
)


def around_timm(draws: random.Random) -> dict[str, Any]:
    """Return a 2-D spec whose encoder is a model of timm, nearly always of a right shape."""
    encoder: dict[str, Any] = {"timm": draws.choice(_TIMM_NAMES)}
    if draws.random() < 0.3:
        encoder["out_indices"] = draws.choice(_INDICES)
    if draws.random() < 0.3:
        encoder["pretrained"] = draws.choice(_PRETRAINED)
    if draws.random() < 0.05:
        encoder["timm"] = draws.choice(WORDS)
    return {
        "name": "made-up",
        "patch_size": [draws.choice((16, 32, 33, 64, 224)) for _ in range(2)],
        "encoder": encoder,
        "decoder": draws.choice(({"kind": "mlp"}, {"kind": "sum"}, {"kind": "concat"})),
    }


def of_library(draws: random.Random) -> dict[str, Any]:
    """Return a spec of a library's network, at times with an argument too much."""
    library, name, args = draws.choice(_NETWORKS)
    args = dict(args)
    if draws.random() < 0.3:
        key = draws.choice((*args, "norm", "act", "in_channels", "no_such", 1))
        odd: tuple[Any, ...] = ([1] * 17_000, "x" * 20_000, {1: 2}, 2**70, date(2020, 1, 1))
        args[key] = draws.choice((*odd, scalar(draws), [1, 2], "torch.nn.ReLU"))
    network = {"from": library, "name": name, "args": args}
    if draws.random() < 0.5:
        network["divisor"] = draws.choice((1, 2, 8, 16, [8, 8, 8], 0, "a"))
    return {
        "name": "made-up",
        "in_channels": draws.choice((1, 2)),
        "num_classes": draws.choice((2, 3)),
        "patch_size": [draws.choice((8, 16, 31, 32)) for _ in range(draws.choice((2, 3, 3, 3)))],
        "network": network,
        **({"deep_supervision": {"heads": 2}} if draws.random() < 0.1 else {}),
    }
