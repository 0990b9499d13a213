"""Activations, named by one word in a spec."""

from typing import Literal

from torch import nn

Act = Literal["relu", "leaky_relu", "gelu", "silu"]
ActOrNone = Literal["none", "relu", "leaky_relu", "gelu", "silu"]


def build_act(word: ActOrNone) -> nn.Module:
    """Return the activation; leaky_relu has nnU-Net's slope of 0.01."""
    if word == "none":
        return nn.Identity()
    if word == "relu":
        return nn.ReLU()
    if word == "leaky_relu":
        return nn.LeakyReLU(0.01)
    if word == "gelu":
        return nn.GELU()
    return nn.SiLU()
