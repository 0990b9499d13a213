"""A network -> an ONNX file, which onnxruntime runs without this package and without torch."""

import copy
import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from archspec.files import write_bytes
from archspec.network.segnet import SegNet
from archspec.saved.info import ModelInfo
from archspec.saved.pt2 import EXTRA, check_file, program_of
from blocks.errors import SpecError, reason
from blocks.layers.foreign import quiet

OPSET = 18
"""The version of ONNX's operators: the one that torch translates to, and old enough for most."""
INPUT, OUTPUT = "image", "logits"
_PACKAGES = ("onnx", "onnxscript")
_LARGEST = 2**31 - 2**24
"""Bytes of weights, under protobuf's 2 GiB with room for the graph."""


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A file that was written."""

    path: Path
    half: bool

    @property
    def needs(self) -> str:
        """Say what is needed to run it."""
        weights = ", weights in float16" if self.half else ""
        return (
            f"onnxruntime runs it without archspec (opset {OPSET}): input {INPUT}, output "
            f"{OUTPUT}, both float32{weights}"
        )


def check_onnx(path: Path, *, force: bool) -> None:
    """Refuse what `write_onnx` would not do: without its packages, or to that file.

    Raises:
        SpecError: see above.
    """
    check_file(path, ".onnx", force=force)
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise SpecError(
                f"writing ONNX needs the package {name}",
                where=path,
                suggestion='pip install "archspec-seg[onnx]"',
            )


def write_onnx(
    net: SegNet, info: ModelInfo, path: Path, *, half: bool = False, force: bool = False
) -> OnnxFile:
    """Write the network, for prediction: logits of any batch of patches of its own size.

    `half` computes in float16 but for scans; inputs and logits are float32 all the same. The file
    has `info` as the entry `archspec.json` of its metadata.

    Raises:
        SpecError: the file is there and `force` is not set, it cannot be written, a package is
            missing, the weights are too large, or torch cannot export the network.
    """
    check_onnx(path, force=force)
    own = copy.deepcopy(net).cpu().to(torch.float16 if half else torch.float32)
    size = sum(value.nbytes for value in own.state_dict().values())
    if size > _LARGEST:
        raise SpecError(f"{size / 2**30:.1f} GiB of weights; an ONNX file holds 2", where=path)
    write_bytes(path, _model(own, info, half=half))
    return OnnxFile(path, half)


class _Half(nn.Module):
    """A network in float16 between inputs and logits in float32."""

    def __init__(self, net: SegNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.half())
        return logits.float()


def _model(net: SegNet, info: ModelInfo, *, half: bool) -> bytes:
    import onnx

    from archspec.saved.onnx_scan import translations

    program = program_of(net, _Half(net) if half else None)
    try:
        with quiet(), _no_log("onnxscript"):
            exported: Any = torch.onnx.export(
                program,
                (),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                custom_translation_table=translations(),
            )
        model = exported.model_proto
        _bare(model.graph)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        text = json.dumps(info.to_json(), allow_nan=False)
        onnx.helper.set_model_props(model, {EXTRA: text})
        onnx.checker.check_model(model)
    except Exception as error:  # torch and onnx have no one error for what they cannot translate
        raise SpecError(
            f"torch.onnx does not take it: {reason(error)}", where=info.spec.name
        ) from None
    found: bytes = model.SerializeToString()
    return found


@contextmanager
def _no_log(name: str) -> Iterator[None]:
    """Leave out what a library logs of what it did not optimize."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _bare(graph: Any) -> None:
    """Take out what torch tells of its work: paths of this machine, names of the batch's size."""
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _bare(attribute.g)
