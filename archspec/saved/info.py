"""What a saved network says of itself beside its weights, and how a file holds that."""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import archspec
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan, plan
from archspec.nnunet.labels import check_labels, num_segmentation_heads
from archspec.saved.preprocessing import Preprocessing
from archspec.spec.hashing import arch_hash, is_hash_of
from archspec.spec.load import load
from archspec.spec.plugins import check_packages, packages
from archspec.spec.schema import ArchSpec
from archspec.spec.tree import thawed
from archspec.spec.words import shown
from archspec.spec.yaml_file import dump, parse
from blocks.base import Grid
from blocks.errors import Place, SpecError

FORMAT = 1
"""Of what is written beside the weights; a file without it is one of `archspec convert`."""
_WIDTH = 80
_MOST = 1e30
"""Beyond any number that an image is normalized with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a saved network says of itself.

    `spacing` is in mm per axis of the patch. `normalization` has a mapping for each input channel,
    its `scheme` by nnU-Net's name and what that needs, such as `mean` and `std`. `labels` are the
    values by name as in a dataset.json, and `regions_class_order` goes with labels that are
    regions. `preprocessing` is the rest that predicting takes. None stands for what nobody said.
    """

    spec: ArchSpec
    in_channels: int
    num_classes: int
    patch_size: Grid
    spacing: tuple[float, ...] | None = None
    normalization: tuple[Mapping[str, Any], ...] | None = None
    labels: Mapping[str, Any] | None = None
    regions_class_order: tuple[int, ...] | None = None
    preprocessing: Preprocessing | None = None

    def plan(self, patch_size: Grid | None = None) -> Plan:
        """Return the network's plan, for another patch than the saved one where it is given.

        Raises:
            SpecError: the spec does not fit the sizes.
        """
        patch = self.patch_size if patch_size is None else patch_size
        sizes = InputSizes(
            in_channels=self.in_channels, num_classes=self.num_classes, patch_size=patch
        )
        return plan(self.spec, sizes)

    def to_json(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        found: dict[str, Any] = {
            "archspec_format": FORMAT,
            "archspec_version": archspec.__version__,
            "arch_hash": arch_hash(self.spec),
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
            "patch_size": list(self.patch_size),
        }
        if needed := packages(self.spec):
            found["packages"] = needed
        if self.spacing is not None:
            found["spacing"] = list(self.spacing)
        if self.normalization is not None:
            found["normalization"] = [dict(one) for one in self.normalization]
        if self.labels is not None:
            found["labels"] = thawed(dict(self.labels))
        if self.regions_class_order is not None:
            found["regions_class_order"] = list(self.regions_class_order)
        if self.preprocessing is not None:
            found["preprocessing"] = self.preprocessing.to_json()
        return {**found, "spec": self.spec.tree()}

    def metadata(self) -> dict[str, str]:
        """Return the same as texts, the spec as YAML, for the header of a safetensors file."""
        found = self.to_json()
        spec = found.pop("spec")
        return {**{key: json.dumps(value) for key, value in found.items()}, "spec": dump(spec)}

    def text(self) -> str:
        """Return the page of it."""
        size = " x ".join(map(str, (1, self.in_channels, *self.patch_size)))
        lines = [f"{self.spec.name}: input {size}, {self.num_classes} classes"]
        lines.append(f"arch hash {arch_hash(self.spec)}")
        if self.spacing is not None:
            lines.append(f"spacing {' x '.join(f'{one:g}' for one in self.spacing)} mm")
        if self.normalization is not None:
            lines.append(f"normalization {', '.join(one['scheme'] for one in self.normalization)}")
        if self.labels is not None:
            lines.append(f"labels {', '.join(self.labels)}")
        if self.preprocessing is not None:
            lines.append(self.preprocessing.text())
        if needed := packages(self.spec):
            lines.append(f"needs {', '.join(f'{name} {at}' for name, at in needed.items())}")
        wrap = textwrap.TextWrapper(_WIDTH, subsequent_indent="  ")
        return "\n".join(part for line in lines for part in wrap.wrap(line))

    def __str__(self) -> str:
        return self.text()


def check_info(info: ModelInfo) -> ModelInfo:
    """Return it, its normalization as mappings, after a look at whatever a caller or a file said.

    Raises:
        SpecError: something does not fit the network, or is not of its type.
    """
    planned = info.plan()
    axes = len(planned.patch_size)
    spacing, schemes, labels = info.spacing, info.normalization, info.labels
    order = info.regions_class_order
    if spacing is not None and (
        not _is_list(spacing) or len(spacing) != axes or not all(map(_is_length, spacing))
    ):
        raise SpecError(
            f"must be {axes} sizes in mm, one per axis of the patch, but is {shown(spacing)}",
            field="spacing",
        )
    if schemes is not None:
        if not _is_list(schemes) or len(schemes) != planned.in_channels:
            raise SpecError(
                f"must have an entry for each of {planned.in_channels} input channels, but is "
                f"{shown(schemes)}",
                field="normalization",
            )
        schemes = tuple(_scheme(index, one) for index, one in enumerate(schemes))
    if labels is not None:
        _check_labels(labels, order, planned.num_classes)
    if order is not None and (labels is None or not _is_order(order)):
        raise SpecError(
            f"must be a list of labels, beside `labels`, but is {shown(order)}",
            field="regions_class_order",
        )
    said = info.preprocessing
    if said is not None:
        said = Preprocessing.of(said, in_channels=planned.in_channels, ndim=axes)
    return replace(
        info,
        preprocessing=said,
        patch_size=planned.patch_size,
        spacing=None if spacing is None else tuple(map(float, spacing)),
        normalization=schemes,
        labels=None if labels is None else dict(labels),
        regions_class_order=None if order is None else tuple(order),
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and -_MOST < value < _MOST


def _is_order(value: Any) -> bool:
    return _is_list(value) and all(type(one) is int for one in value)


def _is_length(value: Any) -> bool:
    return _is_number(value) and value > 0


def _scheme(index: int, given: Any) -> Mapping[str, Any]:
    """Return the channel's normalization as a mapping; a word is a scheme that needs nothing."""
    scheme = {"scheme": given} if isinstance(given, str) else given
    right = isinstance(scheme, Mapping) and isinstance(scheme.get("scheme"), str)
    if not right or not all(
        isinstance(key, str) and (key == "scheme" or isinstance(value, bool) or _is_number(value))
        for key, value in scheme.items()
    ):
        raise SpecError(
            "must be a mapping with the name of a scheme, e.g. {scheme: ZScoreNormalization}, and "
            f"numbers, but is {shown(given)}",
            field=f"normalization.{index}",
        )
    return {
        key: value if isinstance(value, str | bool | int) else float(value)
        for key, value in scheme.items()
    }


def _check_labels(labels: Any, order: Any, num_classes: int) -> None:
    if not isinstance(labels, Mapping) or not all(isinstance(name, str) for name in labels):
        raise SpecError(
            f"must be a mapping of names to values, but is {shown(labels)}", field="labels"
        )
    check_labels(labels, order)
    heads = num_segmentation_heads(labels)
    if heads != num_classes:
        raise SpecError(
            f"need a network of {heads} classes, but this one has {num_classes}", field="labels"
        )


def info_of_metadata(metadata: Mapping[str, str], path: Path) -> ModelInfo:
    """Return what the header of a safetensors file says.

    Raises:
        SpecError: as `info_of_json`; it has no spec.
    """
    if "spec" not in metadata:
        raise SpecError(
            "holds weights without their spec",
            where=path,
            suggestion="archspec.create_model takes them with the spec that they are of",
        )
    found: dict[str, Any] = {"spec": parse(metadata["spec"], str(path)).tree}
    for key in _KEYS & metadata.keys():
        try:
            found[key] = json.loads(metadata[key])
        except (ValueError, RecursionError):
            raise SpecError("not JSON", where=path, field=key) from None
    return info_of_json(found, path)


_KEYS = {
    *("archspec_format", "arch_hash", "in_channels", "num_classes", "patch_size", "packages"),
    *("spacing", "normalization", "labels", "regions_class_order", "preprocessing"),
}


def info_of_json(tree: Any, path: Path) -> ModelInfo:
    """Return what `config.json` says, or the header of a safetensors file as such a tree.

    Raises:
        SpecError: it is of a later format or schema, lacks something, does not fit together, or was
            changed since it was written; a package is missing.
    """
    if not isinstance(tree, Mapping) or not isinstance(tree.get("spec"), Mapping):
        raise SpecError("holds no spec", where=path)
    version = tree.get("archspec_format", 0)
    if not isinstance(version, int) or version > FORMAT:
        raise SpecError(
            f"{shown(version)} is not a format that this archspec reads ({FORMAT})",
            where=path,
            field="archspec_format",
            suggestion="upgrade archspec-seg",
        )
    try:
        check_packages(_packages(tree.get("packages", {})))
        info = check_info(_info(tree))
    except SpecError as error:
        raise SpecError([replace(one, where=Place(str(path))) for one in error.problems]) from None
    stored = tree.get("arch_hash")
    if stored is None and version == 0:
        return info
    if not isinstance(stored, str) or not is_hash_of(stored, info.spec, "arch"):
        raise SpecError(
            f"{shown(stored)} is not the hash of the spec there ({arch_hash(info.spec)})",
            where=path,
            field="arch_hash",
            suggestion="the file was changed after it was written",
        )
    return info


def _info(tree: Mapping[str, Any]) -> ModelInfo:
    try:
        spec = load(tree["spec"])
    except SpecError as error:
        raise error.below("spec") from None
    return ModelInfo(
        spec=spec,
        in_channels=tree.get("in_channels", spec.in_channels),
        num_classes=tree.get("num_classes", spec.num_classes),
        patch_size=tree.get("patch_size", spec.patch_size),
        spacing=tree.get("spacing"),
        normalization=tree.get("normalization"),
        labels=tree.get("labels"),
        regions_class_order=tree.get("regions_class_order"),
        preprocessing=tree.get("preprocessing"),
    )


def _packages(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(part, str) for pair in value.items() for part in pair
    ):
        raise SpecError(f"must be names with versions, but is {shown(value)}", field="packages")
    return value
