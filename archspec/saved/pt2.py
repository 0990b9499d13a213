"""A network -> a program of torch.export, which runs without this package where it can."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram, export

from archspec.files import check_writable, replacing
from archspec.network.segnet import SegNet
from archspec.saved.info import ModelInfo
from blocks.errors import SpecError, reason

EXTRA = "archspec.json"
"""What is known of the network, as an extra file of the program."""
_OF_TORCH = {"aten", "prims"}


@dataclass(frozen=True, slots=True)
class Exported:
    """A program that was written; `operators` are those that torch alone does not have."""

    path: Path
    operators: tuple[str, ...]

    @property
    def needs(self) -> str:
        """Say what is needed to load it."""
        if not self.operators:
            return "torch.export.load runs it without archspec"
        return (
            f"it calls {', '.join(self.operators)}: install archspec-seg, and import "
            "blocks.mixers before torch.export.load"
        )


def check_file(path: Path, ending: str, *, force: bool) -> None:
    """Refuse a file that could not be written, is there already, or has another ending.

    Raises:
        SpecError: see above.
    """
    check_writable(path)
    if path.suffix != ending:
        raise SpecError(f"must end in {ending}", where=path)
    if path.exists() and not force:
        raise SpecError(
            "exists", where=path, suggestion="give another name, or `force` to replace it"
        )


def write_pt2(net: SegNet, info: ModelInfo, path: Path, *, force: bool = False) -> Exported:
    """Write the network, for prediction: logits of any batch of patches of its own size.

    The program has `info` as the extra file `archspec.json`, beside its weights.

    Raises:
        SpecError: the file is there and `force` is not set, it cannot be written, or torch cannot
            export the network.
    """
    check_file(path, ".pt2", force=force)
    program = program_of(net)
    text = json.dumps(info.to_json(), allow_nan=False)
    with replacing(path) as partial, partial.open("wb") as opened:
        torch.export.save(program, opened, extra_files={EXTRA: text})
    return Exported(path, _foreign(program))


def program_of(net: SegNet, wrapper: nn.Module | None = None) -> ExportedProgram:
    """Return what the network, or a wrapper of it that takes float32, does for prediction.

    Raises:
        SpecError: torch cannot export it.
    """
    planned, was_training, heads = net.planned, net.training, net.decoder.deep_supervision
    weight = next(net.parameters())
    size = (2, planned.in_channels, *planned.patch_size)  # of one, torch would fix the batch
    dtype = weight.dtype if wrapper is None else torch.float32
    patch = torch.zeros(size, dtype=dtype, device=weight.device)
    net.eval()
    net.decoder.deep_supervision = False
    try:
        program = export(wrapper or net, (patch,), dynamic_shapes=({0: Dim("batch", min=1)},))
    except Exception as error:  # torch has no one error for what it cannot trace
        raise SpecError(
            f"torch.export does not take it: {reason(error)}", where=planned.spec.name
        ) from None
    finally:
        net.train(was_training)
        net.decoder.deep_supervision = heads
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it has paths of this machine
    return program


def _foreign(program: ExportedProgram) -> tuple[str, ...]:
    found = {
        node.target.name()  # type: ignore[no-untyped-call]
        for node in program.graph.nodes
        if isinstance(node.target, OpOverload) and node.target.namespace not in _OF_TORCH
    }
    return tuple(sorted(found))
