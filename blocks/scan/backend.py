"""What a backend of the scan operators provides; a backend is a module with these functions.

Legend: B batch, K directions, L tokens, D channels, N states per channel, W taps. Tensors are in
token order, of any strides and any mixture of floating dtypes, on one device.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

ScanGradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class Backend(Protocol):
    """Shapes are those of `blocks.scan.op` and `blocks.scan.causal_conv`.

    Gradients may come in a wider dtype than their tensor's; the operators cast.
    """

    def selective_scan(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        delta_bias: Tensor,
        z: Tensor | None,
        orders: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Return out (B, L, D) in u's dtype, and boundary states (B, K, max(2, L/64), D, N).

        Boundary s is the state before position 64 s of its direction's order, in float32, or in
        float64 where an input has it; rows that no position needs are zero.
        """
        ...

    def selective_scan_backward(
        self,
        grad: Tensor,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        delta_bias: Tensor,
        z: Tensor | None,
        boundaries: Tensor,
        orders: Sequence[int],
    ) -> ScanGradients:
        """Return the gradients of u, delta, A, B, C, D, delta_bias and z (empty without z)."""
        ...

    def causal_conv1d(
        self, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]
    ) -> Tensor:
        """Return SiLU of the convolution, (B, K, L, D) in x's dtype."""
        ...

    def causal_conv1d_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of x (B, L, D), weight (K, D, W) and bias (K, D)."""
        ...
