"""From whatever names a spec to its plan, with every refusal located in the text."""

import re
from collections.abc import Sequence

from archspec.network.plan import Plan, plan
from archspec.spec.find import load_tree
from archspec.spec.load import SpecLike, apply_overrides, validate, written_at
from archspec.spec.schema import ArchSpec
from archspec.spec.yaml_file import Source
from blocks.base import Grid, SpecError


def resolve(
    spec: SpecLike,
    *,
    overrides: Sequence[str] = (),
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
) -> Plan:
    """Load a spec (a name, path, mapping or ArchSpec) and plan it for the sizes.

    Raises:
        SpecError: the spec is wrong or does not fit the sizes; one line with file, line and path.
    """
    sizes = {"in_channels": in_channels, "num_classes": num_classes}
    if isinstance(spec, ArchSpec):
        if not overrides:
            return plan(spec, patch_size=patch_size, **sizes)
        spec = spec.tree()
    source = apply_overrides(load_tree(spec), overrides)
    return plan_source(source, patch_size=patch_size, **sizes)


def plan_source(
    source: Source,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
) -> Plan:
    """Validate a tree and plan it for the sizes.

    A patch size that is an argument or an override is named as what does not fit.

    Raises:
        SpecError: as `resolve`.
    """
    loaded = validate(source)
    try:
        return plan(loaded, in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    except SpecError as error:
        field = re.match(r"[a-z_]+(\.[a-z_0-9]+)*", str(error))
        parts = field[0].split(".") if field else []
        path = tuple(int(part) if part.isdigit() else part for part in parts)
        where = source.where(written_at(source, path))
        if path == ("patch_size",) or "patch_size" in str(error):
            override = source.where(("patch_size",))
            if patch_size is not None:
                where = f"patch_size={patch_size}"
            elif override.startswith("-s "):
                where = override
        raise SpecError(f"{where}  {error}") from None
