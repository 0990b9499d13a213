"""Cases of the user's own, as a search sees them where it sees nnU-Net's dataset else."""

import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from archspec.network.input_sizes import InputSizes
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.spec.claims import MAX_PATCH_AXIS
from archspec.spec.words import shown
from blocks.base import MAX_WIDTH, Grid, SpecError, is_count
from blocks.errors import reason

if TYPE_CHECKING:
    from search.trials.cases import Cases


@dataclass(frozen=True, eq=False)
class OwnCases:
    """What a search has to know of the cases; `given` is what travels to its workers."""

    given: "Cases | Callable[[], Cases]"
    name: str
    sizes: InputSizes
    batch_size: int
    classes: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    fingerprint: str = ""

    @property
    def patch_size(self) -> Grid:
        """Return the patch, which cases always have."""
        assert self.sizes.patch_size is not None
        return self.sizes.patch_size

    def make(self) -> "Cases":
        """Return the cases; a factory is called, each time."""
        return _made(self.given)

    def to_json(self) -> dict[str, Any]:
        """Return what a run keeps of them, beside the name and the test part."""
        spacing = self.sizes.spacing
        return {
            "in_channels": self.sizes.in_channels,
            "num_classes": self.sizes.num_classes,
            "patch_size": list(self.patch_size),
            "spacing": None if spacing is None else list(spacing),
            "batch_size": self.batch_size,
            "classes": list(self.classes),
            "validation": list(self.validation),
            "fingerprint": self.fingerprint,
        }


Data = PreprocessedDataset | OwnCases
"""What trials train on."""


def own_cases(given: "Cases | Callable[[], Cases]") -> OwnCases:
    """Look at the cases, or at those that the factory makes, and at whether workers can have them.

    Raises:
        SpecError: they lack something, have a wrong value, or no other process can have them.
    """
    cases = _made(given)
    spacing = getattr(cases, "spacing", None)
    names, batch = f"a list of names, e.g. {['case_1', 'case_2']}", f"an integer, 1 to {MAX_WIDTH}"
    right = {
        "name": (_is_name, "a name"),
        "in_channels": (_is_width, batch),
        "num_classes": (_is_width, batch),
        "batch_size": (_is_width, batch),
        "patch_size": (_is_patch, f"2 or 3 sizes in voxels, from 1 to {MAX_PATCH_AXIS}"),
        "classes": (_are_names, "the names of the foreground classes"),
        "validation_cases": (_are_names, names),
        "test_cases": (lambda value: value in ([], ()) or _are_names(value), f"{names}, or none"),
    }
    for name, (is_right, allowed) in right.items():
        value = getattr(cases, name, None)
        if not is_right(value):
            raise SpecError(
                "is missing" if value is None else f"is {shown(value)}",
                where="cases",
                field=name,
                allowed=allowed,
            )
    if spacing is not None and not _is_spacing(spacing, len(cases.patch_size)):
        allowed = "a size in mm per axis of the patch, or None"
        raise SpecError(f"is {shown(spacing)}", where="cases", field="spacing", allowed=allowed)
    missing = [name for name in _METHODS if not callable(getattr(cases, name, None))]
    if missing:
        raise SpecError(f"have no method {missing[0]}", where="cases", allowed=", ".join(_METHODS))
    both = sorted(set(cases.validation_cases) & set(cases.test_cases))
    if both:
        raise SpecError(f"{shown(both[0])} validates and tests", where="cases")
    _check_pickle(given)
    sizes = InputSizes(
        in_channels=cases.in_channels,
        num_classes=cases.num_classes,
        patch_size=tuple(cases.patch_size),
        spacing=None if spacing is None else tuple(float(size) for size in spacing),
    )
    return OwnCases(
        given,
        cases.name,
        sizes,
        cases.batch_size,
        tuple(cases.classes),
        tuple(cases.validation_cases),
        tuple(cases.test_cases),
        str(getattr(cases, "fingerprint", "")),
    )


_METHODS = ("batches", "loss", "score", "score_cases")


def _made(given: "Cases | Callable[[], Cases]") -> "Cases":
    """Return the cases; a class is a factory, though its methods are there already."""
    if isinstance(given, type) or not hasattr(given, "batches"):
        if not callable(given):
            raise SpecError(
                f"{type(given).__name__} is neither cases nor a function that makes them",
                where="cases",
                suggestion="give a subclass of search.Cases, or what it returns",
            )
        return given()
    return cast("Cases", given)


def _check_pickle(given: Any) -> None:
    """Refuse what a process that is spawned cannot have.

    Raises:
        SpecError: see above.
    """
    try:
        pickle.dumps(given)
    except Exception as error:  # whatever a part of it raises
        raise SpecError(
            f"cannot be sent to the processes that train: {reason(error)}",
            where="cases",
            suggestion="give a function of a module that makes them there",
        ) from None
    made_by = getattr(given, "func", given)  # of a functools.partial
    home = made_by if hasattr(made_by, "__qualname__") else type(made_by)
    file = getattr(sys.modules["__main__"], "__file__", None)
    if home.__module__ == "__main__" and (file is None or not Path(file).is_file()):
        raise SpecError(
            "are of an interactive session, whose classes the processes that train do not find",
            where="cases",
            suggestion="write them into a file",
        )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_names(value: Any) -> bool:
    names = value if isinstance(value, list | tuple) else ()
    return bool(names) and all(map(_is_name, names)) and len(set(names)) == len(names)


def _is_width(value: Any) -> bool:
    return is_count(value, most=MAX_WIDTH)


def _is_patch(value: Any) -> bool:
    sizes = value if isinstance(value, list | tuple) else ()
    return len(sizes) in (2, 3) and all(is_count(size, most=MAX_PATCH_AXIS) for size in sizes)


def _is_spacing(value: Any, ndim: int) -> bool:
    sizes: Sequence[Any] = value if isinstance(value, list | tuple) else ()
    return len(sizes) == ndim and all(type(size) in (int, float) and size > 0 for size in sizes)
