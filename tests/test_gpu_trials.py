"""Trials on a CUDA device: batches loaded ahead, AMP, and memory that runs out and comes back."""

from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import search.trials.worker
from archspec.nnunet.dataset import PreprocessedDataset
from archspec.training.step import autocast_dtype
from search.trials.train import CHECKPOINT, TrialTask
from search.trials.worker import Message, WorkerSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

PATCH = (32, 32, 32)
TREE = {
    "name": "tiny",
    "patch_size": list(PATCH),
    "encoder": {"stages": [{"width": 8, "mixer": {"kind": "mamba"}}]},
    "decoder": {"kind": "sum"},
}


class RandomData:
    """Random patches; the loss may ask for more memory than there is."""

    validation_cases: tuple[str, ...] = ()
    test_cases: tuple[str, ...] = ()

    def __init__(self, gigabytes: int = 0) -> None:
        self.gigabytes = gigabytes

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.randn(2, 1, *PATCH), torch.randint(2, (2, *PATCH))

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> Any:
        def loss_of(logits: Tensor, target: Tensor) -> Tensor:
            if self.gigabytes:
                torch.empty(self.gigabytes * 10**9, dtype=torch.uint8, device=logits.device)
            return nn.functional.cross_entropy(logits.float(), target)

        return loss_of

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        assert next(net.parameters()).device == device, (
            "the mean of the weights stays where they are"
        )
        return {"mean": 0.5, "organ": 0.5}


def trained(folder: Path, data: RandomData, monkeypatch: pytest.MonkeyPatch) -> Message:
    description = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}}
    settings = {"patch_size": list(PATCH), "spacing": [1, 1, 1], "data_identifier": "data"}
    dataset = PreprocessedDataset(folder, "Dataset901_X", "3d_fullres", {}, description, settings)
    monkeypatch.setattr(search.trials.worker, "_data", lambda settings: data)
    ours, theirs = Pipe()
    for _ in range(2):
        ours.send("go on")
    folder.mkdir(exist_ok=True)
    task = TrialTask(0, TREE, folder, 5, (3, 6), average=True)
    said = search.trials.worker._train(
        task, WorkerSettings(dataset, 0, 2, 1, loaders=2), "cuda:0", theirs
    )
    assert said is not None
    assert search.trials.worker._free_memory("cuda:0")
    return said


def test_a_trial_trains_on_batches_loaded_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = trained(tmp_path, RandomData(), monkeypatch)
    assert said.event == "done", said.reason
    assert said.rung is not None and said.rung.busy is not None and 0 < said.rung.busy < 1
    assert (tmp_path / CHECKPOINT).is_file()
    assert autocast_dtype(torch.device("cuda:0")) in (torch.bfloat16, torch.float16)


def test_memory_that_runs_out_fails_the_trial_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "before", RandomData(), monkeypatch)  # libraries keep workspaces
    held = torch.cuda.memory_allocated()
    said = trained(tmp_path / "big", RandomData(10_000), monkeypatch)
    assert (said.event, said.reason) == ("failed", "out of memory on cuda:0")
    assert torch.cuda.memory_allocated() <= held
    assert trained(tmp_path / "after", RandomData(), monkeypatch).event == "done"
