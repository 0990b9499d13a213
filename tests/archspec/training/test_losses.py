"""Losses are read from a GPU now and then, and a training that diverged says the same."""

import math

import pytest
import torch

from archspec.training.losses import READ_EVERY, DivergedError, Losses

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_cpu_s_losses_are_looked_at_at_once() -> None:
    losses = Losses(CPU, 7)
    losses.add(torch.tensor(0.1))
    with pytest.raises(DivergedError, match="loss is nan at step 8"):
        losses.add(torch.tensor(math.nan))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gpu_s_losses_name_the_first_step_that_diverged(value: float) -> None:
    losses = Losses(GPU, 100)
    for number in range(READ_EVERY + 3):
        losses.add(torch.tensor(float(number)))
    losses.add(torch.tensor(value))
    losses.add(torch.tensor(math.nan))
    with pytest.raises(DivergedError, match=f"loss is {value} at step {103 + READ_EVERY}"):
        losses.read()


def test_a_gpu_is_asked_once_for_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    stack = torch.stack

    def read(losses: list[torch.Tensor]) -> torch.Tensor:
        asked.append(len(losses))
        return stack(losses)

    monkeypatch.setattr(torch, "stack", read)
    losses = Losses(GPU, 0)
    wanted = [1 / (1 + number) for number in range(2 * READ_EVERY + 3)]
    for loss in wanted:
        losses.add(torch.tensor(loss, dtype=torch.float64))
    assert losses.read() == wanted
    assert asked == [READ_EVERY, READ_EVERY, 3]
    assert losses.read() == wanted and len(asked) == 3, "nothing new, nothing asked"
