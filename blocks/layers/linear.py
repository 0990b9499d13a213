"""The linear map of each position's channels."""

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelLinear(nn.Linear):
    """Map the channels of each position alone: (B, in, *grid) -> (B, out, *grid).

    The same function as a 1x1 convolution; the weight is (out, in), as transformers publish it.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)
