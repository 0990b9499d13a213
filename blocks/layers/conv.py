"""Convolutions in two or three spatial dimensions, padded so that grids divide exactly."""

from collections.abc import Callable

from torch import Tensor, nn

from blocks.base import Grid, SpecError, per_axis

_CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_MEAN_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def odd_kernel(kernel_size: int | Grid, ndim: int) -> Grid:
    """Return the kernel's size per axis.

    Raises:
        SpecError: an even one, which would shift the grid, or another number of axes.
    """
    axes = per_axis(kernel_size, ndim, where="kernel_size")
    if any(k % 2 == 0 for k in axes):
        raise SpecError(f"{list(axes)} must be odd to keep the grid", field="kernel_size")
    return axes


def conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: Grid,
    stride: Grid | None = None,
    groups: int = 1,
    bias: bool = True,
    dilation: Grid | None = None,
) -> nn.Module:
    """Return a convolution that maps a grid n to n / stride on every axis.

    The padding (k - 1) // 2, times the dilation, does so for odd kernels, and for even ones where
    the stride is > 1.
    """
    ndim = len(kernel_size)
    dilation = dilation or (1,) * ndim
    padding = tuple((k - 1) // 2 * d for k, d in zip(kernel_size, dilation, strict=True))
    return _CONV[ndim](
        in_channels,
        out_channels,
        kernel_size,
        stride=stride or (1,) * ndim,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


def pointwise(in_channels: int, out_channels: int, ndim: int, *, bias: bool = True) -> nn.Module:
    """Return a 1x1 convolution."""
    return conv(in_channels, out_channels, kernel_size=(1,) * ndim, bias=bias)


class ThinnedConv(nn.Module):
    """Apply a 1x1 convolution to the first position of every step: a grid n becomes n / stride.

    What a 1x1 convolution with that stride computes, whose backward pass writes beyond its memory
    in torch 2.13 on CPUs with AVX-512 where channels of an image come last.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: Grid) -> None:
        super().__init__()
        self.conv = pointwise(in_channels, out_channels, len(stride))
        self.steps = (slice(None), slice(None), *(slice(None, None, step) for step in stride))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x[self.steps])
        return out


def patch_conv(in_channels: int, out_channels: int, *, stride: Grid) -> nn.Module:
    """Return the convolution with kernel = stride and no padding: a grid n becomes n / stride."""
    return _CONV[len(stride)](in_channels, out_channels, stride, stride=stride)


def doubling_conv(in_channels: int, out_channels: int, *, kernel_size: Grid) -> nn.Module:
    """Return the transposed convolution with stride 2 and odd kernel: a grid n becomes 2n."""
    ndim = len(kernel_size)
    return _TRANSPOSED[ndim](
        in_channels,
        out_channels,
        kernel_size,
        stride=(2,) * ndim,
        padding=tuple((k - 1) // 2 for k in kernel_size),
        output_padding=(1,) * ndim,
    )


def spreading_conv(
    in_channels: int, out_channels: int, *, kernel_size: Grid, stride: Grid, groups: int = 1
) -> nn.Module:
    """Return the transposed convolution with odd kernel: a grid n becomes (n - 1) * stride + 1."""
    return _TRANSPOSED[len(stride)](
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=tuple((k - 1) // 2 for k in kernel_size),
        groups=groups,
    )


def mean_pool(stride: Grid) -> nn.Module:
    """Return the mean over windows of the stride: a grid n becomes n / stride."""
    return _MEAN_POOL[len(stride)](stride, stride)


def transposed_conv(
    in_channels: int, out_channels: int, *, stride: Grid, bias: bool = True
) -> nn.Module:
    """Return the transposed convolution with kernel = stride: a grid n becomes n * stride."""
    return _TRANSPOSED[len(stride)](in_channels, out_channels, stride, stride=stride, bias=bias)
