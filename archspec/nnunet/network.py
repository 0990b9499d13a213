"""The network class that nnU-Net finds by name in plans; this module never imports nnU-Net."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from archspec.network.build import build_parts
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.network.segnet import SegNet
from archspec.network.start_weights import has_start_weights, load_start_weights
from archspec.spec.load import load
from archspec.spec.plugins import check_packages
from blocks.base import SpecError


class ArchSpecNet(SegNet):
    """The SegNet of a spec inlined in nnU-Net's plans, called as nnU-Net calls its networks.

    nnU-Net finds it as `archspec.nnunet.ArchSpecNet`, a name that stands in users' plans and
    checkpoints. `strides` is for nnU-Net, which derives the targets' sizes from it. `arch_hash`
    is kept for whoever asks which network this is; plans written before it existed have none.
    `packages` are those, with versions, that the network has components of beside archspec.

    nnU-Net builds it alike for a training, to go on with one, and to predict. So pretrained weights
    are loaded by the first forward pass, unless a state dict was loaded before.

    Raises:
        SpecError: the spec is wrong, a package is missing, or `strides` does not describe its
            outputs.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        spec: Mapping[str, Any],
        patch_size: Sequence[int],
        strides: Sequence[Sequence[int]],
        schema_version: int,
        arch_hash: str | None = None,
        packages: Mapping[str, str] | None = None,
        deep_supervision: bool = False,
    ) -> None:
        check_packages(packages or {})
        sizes = InputSizes(
            in_channels=input_channels, num_classes=num_classes, patch_size=tuple(patch_size)
        )
        planned = plan(load({**spec, "schema_version": schema_version}), sizes)
        given = [list(row) for row in strides]
        if given != planned.strides:
            raise SpecError(
                f"the outputs of {planned.spec.name} at patch_size {list(patch_size)} have "
                f"{planned.strides}, but the plans say {given}",
                field="strides",
                suggestion="export the spec again",
            )
        stages, decoder = build_parts(planned)
        super().__init__(stages, decoder, planned=planned)
        self.arch_hash = arch_hash
        self.decoder.deep_supervision = deep_supervision
        self.awaits_start = has_start_weights(planned.spec)
        if self.awaits_start:
            self.register_load_state_dict_pre_hook(_keep_loaded)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if self.awaits_start and not x.is_meta:
            torch.compiler.disable(load_start_weights)(self)  # type: ignore[no-untyped-call]
            self.awaits_start = False
        return super().forward(x)


def _keep_loaded(net: ArchSpecNet, *_: object) -> None:
    """Leave pretrained weights out: others are being loaded."""
    net.awaits_start = False
