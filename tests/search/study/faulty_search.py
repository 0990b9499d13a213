"""A search in a real worker whose first trials fail, each in its own way.

Worker processes import this file as their main module. Before every trial a worker writes the
trial's number, its own process and how many networks are alive to a log that the test owns.
"""

import gc
import itertools
import math
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import search.trials.train
import search.trials.worker
from archspec.network.segnet import SegNet
from archspec.nnunet.dataset import PreprocessedDataset
from search.space.space import load_space
from search.study.run import run
from search.study.task import SearchTask

LOSSES = {1: math.nan, 2: math.inf, 3: -math.inf}
SCORES = {4: math.nan}


class FaultyData:
    """Random patches; loss or score are spoilt for the worker's trial 0, 1, ..."""

    def __init__(self, number: int) -> None:
        self.number = number

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.randn(1, 1, 16, 16, 16), torch.randint(2, (1, 16, 16, 16))

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> Any:
        def loss_of(logits: Tensor, target: Tensor) -> Tensor:
            if self.number == 0:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            loss = nn.functional.cross_entropy(logits, target)
            return loss * LOSSES.get(self.number, 1.0)

        return loss_of

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        dice = SCORES.get(self.number, 0.5)
        return {"mean": dice, "organ": dice}


_train = search.trials.train.train
_count = itertools.count()


def logged_train(task: Any, planned: Any, data: Any, *rest: Any) -> Any:
    alive = sum(isinstance(thing, SegNet) for thing in gc.get_objects())
    with Path(os.environ["TRIAL_LOG"]).open("a", encoding="utf-8") as log:
        log.write(f"{task.number} {os.getpid()} {alive}\n")
    return _train(task, planned, FaultyData(next(_count)), *rest)  # type: ignore[arg-type]


search.trials.train.train = logged_train
search.trials.worker._data = lambda settings: None  # type: ignore[assignment]

if __name__ == "__main__":
    space, folder, trials = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    data = folder.parent / "preprocessed" / "data"
    data.mkdir(parents=True)
    for case in range(5):
        np.savez(data / f"case_{case}.npz", data=0, seg=0)
        (data / f"case_{case}.pkl").write_bytes(pickle.dumps({}))
    settings = {"patch_size": [16, 16, 16], "spacing": [1, 1, 1], "data_identifier": "data"}
    description = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}}
    dataset = PreprocessedDataset(
        data.parent, "Dataset901_X", "3d_fullres", {}, description, settings
    )
    run(SearchTask(load_space(space), dataset, folder, trials))
