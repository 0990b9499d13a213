"""Network classes of other libraries: which may be named, what they take, what they need.

Nothing is imported before a network is planned, and only from the modules that are listed here.
"""

import difflib
import importlib
import inspect
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blocks.base import Grid, SpecError, StageShape
from blocks.errors import Problem, quoted, reason
from blocks.layers.foreign import Largest, NumbersOnHost, bounded, quiet
from blocks.layers.fused_attention import FusedAttention

LibraryName = Literal["monai", "dna"]

DIVISORS = (1, 2, 4, 8, 16, 32)
"""What an axis of the input may have to divide by."""
_PROBED = 64
"""Positions along an axis from which on a divisor is tried; fewer may be none in a deep network."""

_TORCH_CLASS = re.compile(r"torch\.nn\.(?:modules\.\w+\.)?(\w+)")


@dataclass(frozen=True, slots=True)
class Library:
    """A package: the modules whose own network classes a spec may name."""

    distribution: str
    modules: tuple[str, ...]
    brings: str

    def classes(self) -> dict[str, type[nn.Module]]:
        """Return the classes by name.

        Raises:
            SpecError: the package is not installed.
        """
        found: dict[str, type[nn.Module]] = {}
        for name in self.modules:
            try:
                with quiet():
                    module = importlib.import_module(name)
            except ImportError as error:
                raise SpecError(
                    f"needs the package {self.distribution}: {reason(error)}",
                    field="network.from",
                    suggestion=f"pip install {self.brings}",
                ) from None
            found |= {
                key: value
                for key, value in vars(module).items()
                if isinstance(value, type)
                and issubclass(value, nn.Module)
                and f"{value.__module__}.".startswith(f"{name}.")
            }
        return found


LIBRARIES: Mapping[LibraryName, Library] = {
    "monai": Library("monai", ("monai.networks.nets",), "monai"),
    "dna": Library(
        "dynamic-network-architectures",
        (
            "dynamic_network_architectures.architectures.unet",
            "dynamic_network_architectures.architectures.primus",
        ),
        "nnunetv2",
    ),
}


def network_class(library: LibraryName, name: str) -> type[nn.Module]:
    """Return the class that the library has under this name.

    Raises:
        SpecError: the library is not installed, or has no such network.
    """
    known = LIBRARIES[library].classes()
    if name not in known:
        raise SpecError(
            f"{library} has no network {quoted(name)}",
            field="network.name",
            allowed=f"a class of {' or '.join(LIBRARIES[library].modules)}",
            suggestion=_meant(name, known),
        )
    return known[name]


def _sizes(inp: StageShape, num_classes: int) -> dict[str, Any]:
    """Return what archspec gives, by the names that the libraries have for it."""
    return {
        **dict.fromkeys(("in_channels", "input_channels"), inp.channels),
        **dict.fromkeys(("out_channels", "output_channels", "num_classes"), num_classes),
        **dict.fromkeys(("spatial_dims", "dimensions"), inp.ndim),
        **dict.fromkeys(("img_size", "input_shape"), inp.grid),
        "deep_supervision": False,
        "pretrained": False,  # nothing is downloaded
    }


def _parameters(cls: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """Return what the constructor takes by name, those of a parent's that `**kwargs` go on to."""
    found: dict[str, inspect.Parameter] = {}
    for one in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        if "__init__" not in vars(one):
            continue
        _, *own = inspect.signature(one.__init__).parameters.values()  # type: ignore[misc]
        for parameter in own:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def is_sized(cls: type[nn.Module]) -> bool:
    """Say whether a network of the class is built for one size of its input."""
    return not {"img_size", "input_shape"}.isdisjoint(_parameters(cls))


def arguments(
    cls: type[nn.Module], given: Mapping[str, Any], inp: StageShape, num_classes: int
) -> dict[str, Any]:
    """Return what the class is called with: what a spec gives, and the sizes.

    Raises:
        SpecError: each argument that the class does not take, that archspec gives, or that is
            missing; a torch class that there is not.
    """
    parameters = _parameters(cls)
    sizes = {key: value for key, value in _sizes(inp, num_classes).items() if key in parameters}
    own = [key for key in parameters if key not in sizes]
    problems = []
    for key in given:
        if key in sizes:
            what = "archspec gives this argument itself, the sizes of the input among them"
            problems.append(Problem(what, field=f"network.args.{key}", suggestion="leave it out"))
        elif key not in own:
            problems.append(
                Problem(
                    f"{cls.__name__} has no such argument",
                    field=f"network.args.{key}",
                    allowed=", ".join(own),
                    suggestion=_meant(key, own),
                )
            )
    required = [key for key in own if parameters[key].default is inspect.Parameter.empty]
    missing = [key for key in required if key not in given]
    if missing:
        what = f"{cls.__name__} also needs {', '.join(missing)}"
        problems.append(Problem(what, field="network.args"))
    if problems:
        raise SpecError(problems)
    return sizes | {key: _value(value, f"network.args.{key}") for key, value in given.items()}


def _value(value: Any, field: str) -> Any:
    """Return the value with classes for names such as `torch.nn.modules.conv.Conv3d`.

    Raises:
        SpecError: torch has no such layer.
    """
    if isinstance(value, Mapping):
        return {key: _value(item, f"{field}.{key}") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_value(item, f"{field}.{index}") for index, item in enumerate(value))
    named = _TORCH_CLASS.fullmatch(value) if isinstance(value, str) else None
    if named is None:
        return value
    found = getattr(nn, named[1], None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise SpecError(f"torch.nn has no layer {named[1]!r}", field=field)
    return found


def make(cls: type[nn.Module], called_with: Mapping[str, Any]) -> nn.Module:
    """Return the network on the default device.

    Raises:
        SpecError: the class refuses the arguments, or makes too many modules of them.
    """
    try:
        with quiet(), NumbersOnHost(), bounded(cls.__name__, field="network.args"):
            return cls(**called_with)
    except SpecError:
        raise
    except Exception as error:  # whatever a constructor raises at arguments that it cannot use
        raise SpecError(
            f"{cls.__name__} refuses these arguments: {type(error).__name__}: {reason(error)}",
            field="network.args",
        ) from None


def _meant(word: str, known: Iterable[str]) -> str:
    """Return a question with the name that may have been meant; nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def trace(net: nn.Module, inp: StageShape, num_classes: int) -> int:
    """Run a network that lies on meta; return the elements of its largest tensor.

    Raises:
        SpecError: it does not run at this input, or does not give logits of its size.
    """
    name, wanted = type(net).__name__, (1, num_classes, *inp.grid)
    x = torch.empty(1, inp.channels, *inp.grid, device="meta")
    try:
        with torch.no_grad(), quiet(), FusedAttention(), Largest() as largest:
            out = net.eval()(x)
    except Exception as error:  # a library's own checks, shapes that do not match, values of meta
        raise SpecError(
            f"{name} does not run on the meta device at {list(x.shape)}: {reason(error)}",
            field="network",
        ) from None
    if not isinstance(out, Tensor) or tuple(out.shape) != wanted:
        found = list(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise SpecError(
            f"{name} gives {found} at {list(x.shape)}, not logits of {list(wanted)}",
            field="network.name",
        )
    tensors: list[int] = [largest.elements, x.numel(), *(p.numel() for p in net.parameters())]
    return max(tensors)


def probed_divisor(cls: type[nn.Module], given: Mapping[str, Any], ndim: int) -> Grid:
    """Return by what each axis must divide: the least number at whose odd multiples it runs.

    Raises:
        SpecError: it runs at none; why at the largest one.
    """
    usual = (_multiple(DIVISORS[-1]),) * ndim
    _trace_at(cls, given, usual)

    def runs(axis: int, number: int) -> bool:
        """Say whether it does where one axis has no larger divisor."""
        grid = (*usual[:axis], _multiple(number), *usual[axis + 1 :])
        try:
            _trace_at(cls, given, grid)
        except SpecError:
            return False
        return True

    last = len(DIVISORS) - 1
    return tuple(
        DIVISORS[bisect_left(DIVISORS, True, hi=last, key=partial(runs, axis))]
        for axis in range(ndim)
    )


def _multiple(number: int) -> int:
    """Return an odd multiple, which no larger power of two divides."""
    count = math.ceil(_PROBED / number)
    return number * (count + 1 - count % 2)


def _trace_at(cls: type[nn.Module], given: Mapping[str, Any], grid: Grid) -> None:
    inp = StageShape(1, grid)
    with torch.device("meta"):
        net = make(cls, arguments(cls, given, inp, 2))
    trace(net, inp, 2)
