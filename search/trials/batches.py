"""Batches in order, one for every step, loaded in the step itself or ahead by other processes."""

import multiprocessing
import os
import random
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from archspec.nnunet.voxels import CaseError
from archspec.training.step import Batch
from blocks.base import SpecError

_VARIABLE = "nnUNet_n_proc_DA"
_MOST = 12
"""nnU-Net's default number of loading processes per GPU."""


@dataclass(frozen=True)
class Loading:
    """How batches are loaded: by so many `processes`, 0 for in the step itself.

    `pinned` puts what they load into page-locked memory, from which copies to a GPU do not block.
    A batch that takes longer than `timeout` seconds is given up.
    """

    processes: int = 0
    pinned: bool = False
    timeout: float = 300.0


class LoadingError(RuntimeError):
    """A batch cannot be loaded."""


def load_batches(
    source: Iterator[Batch], steps: range, *, seed: int, loading: Loading
) -> Generator[Batch, None, None]:
    """Yield the batch of every step.

    `source` draws batches from the global generators of Python, numpy and torch. A batch depends
    on the seed and its step alone, whoever loads it, and the caller's generators stay as they are.

    Raises:
        CaseError: `source` came upon a case that cannot be used.
        LoadingError: `source` raised something else; its traceback is a note of the error.
        RuntimeError: see `faults.is_loader_lost`.
    """
    batches = _Batches(source, seed)
    for found in _ahead(batches, steps, loading) if loading.processes else map(batches.load, steps):
        if isinstance(found, LoadingError | CaseError):
            raise found
        images, target = found
        yield images, target


def num_loaders(device: str, num_workers: int) -> int:
    """Return how many processes load for one of so many workers on this machine.

    None on a CPU, which training keeps busy already. For a GPU as many as nnU-Net would start, and
    nnUNet_n_proc_DA says otherwise here too; without it workers share the processors.

    Raises:
        SpecError: nnUNet_n_proc_DA is not a number.
    """
    if not device.startswith("cuda") or "fork" not in multiprocessing.get_all_start_methods():
        return 0
    given = os.environ.get(_VARIABLE)
    if given is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, min(_MOST, (cores or 1) // num_workers))
    if not given.isdecimal():
        raise SpecError(f"must be a number of processes, 0 or more, got {given!r}", where=_VARIABLE)
    return int(given)


_Loaded = Batch | LoadingError | CaseError


class _Batches(Dataset[_Loaded]):
    """The batch of a step, by its number."""

    def __init__(self, source: Iterator[Batch], seed: int) -> None:
        self._source = source
        self._seed = seed

    def __getitem__(self, step: int) -> _Loaded:
        return self.load(step)

    def load(self, step: int) -> _Loaded:
        """Load; a fault is returned, since between processes its type and text would be lost."""
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            self._seed_for(step)
            return next(self._source)
        except CaseError as error:
            return error
        except Exception as error:
            found = LoadingError(f"batch of step {step}: {type(error).__name__}: {error}")
            found.add_note(traceback.format_exc())
            return found
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])

    def _seed_for(self, step: int) -> None:
        # hashed: with seed + step one trial's batches would be the next one's, a step later
        seed = int(np.random.SeedSequence([self._seed, step]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # a GPU's generators are the network's


def _ahead(batches: _Batches, steps: range, loading: Loading) -> Iterator[_Loaded]:
    loader: DataLoader[_Loaded] = DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=loading.processes,
        pin_memory=loading.pinned,
        timeout=loading.timeout,
        # spawned, each would import nnU-Net first, for every trial
        multiprocessing_context="fork",
        generator=torch.Generator(),  # it would draw from the global one
    )
    yield from loader
