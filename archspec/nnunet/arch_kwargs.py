"""Read `arch_kwargs` of plans: nnU-Net's networks as plain values, or which field no spec can say.

Source: github.com/MIC-DKFZ/dynamic-network-architectures 0.4.4, architectures/unet.py, whose
defaults stand here for what plans leave out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archspec.spec.words import shown
from blocks.base import Grid
from blocks.errors import Problem, SpecError

DEPTHS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
"""nnU-Net's networks, and what they call the number of convolutions or blocks of a stage."""

_ANY: tuple[Any, ...] = ()
"""Values of a setting that changes nothing here."""

_Settings = Mapping[str, tuple[Any, ...]]
"""Of a torch module: what each argument may be, torch's default first."""

_NORMS: Mapping[str, _Settings] = {
    "InstanceNorm": {
        "eps": (1e-5,),
        "affine": (False, True),
        "track_running_stats": (False,),
        "momentum": _ANY,  # without running statistics
    },
    "BatchNorm": {
        "eps": (1e-5,),
        "affine": (True,),
        "track_running_stats": (True,),
        "momentum": (0.1,),
    },
}
_ACTS: Mapping[str, _Settings] = {
    "LeakyReLU": {"negative_slope": (0.01,), "inplace": _ANY},
    "ReLU": {"inplace": _ANY},
    "GELU": {"approximate": ("none",)},
    "SiLU": {"inplace": _ANY},
}
_ACT_WORDS = {"LeakyReLU": "leaky_relu", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}

_OLD_FIELDS = (
    "UNet_class_name",
    "UNet_base_num_features",
    "unet_max_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "conv_kernel_sizes",
    "pool_op_kernel_sizes",
)


@dataclass(frozen=True, slots=True)
class PlannedNetwork:
    """One of nnU-Net's networks; whatever has an entry per stage or level goes fine to coarse.

    `depths` counts convolutions per stage, or residual blocks where `residual` is set. Norm and
    activation are words of a spec.
    """

    residual: bool
    features: tuple[int, ...]
    kernels: tuple[Grid, ...]
    strides: tuple[Grid, ...]
    depths: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    bias: bool
    norm: str
    act: str
    dropout: float


def read_architecture(settings: Mapping[str, Any]) -> PlannedNetwork:
    """Return the network of a configuration of plans.

    Raises:
        SpecError: not one of nnU-Net's networks, or fields that no spec can say: each is named,
            with what stands there and what is possible.
    """
    architecture = settings.get("architecture")
    if architecture is None:
        architecture = _of_old_plans(settings)
    name = _field(architecture, "network_class_name", where="architecture")
    match = re.fullmatch(r"(?:dynamic_network_architectures\..*\.)?(\w+)", str(name))
    if match is None or match[1] not in DEPTHS:
        raise SpecError(
            f"{shown(name)} is not a network that nnU-Net plans",
            field="architecture.network_class_name",
            allowed=" or ".join(DEPTHS),
        )
    kwargs = _field(architecture, "arch_kwargs", where="architecture")
    if not isinstance(kwargs, Mapping):
        raise SpecError(f"must be a mapping, but is {shown(kwargs)}", field="arch_kwargs")
    return _Reading(match[1], kwargs, len(settings["patch_size"])).network()


def _field(tree: Any, key: str, *, where: str) -> Any:
    if not isinstance(tree, Mapping) or key not in tree:
        raise SpecError(f"has no {key}", field=where, suggestion="these are not nnU-Net v2 plans")
    return tree[key]


class _Reading:
    """Read the fields one by one, and collect what is wrong; a wrong field has some value."""

    def __init__(self, name: str, kwargs: Mapping[str, Any], ndim: int) -> None:
        self.name = name
        self.kwargs = kwargs
        self.ndim = ndim
        self.problems: list[Problem] = []
        self.known = ["deep_supervision"]  # nnU-Net sets it when it builds the network

    def network(self) -> PlannedNetwork:
        """Return the network.

        Raises:
            SpecError: every mistake that was found.
        """
        stages = self._stages()
        residual = self.name == "ResidualEncoderUNet"
        self._op("conv_op", {f"Conv{self.ndim}d": {}})
        network = PlannedNetwork(
            residual=residual,
            features=self._counts("features_per_stage", stages),
            kernels=self._axes("kernel_sizes", stages, check=_kernel_problem),
            strides=self._axes("strides", stages, check=_stride_problem),
            depths=self._counts(DEPTHS[self.name], stages),
            decoder_convs=self._counts("n_conv_per_stage_decoder", stages - 1)[::-1],
            bias=bool(self._one_of("conv_bias", (False, True))),
            norm=self._norm(),
            act=self._act(),
            dropout=self._dropout(),
        )
        if residual:
            self._one_of("block", (None,))  # the basic block
            self._one_of("bottleneck_channels", (None,))
            self._one_of("stem_channels", (None, network.features[0]))
        else:
            self._one_of("nonlin_first", (False,))
        for key in self.kwargs:
            if key not in self.known:
                self._refuse(key, f"is not a field that {self.name} is planned with", self.known)
        if self.problems:
            raise SpecError(self.problems)
        return network

    def _refuse(self, key: str, problem: str, allowed: Sequence[Any] = ()) -> None:
        words = [word if isinstance(word, str) else shown(word) for word in allowed]
        self.problems.append(Problem(problem, field=f"arch_kwargs.{key}", allowed=", ".join(words)))

    def _get(self, key: str) -> Any:
        self.known.append(key)
        if key not in self.kwargs:
            self._refuse(key, "missing")
        return self.kwargs.get(key)

    def _stages(self) -> int:
        count = self._get("n_stages")
        if not _is_count(count) or count < 2:
            self._refuse("n_stages", f"must be an integer of at least 2, but is {shown(count)}")
            raise SpecError(self.problems)
        return int(count)

    def _listed(self, key: str, count: int) -> list[Any]:
        """Return one entry per stage or level; a number stands for all of them."""
        value = self._get(key)
        if isinstance(value, list | tuple):
            if len(value) != count:
                self._refuse(key, f"has {len(value)} entries, but must have {count}")
            return [*value, *[1] * count][:count]
        return [value] * count if key in self.kwargs else [1] * count

    def _counts(self, key: str, count: int) -> tuple[int, ...]:
        found = self._listed(key, count)
        for index, value in enumerate(found):
            if not _is_count(value):
                self._refuse(f"{key}.{index}", f"must be a positive integer, but is {shown(value)}")
        return tuple(value if _is_count(value) else 1 for value in found)

    def _axes(
        self, key: str, count: int, *, check: Callable[[int, Grid], str | None]
    ) -> tuple[Grid, ...]:
        """Return a value per axis for each stage; `check` says what is wrong with a stage's."""
        axes = []
        for index, value in enumerate(self._listed(key, count)):
            entry = tuple(value) if isinstance(value, list | tuple) else (value,) * self.ndim
            if len(entry) != self.ndim or not all(map(_is_count, entry)):
                self._refuse(
                    f"{key}.{index}",
                    f"must be {self.ndim} positive integers, one per axis of the patch, but is "
                    f"{shown(value)}",
                )
                entry = (1,) * self.ndim
            elif problem := check(index, entry):
                self._refuse(f"{key}.{index}", problem)
            axes.append(entry)
        return tuple(axes)

    def _one_of(self, key: str, allowed: tuple[Any, ...]) -> Any:
        """Return the field, or where it is left out the first of those that are allowed."""
        self.known.append(key)
        value = self.kwargs.get(key, allowed[0])
        if value not in allowed:
            self._refuse(key, f"{shown(value)} cannot be said in a spec", allowed)
        return value

    def _norm(self) -> str:
        norms = {f"{name}{self.ndim}d": settings for name, settings in _NORMS.items()}
        name, settings = self._op("norm_op", norms, optional=True)
        if name is None:
            return "none"
        if name.startswith("Batch"):
            return "batch"
        return "instance_affine" if settings.get("affine") else "instance"

    def _act(self) -> str:
        name, _ = self._op("nonlin", _ACTS)
        return _ACT_WORDS.get(name or "", "relu")

    def _dropout(self) -> float:
        drops = {f"Dropout{self.ndim}d": {"p": _ANY, "inplace": _ANY}}
        name, settings = self._op("dropout_op", drops, optional=True)
        if name is None:
            return 0.0
        rate = settings.get("p", 0.5)  # torch's default
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
            self._refuse(
                "dropout_op_kwargs.p", f"must be at least 0 and below 1, but is {shown(rate)}"
            )
            return 0.0
        return float(rate)

    def _op(
        self, key: str, possible: Mapping[str, _Settings], *, optional: bool = False
    ) -> tuple[str | None, Mapping[str, Any]]:
        """Return the torch module that a field names, and its arguments; None where there is none.

        An argument that a spec cannot say is refused.
        """
        below = f"{key}_kwargs"
        self.known += [key, below]
        op, settings = self.kwargs.get(key), self.kwargs.get(below) or {}
        if op is None and optional:
            return None, {}
        match = re.fullmatch(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)", str(op))
        if match is None or match[1] not in possible:
            allowed = [*(["null"] if optional else []), *(f"torch.nn.{name}" for name in possible)]
            self._refuse(key, f"{shown(op)} cannot be said in a spec", allowed)
            return None, {}
        if not isinstance(settings, Mapping):
            self._refuse(below, f"must be a mapping, but is {shown(settings)}")
            return match[1], {}
        for name, value in settings.items():
            values = possible[match[1]].get(name)
            if values is None:
                self._refuse(f"{below}.{name}", "cannot be said in a spec", [*possible[match[1]]])
            elif values and value not in values:
                self._refuse(f"{below}.{name}", f"{shown(value)} cannot be said in a spec", values)
        return match[1], settings


def _kernel_problem(stage: int, kernel: Grid) -> str | None:
    """Return what is wrong with a kernel that would shift the grid."""
    even = any(size % 2 == 0 for size in kernel)
    return f"{list(kernel)} must be odd on every axis" if even else None


def _stride_problem(stage: int, stride: Grid) -> str | None:
    """Return what is wrong with strides that leave no grid of its own for a head."""
    keeps = all(step == 1 for step in stride)
    if stage == 0 and not keeps:
        return (
            "must be 1 on every axis, for the first output has the patch's grid, but is "
            f"{list(stride)}"
        )
    if stage > 0 and keeps:
        return f"{list(stride)} keeps the grid, but each output has a coarser one than that before"
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _of_old_plans(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture of plans from before nnU-Net 2.5, which had fields of their own.

    Source: github.com/MIC-DKFZ/nnUNet, nnunetv2/utilities/plans_handling/plans_handler.py (2.8.1),
    `ConfigurationManager`.
    """
    missing = [name for name in _OLD_FIELDS if name not in settings]
    if missing:
        raise SpecError(
            f"neither architecture nor {', '.join(missing)}",
            field="configuration",
            suggestion="these are not nnU-Net v2 plans",
        )
    name, convs = settings["UNet_class_name"], settings["n_conv_per_stage_encoder"]
    width, widest = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    ndim = len(settings["patch_size"])
    return {
        "network_class_name": name,
        "arch_kwargs": {
            "n_stages": len(convs),
            "features_per_stage": [min(width * 2**stage, widest) for stage in range(len(convs))],
            "conv_op": f"torch.nn.Conv{ndim}d",
            "kernel_sizes": settings["conv_kernel_sizes"],
            "strides": settings["pool_op_kernel_sizes"],
            DEPTHS.get(name, "n_conv_per_stage"): convs,
            "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{ndim}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        },
    }
