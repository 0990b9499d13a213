"""The start values that a spec asks for with `init`, where they are not PyTorch's."""

import math

from torch import nn

from archspec.spec.schema import Init
from blocks.layers.traits import AddsToShortcut, KeepsStart

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialise(root: nn.Module, init: Init) -> None:
    """Set the weights below `root`; `default` leaves each component's own start values.

    `segformer`: linear layers truncated normal with std 0.02, convolutions (1x1 too) normal with
    std sqrt(2 / fan_out), fan_out = positions of the kernel x outputs / groups; biases 0. Norms
    already start at 1 and 0. Source: arXiv 2105.15203, as in
    github.com/OSUPCVLab/SegFormer3D@9d2fa50, architectures/segformer3d.py.

    `nnunet`: convolutions He normal for a leaky ReLU of slope 0.01, biases 0, and the norm before
    the sum of a basic block 0, so that such blocks start as their shortcut. Source:
    github.com/MIC-DKFZ/dynamic-network-architectures 0.4.4, initialization/weight_init.py.

    Modules that say so, such as scan branches, keep their own start values in both.
    """
    if init == "default" or (isinstance(root, KeepsStart) and root.keeps_start):
        return
    if init == "segformer":
        _segformer(root)
    else:
        _nnunet(root)
    for child in root.children():
        initialise(child, init)


def _segformer(root: nn.Module) -> None:
    if isinstance(root, nn.Linear):
        nn.init.trunc_normal_(root.weight, std=0.02)
    elif isinstance(root, _CONVOLUTIONS):
        fan_out = math.prod(root.kernel_size) * root.out_channels // root.groups
        nn.init.normal_(root.weight, std=math.sqrt(2 / fan_out))
    if isinstance(root, (nn.Linear, *_CONVOLUTIONS)) and root.bias is not None:
        nn.init.zeros_(root.bias)


def _nnunet(root: nn.Module) -> None:
    if isinstance(root, _CONVOLUTIONS):
        nn.init.kaiming_normal_(root.weight, a=1e-2)
        if root.bias is not None:
            nn.init.zeros_(root.bias)
    if isinstance(root, AddsToShortcut):
        for parameter in root.last_norm.parameters():
            nn.init.zeros_(parameter)
