"""The mean of the last weights, held to its formula, and kept beside a training."""

import pytest
import torch
from torch import nn

from archspec.spec.training import TrainingSpec
from archspec.training.average import DECAY, averaged
from archspec.training.step import Stepper

RECIPE = TrainingSpec(optimizer="sgd", lr=0.1, warmup=0, schedule="constant")
CPU = torch.device("cpu")


def test_the_mean_is_the_formula_s() -> None:
    """The first step replaces the start; from step 891 on the decay is the one that is named."""
    net = nn.Linear(1, 1, bias=False).double()
    mean = averaged(net)
    expected, draws = 0.0, torch.Generator().manual_seed(0)
    for step in range(1000):
        value = float(torch.rand((), generator=draws))
        with torch.no_grad():
            net.weight.fill_(value)
        mean.update_parameters(net)
        decay = 0.0 if step == 0 else min(0.99, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        if step in (0, 1, 50, 999):
            assert float(mean.module.weight) == pytest.approx(expected, rel=1e-12)
    assert (1 + 890) / (10 + 890) == DECAY == 0.99


def test_buffers_are_those_of_the_last_step_and_nothing_is_shared() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    mean = averaged(net)
    for _ in range(3):
        net(torch.rand(2, 1, 4, 4, 4))
        mean.update_parameters(net)
    assert torch.equal(mean.module[1].running_mean, net[1].running_mean)
    assert mean.module[1].num_batches_tracked == 3
    with torch.no_grad():
        net[0].weight.zero_()
    assert mean.module[0].weight.any()
    assert not any(one.requires_grad for one in mean.module.parameters())


def stepper(*, average: bool) -> tuple[nn.Linear, Stepper]:
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    return net, Stepper(net, RECIPE, device=CPU, dtype=None, average=average)


def test_a_training_is_the_same_with_and_without_it() -> None:
    (net, one), (other, plain) = stepper(average=True), stepper(average=False)
    batch = torch.linspace(-1, 1, 12).reshape(3, 4), torch.tensor([0, 1, 1])
    for step in range(5):
        one.step(nn.CrossEntropyLoss(), batch, step, 5)
        plain.step(nn.CrossEntropyLoss(), batch, step, 5)
    assert torch.equal(net.weight, other.weight)
    assert plain.scored is other
    assert isinstance(one.scored, nn.Linear) and not torch.equal(one.scored.weight, net.weight)
    _, again = stepper(average=True)
    again.load_state_dict(one.state_dict())
    assert torch.equal(again.scored.weight, one.scored.weight)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="averaged"):
        again.load_state_dict(plain.state_dict())
