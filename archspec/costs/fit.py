"""Does training fit on a GPU, and what would: answers from the memory estimate."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from archspec.costs.memory import training_memory
from archspec.network.plan import Plan, plan
from blocks.base import Grid
from blocks.errors import SpecError, argument

UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30, "M": 10**6, "G": 10**9}
_MOST = 10**15


def memory_size(text: str, *, name: str = "gpu_memory") -> int:
    """Return the bytes of '12GB' or '11.5 GiB'.

    Raises:
        SpecError: not a number with a unit.
    """
    found = re.fullmatch(r"([0-9]+\.?[0-9]*) ?([A-Za-z]+)", text.strip())
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not 0 < float(found[1]) * unit <= _MOST:
        raise SpecError(
            "must be a size such as 12GB, 11.5GiB or 8000MB, at most 1000000GB",
            where=argument(name, text),
        )
    return int(float(found[1]) * unit)


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a training step under AMP fits; `batch_that_fits` is 0 if none does.

    `patch_that_fits` is the largest scaled patch at the batch asked for, when that does not fit.
    """

    name: str
    batch: int
    patch_size: Grid
    needed: int
    available: int
    batch_that_fits: int
    patch_that_fits: Grid | None

    @property
    def fits(self) -> bool:
        return self.needed <= self.available

    @staticmethod
    def of(planned: Plan, batch: int, available: int) -> "Fit":
        """Estimate the step, and look for what fits instead."""
        needed = _needed(planned, batch)
        if needed <= available:
            largest, patch = _largest_batch(planned, batch, available), None
        else:
            largest = _largest_batch(planned, 0, available)
            patch = _largest_patch(planned, batch, available)
        return Fit(planned.spec.name, batch, planned.patch_size, needed, available, largest, patch)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        patch = self.patch_that_fits
        return {
            **asdict(self),
            "patch_size": list(self.patch_size),
            "patch_that_fits": None if patch is None else list(patch),
            "fits": self.fits,
        }

    def text(self) -> str:
        """Return one line."""
        need = (
            f"{self.name}, batch {self.batch}, AMP: about {self.needed / 2**30:.2f} GiB of "
            f"{self.available / 2**30:.2f}: "
        )
        if self.fits:
            return f"{need}fits, up to batch {self.batch_that_fits}"
        options = [f"batch {self.batch_that_fits}"] if self.batch_that_fits else []
        if self.patch_that_fits is not None:
            options.append(f"patch {','.join(str(n) for n in self.patch_that_fits)}")
        return f"{need}too much; {' or '.join(options) or 'nothing smaller'} fits"


def _needed(planned: Plan, batch: int) -> int:
    return training_memory(planned, batch=batch, amp=True).total


def _largest_batch(planned: Plan, fitting: int, available: int) -> int:
    """Return the largest batch that fits, 0 if none does; `fitting` is one that is known to."""
    one, two = _needed(planned, 1), _needed(planned, 2)
    if one > available:
        return 0
    # Mostly each case adds as much as the second; in small networks later ones add more.
    low = max(fitting, 1)
    high, step = max(low, 1 + (available - one) // max(1, two - one)), 1
    while _needed(planned, high) <= available:
        low, high, step = high, high + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _needed(planned, middle) <= available else (low, middle)
    return low


def _largest_patch(planned: Plan, batch: int, available: int) -> Grid | None:
    """Return the largest patch of about the same shape that fits at this batch."""
    step = planned.total_stride
    counts = [-(-size // stride) for size, stride in zip(planned.patch_size, step, strict=True)]
    patches: list[Grid] = []
    for part in range(1, 100):
        smaller = (max(1, count * part // 100) for count in counts)
        patch = tuple(n * s for n, s in zip(smaller, step, strict=True))
        if patch != planned.patch_size and patch not in patches:
            patches.append(patch)
    # Memory grows along the list, so the last that fits is found by halving.
    low, high = 0, len(patches)
    while low < high:
        middle = (low + high) // 2
        if _patch_needs(planned, patches[middle], batch) <= available:
            low = middle + 1
        else:
            high = middle
    found = patches[low - 1] if low else None
    return found if found and _patch_needs(planned, found, batch) else None


def _patch_needs(planned: Plan, patch: Grid, batch: int) -> int:
    """Return the bytes at another patch size; 0 for one so small that the network refuses it."""
    try:
        smaller = plan(planned.spec, replace(planned.sizes, patch_size=patch))
    except SpecError:
        return 0
    return _needed(smaller, batch)
