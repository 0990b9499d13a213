"""Published weights into our networks: key tables in specs/keys, matched before anything loads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from archspec.network.segnet import SegNet
from archspec.spec.bundled import bundled, bundled_names
from blocks.base import ComponentSpec, SpecError

Size = Literal["in_channels", "num_classes"]


class KnownCheckpoint(ComponentSpec):
    """A checkpoint in circulation, known by keys that it lacks."""

    absent: str
    remark: str


class KeyTable(ComponentSpec):
    """One file of specs/keys; `segmamba.yaml` there says what the fields mean."""

    specs: Annotated[tuple[str, ...], Field(min_length=1)]
    source: str
    keys: dict[str, str]
    ignored: tuple[str, ...] = ()
    sizes: dict[Size, tuple[str, int]]
    variants: tuple[KnownCheckpoint, ...] = ()
    remarks: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of a published state dict.

    `matched` and `missing` are our keys, loaded and left at their start values; `ignored` are
    published keys that the table knows to be needless, `unused` those without a place or with
    another shape. `remark` is what the table says of such checkpoints.
    """

    matched: tuple[str, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    remark: str | None

    @property
    def complete(self) -> bool:
        return not self.missing and not self.unused


def load_official(
    net: SegNet,
    state_dict: Mapping[str, Tensor],
    *,
    spec_name: str | None = None,
    allow_partial: bool = False,
) -> LoadReport:
    """Load published weights into the network, all of them or, unless allowed, none.

    `spec_name` says as which bundled spec to read them, where the network's own name is another.

    Raises:
        SpecError: no key table for this spec, not a mapping of tensors, a network on the meta
            device, or weights that do not cover the network exactly and `allow_partial` is not set.
    """
    name = net.spec_name if spec_name is None else spec_name
    weights = plain_weights(state_dict)
    check_not_meta(net.state_dict())
    report, found = _match(net, weights, key_table(name), spec_name=name)
    if not found or not (report.complete or allow_partial):
        raise _refusal(name, weights, net.state_dict(), report)
    net.load_state_dict(found, strict=report.complete)
    return report


def key_table(spec_name: str) -> KeyTable:
    """Return the table for the weights of a bundled spec.

    Raises:
        SpecError: there is none.
    """
    tables = key_tables()
    for table in tables:
        if spec_name in table.specs:
            return table
    known = ", ".join(sorted(name for table in tables for name in table.specs))
    raise SpecError(
        "no published weights are known for this spec",
        where=spec_name,
        suggestion=f"known: {known}",
    )


def is_published(spec_name: str) -> bool:
    """Say whether there is a key table for the spec."""
    return any(spec_name in table.specs for table in key_tables())


def plain_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by name, without the prefixes of DataParallel and torch.compile.

    Raises:
        SpecError: not a mapping of names to tensors.
    """
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise SpecError("must be a mapping of names to tensors, and not empty", field="state_dict")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise SpecError(
                f"{key!r} is a {type(value).__name__}, not a tensor", field="state_dict"
            )
    weights = dict(state_dict)
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def check_not_meta(weights: Mapping[str, Tensor]) -> None:
    """Refuse a network without values.

    Raises:
        SpecError: see above.
    """
    if any(value.is_meta for value in weights.values()):
        raise SpecError(
            "is on the meta device, which holds no weights",
            field="net",
            suggestion="build it on another",
        )


def key_tables() -> list[KeyTable]:
    """Return all tables of specs/keys."""
    return [KeyTable.model_validate(bundled(name, "keys").tree) for name in bundled_names("keys")]


def _match(
    net: SegNet, weights: Mapping[str, Tensor], table: KeyTable, *, spec_name: str
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Return the report, and the weights by our keys."""
    ours = net.state_dict()
    found: dict[str, Tensor] = {}
    ignored, unused = [], []
    for key, value in weights.items():
        target = renamed(key, table)
        if target in ours and ours[target].shape == value.shape:
            assert target not in found, f"{key}: a second key for {target}"
            found[target] = value
        elif any(re.fullmatch(pattern, key) for pattern in table.ignored):
            ignored.append(key)
        else:
            unused.append(key)
    missing = tuple(key for key in ours if key not in found)
    usual = table.remarks.get(spec_name)
    remark = next((v.remark for v in table.variants if _lacks(weights, v.absent)), usual)
    foreign = len(unused) + len(ignored) == len(weights)
    report = LoadReport(
        tuple(found), tuple(ignored), missing, tuple(unused), None if foreign else remark
    )
    return report, found


def renamed(key: str, table: KeyTable) -> str:
    """Return our key, or nothing, which is no key, where the table has none."""
    matches = ((re.fullmatch(pattern, key), ours) for pattern, ours in table.keys.items())
    return next((match.expand(ours) for match, ours in matches if match), "")


def _lacks(weights: Mapping[str, Tensor], pattern: str) -> bool:
    return not any(re.fullmatch(pattern, key) for key in weights)


def _refusal(
    name: str,
    weights: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    report: LoadReport,
) -> SpecError:
    """Return what to raise: how many tensors fit, an example of each kind of misfit, what to do."""
    parts = [f"{len(report.matched)} of {len(ours)} tensors of the network were found"]
    if report.missing:
        parts.append(f"{len(report.missing)} are missing, e.g. {report.missing[0]}")
    if report.unused:
        key = report.unused[0]
        target = renamed(key, key_table(name))
        shape = tuple(weights[key].shape)
        why = f"is {shape}, not {tuple(ours[target].shape)}" if target in ours else "has no place"
        parts.append(f"{len(report.unused)} do not fit, e.g. {key} {why}")
    if report.remark:
        parts.append(report.remark)
    way_out = "to load what fits, allow a partial load" if report.matched else ""
    return SpecError(f"checkpoint for {name}: {'; '.join(parts)}", suggestion=way_out)
