"""archspec: a YAML file declares a segmentation network; archspec builds, costs and exports it.

Names load when first used, so that the command line answers `--help` without importing torch.
"""

import importlib
import importlib.metadata
import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archspec.api import create_model, list_components, plan
    from archspec.costs.describe import describe
    from archspec.costs.diff import diff
    from archspec.costs.flops import Cost, cost
    from archspec.drawing.draw import draw
    from archspec.inference.predict import predict
    from archspec.network.build import build
    from archspec.network.published import LoadReport, load_official
    from archspec.network.weights import LoadedWeights, load_weights
    from archspec.nnunet.export import export_nnunet
    from archspec.nnunet.from_plans import from_plans
    from archspec.saved.info import ModelInfo
    from archspec.saved.read import from_pretrained, model_info
    from archspec.saved.save import save
    from archspec.scoring.evaluate import evaluate
    from archspec.spec.find import list_specs
    from archspec.spec.load import load
    from archspec.spec.schema import ArchSpec
    from blocks.base import SpecError
    from blocks.decoders import register_decoder
    from blocks.downsample import register_downsample
    from blocks.ffn import register_ffn
    from blocks.local import register_local
    from blocks.mixers import register_mixer
    from blocks.post import register_post
    from blocks.wrappers import register_block
    from search.space.space import load_space

__all__ = [
    "ArchSpec",
    "Cost",
    "LoadReport",
    "LoadedWeights",
    "ModelInfo",
    "SpecError",
    "build",
    "cost",
    "create_model",
    "describe",
    "diff",
    "draw",
    "evaluate",
    "export_nnunet",
    "from_plans",
    "from_pretrained",
    "list_components",
    "list_specs",
    "load",
    "load_official",
    "load_space",
    "load_weights",
    "model_info",
    "plan",
    "predict",
    "register_block",
    "register_decoder",
    "register_downsample",
    "register_ffn",
    "register_local",
    "register_mixer",
    "register_post",
    "save",
]
__version__ = "0.1.0"

_HOMES = {
    "ModelInfo": "archspec.saved.info",
    "LoadedWeights": "archspec.network.weights",
    "load_weights": "archspec.network.weights",
    "save": "archspec.saved.save",
    "from_pretrained": "archspec.saved.read",
    "model_info": "archspec.saved.read",
    "ArchSpec": "archspec.spec.schema",
    "Cost": "archspec.costs.flops",
    "LoadReport": "archspec.network.published",
    "SpecError": "blocks.base",
    "build": "archspec.network.build",
    "cost": "archspec.costs.flops",
    "create_model": "archspec.api",
    "describe": "archspec.costs.describe",
    "diff": "archspec.costs.diff",
    "draw": "archspec.drawing.draw",
    "evaluate": "archspec.scoring.evaluate",
    "export_nnunet": "archspec.nnunet.export",
    "from_plans": "archspec.nnunet.from_plans",
    "list_components": "archspec.api",
    "list_specs": "archspec.spec.find",
    "load": "archspec.spec.load",
    "load_official": "archspec.network.published",
    "load_space": "search.space.space",
    "plan": "archspec.api",
    "predict": "archspec.inference.predict",
    "register_post": "blocks.post",
    "register_mixer": "blocks.mixers",
    "register_local": "blocks.local",
    "register_ffn": "blocks.ffn",
    "register_downsample": "blocks.downsample",
    "register_decoder": "blocks.decoders",
    "register_block": "blocks.wrappers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'archspec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _warn_of_shadows() -> None:
    """Say which file or distribution hides which, where our import names resolve elsewhere."""
    home = Path(__file__).resolve().parent.parent
    for name in ("blocks", "search"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            warnings.warn(
                f"'import {name}' finds {origin or 'nothing'} instead of {home / name}; rename "
                "that file, or run from another folder",
                stacklevel=3,
            )
    try:
        other = importlib.metadata.distribution("archspec")
    except importlib.metadata.PackageNotFoundError:
        return
    warnings.warn(
        f"the distribution 'archspec' {other.version} (Spack's CPU library) is installed beside "
        "'archspec-seg' and uses the same import name; keep them in separate environments",
        stacklevel=3,
    )


_warn_of_shadows()
