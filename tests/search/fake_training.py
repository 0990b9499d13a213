"""Data made up here, for trials that really train."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

PATCH = (8, 8, 8)


class FakeData:
    """Random patches; a loss and scores that a test may spoil."""

    def __init__(self, spoil: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
        self.spoil = spoil
        self.num_scores = 0

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield torch.randn(1, 1, *PATCH), torch.randint(2, (1, *PATCH))

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> Any:
        return lambda logits, target: self.spoil(nn.functional.cross_entropy(logits, target))

    def score(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        net.eval()
        self.num_scores += 1
        return {"mean": self.num_scores / 10, "organ": self.num_scores / 10}


def tiny_tree() -> dict[str, Any]:
    """Return a network of one stage for these patches."""
    return {
        "name": "tiny",
        "patch_size": list(PATCH),
        "encoder": {"stages": [{"width": 2, "mixer": {"kind": "conv"}}]},
        "decoder": {"kind": "sum"},
    }
