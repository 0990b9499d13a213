"""Pretrained weights, which a training starts from: loaded once, by whoever begins it.

Nobody else loads them. A plan, a cost or an export needs none, and a network whose weights come
from a checkpoint must not wait for a download, nor for a file that is gone.
"""

from pathlib import Path

from torch import nn

from archspec.network.checkpoint import read_checkpoint
from archspec.spec.schema import ArchSpec
from blocks.base import SpecError
from blocks.encoders.timm_encoder import TimmEncoder, TimmEncoderSpec


def load_start_weights(net: nn.Module) -> None:
    """Load what `encoder.pretrained` names; nothing where it is false, or on the meta device.

    Raises:
        SpecError: no such file, no weights of the model in it, or timm cannot get its own.
    """
    for module in net.modules():
        if not isinstance(module, TimmEncoder) or not module.spec.pretrained:
            continue
        if any(value.is_meta for value in module.parameters()):
            continue
        if isinstance(module.spec.pretrained, str):
            path = Path(module.spec.pretrained)
            try:
                module.load_start(read_checkpoint(path))
            except SpecError as error:
                raise error.at(path) from None
        else:
            module.load_start()


def has_start_weights(spec: ArchSpec) -> bool:
    """Say whether a training of the network starts from weights that are loaded."""
    return isinstance(spec.encoder, TimmEncoderSpec) and bool(spec.encoder.pretrained)


def check_start_weights(spec: ArchSpec) -> None:
    """Refuse a file that is not there, before a training is prepared that will look for it.

    Raises:
        SpecError: see above.
    """
    file = spec.encoder.pretrained if isinstance(spec.encoder, TimmEncoderSpec) else None
    if isinstance(file, str) and not Path(file).is_file():
        raise SpecError("no such file", where=file, field="encoder.pretrained")
