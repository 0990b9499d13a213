"""A state dict into a network, all of it or what fits, with a report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from archspec.network.checkpoint import read_checkpoint
from archspec.network.published import check_not_meta
from blocks.errors import SpecError


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What became of a state dict.

    `loaded`, `missing` and `reshaped` are the network's tensors: loaded, not in the file, and there
    with another shape; these two were left as they were. `unused` are those of the file that the
    network has no place for.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Say whether the network has all of the file, and the file all of the network."""
        return not (self.missing or self.reshaped or self.unused)

    def text(self) -> str:
        """Return a line for each kind of tensors."""
        total = len(self.loaded) + len(self.missing) + len(self.reshaped)
        parts = [f"{len(self.loaded)} of {total} tensors loaded"]
        for names, what in (
            (self.reshaped, "have another shape in the file, and were left as they were"),
            (self.missing, "are not in the file, and were left as they were"),
            (self.unused, "of the file have no place"),
        ):
            if names:
                parts += [f"{len(names)} {what}:", *(f"  {name}" for name in names)]
        return "\n".join(parts)

    def __str__(self) -> str:
        return self.text()

    def to_json(self) -> dict[str, Any]:
        return {name: list(keys) for name, keys in asdict(self).items()}


def load_weights(net: nn.Module, file: str | Path, *, allow_partial: bool = False) -> LoadedWeights:
    """Load a file of weights under the network's own names, all of them or, if allowed, what fits.

    So a network starts from weights of one with other classes or input channels: the layers that
    depend on those keep their start values. A folder is one that `archspec.save` wrote.

    Raises:
        SpecError: the file cannot be read, does not cover the network exactly and `allow_partial`
            is not set, or has nothing for it; the network is on the meta device.
    """
    path = weights_file(Path(file))
    found = read_checkpoint(path)
    try:
        return fill(net, found, allow_partial=allow_partial)
    except SpecError as error:
        raise error.at(path) from None


def weights_file(path: Path) -> Path:
    """Return the file of weights in a folder that `archspec.save` wrote; a file is one itself."""
    return path / "model.safetensors" if path.is_dir() else path


def fill(
    net: nn.Module, found: Mapping[str, Tensor], *, allow_partial: bool = False
) -> LoadedWeights:
    """Load a state dict, see `load_weights`."""
    ours = net.state_dict()
    check_not_meta(ours)
    fits = {k: v for k, v in found.items() if k in ours and v.shape == ours[k].shape}
    report = LoadedWeights(
        loaded=tuple(fits),
        missing=tuple(key for key in ours if key not in found),
        reshaped=tuple(key for key in ours if key in found and key not in fits),
        unused=tuple(key for key in found if key not in ours),
    )
    if not fits or not (report.complete or allow_partial):
        raise _refusal(report, ours, found)
    net.load_state_dict(fits, strict=report.complete)
    return report


def _refusal(
    report: LoadedWeights, ours: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> SpecError:
    faults = {
        "are missing": report.missing,
        "have no place": report.unused,
        "have another shape": [
            f"{key}, which is {tuple(found[key].shape)}, not {tuple(ours[key].shape)}"
            for key in report.reshaped
        ],
    }
    parts = [f"{len(keys)} {what}, e.g. {keys[0]}" for what, keys in faults.items() if keys]
    return SpecError(
        f"not the weights of this network: {'; '.join(parts)}",
        suggestion="give the spec, in_channels and num_classes that they were trained with, or "
        "load what fits with archspec.load_weights and `allow_partial`",
    )
