"""What nnU-Net expects of a network, checked on a traced one before anything is written.

Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py (2.8.1).
"""

import json
from typing import Any

import torch
from torch import Tensor, nn

from archspec.network.plan import Plan
from archspec.nnunet.loss import output_scales
from archspec.nnunet.network import ArchSpecNet
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.plugins import packages
from blocks.encoders.timm_encoder import TimmEncoderSpec
from blocks.errors import SpecError, reason


def network_arguments(planned: Plan) -> dict[str, Any]:
    """Return what plans hand to `ArchSpecNet`, as their JSON text gives it back.

    Claims are left out: figures about the network, which change nothing in it.

    Raises:
        SpecError: the spec cannot be written as JSON.
    """
    spec = planned.spec.model_copy(update={"claims": ()})
    tree = spec.tree()
    del tree["claims"]
    arguments = {
        "spec": tree,
        "patch_size": list(planned.patch_size),
        "strides": planned.strides,
        "schema_version": spec.schema_version,
        "arch_hash": arch_hash(spec),
    }
    if needed := packages(spec):
        arguments["packages"] = needed
    try:
        kwargs: dict[str, Any] = json.loads(json.dumps(arguments, allow_nan=False))
    except ValueError as error:
        raise SpecError(f"{spec.name} cannot be written as JSON: {error}", field="spec") from None
    if load(kwargs["spec"]) != spec:
        raise SpecError(
            f"{spec.name} changes when written as JSON", field="spec", suggestion="report this bug"
        )
    return kwargs


def check_contract(planned: Plan, arguments: dict[str, Any], *, batch_size: int) -> tuple[str, ...]:
    """Build the network as nnU-Net does for training and for prediction; run both on meta.

    Returns the parameters of a library's network, or of its encoder, that get no gradient, which is
    not ours to mend.

    Raises:
        SpecError: it does not run at the plans' patch and batch size, outputs are not those that
            nnU-Net's targets are made for, the weights of one do not fit the other, or a parameter
            of a network of ours gets no gradient.
    """
    name = planned.spec.name
    trained = _network(planned, arguments, deep_supervision=True)
    predicting = _network(planned, arguments, deep_supervision=False)
    _check_weights(name, trained, predicting)
    outputs = _run(planned, trained.train(), batch_size)
    _check_outputs(planned, outputs, batch_size)
    unused = _without_gradient(trained, outputs)
    timm = isinstance(planned.spec.encoder, TimmEncoderSpec)
    ours = [name for name in unused if not (timm and name.startswith("stages."))]
    if ours and planned.spec.network is None:
        raise SpecError(
            f"{ours[0]} of {name} takes part in no output, so that distributed training would stop",
            field="spec",
            suggestion="report this bug",
        )
    with torch.no_grad():
        logits = _run(planned, predicting.eval(), 1)
    wanted = (1, planned.num_classes, *planned.patch_size)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
        raise SpecError(
            f"{name} does not predict one tensor of {wanted}",
            field="spec",
            suggestion="report this bug",
        )
    return unused


def target_sizes(planned: Plan) -> list[tuple[int, ...]]:
    """Return the grids of the targets that nnU-Net derives from `strides`.

    Source: batchgeneratorsv2, `DownsampleSegForDSTransform`.
    """
    return [
        tuple(round(n * scale) for n, scale in zip(planned.patch_size, scales, strict=True))
        for scales in output_scales(planned.strides)
    ]


def _network(planned: Plan, arguments: dict[str, Any], *, deep_supervision: bool) -> ArchSpecNet:
    with torch.device("meta"):  # start values would take most of the time
        return ArchSpecNet(
            planned.in_channels, planned.num_classes, deep_supervision=deep_supervision, **arguments
        )


def _run(planned: Plan, net: ArchSpecNet, batch_size: int) -> Tensor | list[Tensor]:
    patch = torch.empty(batch_size, planned.in_channels, *planned.patch_size, device="meta")
    try:
        outputs: Tensor | list[Tensor] = net(patch)
    except (RuntimeError, ValueError) as error:
        raise SpecError(
            f"{planned.spec.name} does not run at patch_size {list(planned.patch_size)}, "
            f"batch_size {batch_size}: {reason(error)}",
            field="spec",
        ) from None
    return outputs


def _check_weights(name: str, trained: nn.Module, predicting: nn.Module) -> None:
    """Refuse what the strict loading of a checkpoint for prediction would stop at."""
    shapes, others = (
        {key: tuple(value.shape) for key, value in net.state_dict().items()}
        for net in (trained, predicting)
    )
    if shapes != others:
        raise SpecError(
            f"the weights of {name} depend on deep supervision",
            field="spec",
            suggestion="report this bug",
        )


def _check_outputs(planned: Plan, outputs: Tensor | list[Tensor], batch_size: int) -> None:
    """Refuse outputs that do not stand beside their targets, which nnU-Net would not notice.

    With fewer than two targets nnU-Net's weights, of which the last is zero, would be 0 / 0.
    """
    sizes = [tuple(out.shape) for out in outputs]
    wanted = [(batch_size, planned.num_classes, *size) for size in target_sizes(planned)]
    if not isinstance(outputs, list) or sizes != wanted or len(wanted) < 2:
        raise SpecError(
            f"{planned.spec.name} gives outputs of shapes {sizes}, but nnU-Net would compare them "
            f"with targets of {wanted}",
            field="strides",
            suggestion="report this bug",
        )


def _without_gradient(net: nn.Module, outputs: Tensor | list[Tensor]) -> tuple[str, ...]:
    """Return the parameters without a gradient, at which distributed training (DDP) stops."""
    torch.autograd.backward([out.float().mean() for out in outputs])
    found = ((key, p) for key, p in net.named_parameters() if p.requires_grad)
    return tuple(key for key, p in found if p.grad is None)
