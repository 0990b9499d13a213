"""Cases without files, importable by name: what `search.run` is given in place of a dataset."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import search


class Squares(search.Cases):
    """A bright square in noise, 8 x 8 pixels, drawn anew for every batch."""

    name = "squares"
    in_channels, num_classes, patch_size, batch_size = 1, 2, (8, 8), 2
    classes = ("square",)

    def __init__(self, tests: int = 0, fingerprint: str = "") -> None:
        self.validation_cases = ["v0", "v1"]
        self.test_cases = [f"t{number}" for number in range(tests)]
        self.fingerprint = fingerprint

    def batches(self, strides: Any, *, deep_supervision: bool) -> Iterator[Any]:
        while True:
            images, labels = drawn(self.batch_size)
            yield images, self.targets(labels, strides, deep_supervision=deep_supervision)

    def loss(self, strides: Any, *, deep_supervision: bool, kind: str) -> Any:
        return cross_entropy

    def score_cases(self, net: Any, device: Any, cases: list[str]) -> Any:
        with torch.inference_mode():
            return {case: self._dice(net, device, case) for case in cases}

    def _dice(self, net: Any, device: Any, case: str) -> dict[str, float]:
        with torch.random.fork_rng():
            torch.manual_seed(sum(case.encode()))
            image, label = drawn(1)
        predicted = net(image.to(device)).argmax(1).cpu()
        return self.dice(predicted.numpy(), label[:, 0].numpy())


def cross_entropy(logits: Any, target: Any) -> torch.Tensor:
    """Return the sum over outputs; the default loss is MONAI's, whose import takes seconds."""
    pairs = (
        [(logits, target)] if isinstance(logits, torch.Tensor) else zip(logits, target, strict=True)
    )
    losses = [nn.functional.cross_entropy(one, labels[:, 0].long()) for one, labels in pairs]
    return torch.stack(losses).sum()


def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels (B, 1, 8, 8)."""
    labels = torch.zeros(count, 1, 8, 8, dtype=torch.int16)
    for label in labels[:, 0]:
        row, column = torch.randint(4, (2,)).tolist()
        label[row : row + 4, column : column + 4] = 1
    return labels + 0.1 * torch.randn(count, 1, 8, 8), labels
