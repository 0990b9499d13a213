"""Convolutions are timed while a GPU trains, and only then."""

import pytest
import torch
from torch.backends import cudnn

from archspec.training.devices import timed_convolutions


@pytest.mark.parametrize("before", [True, False])
def test_cudnn_times_its_algorithms_while_a_gpu_trains(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cudnn, "benchmark", before)
    with timed_convolutions(torch.device("cpu")):
        assert cudnn.benchmark == before
    with pytest.raises(KeyError), timed_convolutions(torch.device("cuda:0")):
        assert cudnn.benchmark
        raise KeyError
    assert cudnn.benchmark == before
