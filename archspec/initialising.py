"""The start values that a spec asks for with `init`, where they are not PyTorch's."""

import math
from typing import Literal

from torch import nn

from blocks.layers.scan_branch import ScanBranch

Init = Literal["default", "segformer"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialise(root: nn.Module, init: Init) -> None:
    """Set the weights below `root`; `default` leaves each component's own start values.

    `segformer`: linear layers truncated normal with std 0.02, convolutions (1x1 too) normal with
    std sqrt(2 / fan_out), fan_out = positions of the kernel x outputs / groups; biases 0. Norms
    already start at 1 and 0. Scan branches keep their own start values, which set time steps.

    Source: arXiv 2105.15203, as in github.com/OSUPCVLab/SegFormer3D@9d2fa50,
    architectures/segformer3d.py.
    """
    if init == "default" or isinstance(root, ScanBranch):
        return
    if isinstance(root, nn.Linear):
        nn.init.trunc_normal_(root.weight, std=0.02)
    elif isinstance(root, _CONVOLUTIONS):
        fan_out = math.prod(root.kernel_size) * root.out_channels // root.groups
        nn.init.normal_(root.weight, std=math.sqrt(2 / fan_out))
    if isinstance(root, (nn.Linear, *_CONVOLUTIONS)) and root.bias is not None:
        nn.init.zeros_(root.bias)
    for child in root.children():
        initialise(child, init)
