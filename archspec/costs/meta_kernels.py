"""Results of common operators on the meta device, without PyTorch's own kernels for it.

Those are slow, and their first use imports PyTorch's compiler, which takes longer than a cost. A
kernel here gives the same shapes, strides and dtypes, or None to leave a case to PyTorch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_Results = Tensor | tuple[Tensor | None, ...] | None


def meta_result(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what the operator gives for tensors on meta."""
    if func._overloadpacket is _aten.arange:
        steps = _arange(*args, **kwargs)
        return func(*args, **kwargs) if steps is None else steps
    kernel = _KERNELS.get(func._overloadpacket)
    found = None if kernel is None else kernel(*args)
    if found is None:
        return func(*args, **kwargs)
    dtype = kwargs.get("dtype")
    return found if dtype is None or not isinstance(found, Tensor) else found.to(dtype)


class MetaKernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run operators through `meta_result`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Do without the guard against tracing the mode: it imports the compiler."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return meta_result(func, args, kwargs or {})


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device)


def _like(tensor: Tensor) -> Tensor | None:
    """Return a tensor whose axes lie in the same order, without gaps; None if that is unclear."""
    real = [n for n, size in zip(tensor.stride(), tensor.shape, strict=True) if n and size > 1]
    if real == sorted(real, reverse=True):
        return _empty(tensor.shape, tensor)
    strides, step = list(tensor.stride()), 1
    for axis in sorted(range(tensor.ndim), key=lambda axis: (tensor.stride(axis), -axis)):
        if tensor.shape[axis] > 1:
            if tensor.stride(axis) == 0:
                return None
            strides[axis] = step
            step *= tensor.shape[axis]
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)


def _pointwise(*args: Any) -> Tensor | None:
    """Broadcast and promote floating-point operands; the first of full size sets the layout."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    if any(not t.is_floating_point() or t.ndim == 0 for t in tensors):
        return None
    leader = max(tensors, key=Tensor.numel)
    ndim = max(tensor.ndim for tensor in tensors)
    shapes = [(*(1 for _ in range(ndim - t.ndim)), *t.shape) for t in tensors]
    shape = tuple(map(max, zip(*shapes, strict=True)))
    if shape == tuple(leader.shape):
        out = _like(leader)
    else:
        out = _empty(shape, leader) if all(t.is_contiguous() for t in tensors) else None
    return None if out is None else out.to(reduce(torch.promote_types, (t.dtype for t in tensors)))


def _second_leads(grad: Tensor, x: Tensor, *rest: Any) -> Tensor | None:
    """Lay out the result as the second operand."""
    return _pointwise(x, grad, *rest)


def _in_place(target: Tensor, *_: Any) -> Tensor:
    return target


def _format(x: Tensor) -> torch.memory_format:
    """Return the layout that the tensor suggests for results."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    if last is None or x.is_contiguous() or not x.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first, formats = tensors[0], {_format(tensor) for tensor in tensors}
    if any(t.dtype != first.dtype or t.ndim != first.ndim for t in tensors):
        return None
    shape = list(first.shape)
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    out = _empty(shape, first)
    return out.to(memory_format=formats.pop()) if len(formats) == 1 else out


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    if first.ndim > 2 or any(tensor.dtype != first.dtype for tensor in tensors):
        return None
    shape = list(first.shape)
    shape.insert(dim % (first.ndim + 1), len(tensors))
    return _empty(shape, first)


def _float32(*tensors: Tensor | None) -> bool:
    return all(tensor is None or tensor.dtype == torch.float32 for tensor in tensors)


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> _Results:
    if not _float32(x, weight, bias):
        return None
    statistics = (*x.shape[: x.ndim - len(shape)], *(1 for _ in shape))
    return _empty(x.shape, x), _empty(statistics, x), _empty(statistics, x)


def _layer_norm_backward(grad: Tensor, x: Tensor, *rest: Any) -> _Results:
    _, _, _, weight, bias, mask = rest
    if not _float32(grad, x, weight, bias) or _like(grad) is None:
        return None
    return _masked(mask, (grad, weight, bias))


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> _Results:
    if not training or not x.is_contiguous() or not _float32(weight, bias):
        return None
    mean, rstd = (x.new_empty(x.shape[1:2], dtype=torch.float32) for _ in range(2))
    return _empty(x.shape, x), mean, rstd


def _batch_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> _Results:
    _, _, mean, _, training, _, mask = rest
    if not training or not _float32(weight, mean) or _like(grad) is None:
        return None
    return _masked(mask, (grad, mean, mean))


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    positions: int,
    groups: int,
    eps: float,
) -> _Results:
    # what layout follows from one that is not plain differs between PyTorch 2.13 and 2.14: ask it
    if not _float32(x, weight, bias) or not x.is_contiguous():
        return None
    return _like(x), _empty((batch, groups), x), _empty((batch, groups), x)


def _group_norm_backward(grad: Tensor, x: Tensor, *rest: Any) -> _Results:
    _, _, weight, _, _, _, _, mask = rest
    if not _float32(grad, x, weight) or grad.stride() != x.stride() or _like(grad) is None:
        return None
    return _masked(mask, (grad, weight, weight))


def _masked(mask: Sequence[bool], tensors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Return gradients of those that want one."""
    pairs = zip(mask, tensors, strict=True)
    return tuple(_like(t) if wanted and t is not None else None for wanted, t in pairs)


def _upsample(x: Tensor, size: Sequence[int], *_: Any) -> Tensor | None:
    return _empty((*x.shape[:2], *size), x).to(memory_format=_format(x))


def _repeat(x: Tensor, times: Sequence[int]) -> Tensor:
    shape = (*(1 for _ in times[x.ndim :]), *x.shape)
    return _empty([size * count for size, count in zip(shape, times, strict=True)], x)


def _reduced(x: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False) -> Tensor | None:
    if not x.is_contiguous() or not x.is_floating_point():
        return None
    dims = {axis % x.ndim for axis in (range(x.ndim) if dim is None else dim)}
    kept = [(axis, size) for axis, size in enumerate(x.shape) if keepdim or axis not in dims]
    return _empty([1 if axis in dims else size for axis, size in kept], x)


def _product(a: Tensor, b: Tensor) -> Tensor:
    assert a.shape[-1] == b.shape[-2]
    return _empty((*a.shape[:-1], b.shape[-1]), a)


def _sum_and_product(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    assert x.shape[1] == (weight.shape[0] if transposed else weight.shape[1] * groups)
    spread = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    pairs = zip(x.shape[2:], spread, stride, padding, output_padding, strict=True)
    if transposed:
        grid = [(n - 1) * s - 2 * p + wide + more + 1 for n, wide, s, p, more in pairs]
        return _empty((x.shape[0], weight.shape[1] * groups, *grid), x)
    grid = [(n + 2 * p - wide - 1) // s + 1 for n, wide, s, p, _ in pairs]
    return _empty((x.shape[0], weight.shape[0], *grid), x)


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Sequence[int] | None, *rest: Any
) -> _Results:
    to, mask = _format(x), rest[-1]
    if not weight.is_contiguous() or not x.is_contiguous(memory_format=to):
        return None
    return (
        _empty(x.shape, grad).to(memory_format=to) if mask[0] else None,
        _empty(weight.shape, grad).to(memory_format=to) if mask[1] else None,
        _empty(bias_sizes, grad) if mask[2] and bias_sizes is not None else None,
    )


def _arange(
    *ends: float, device: torch.device | None = None, dtype: torch.dtype | None = None, **_: Any
) -> Tensor | None:
    if device is None or device.type != "meta":
        return None
    start, end, step = {1: (0, *ends, 1), 2: (*ends, 1)}.get(len(ends), ends)
    whole = all(isinstance(value, int) for value in ends)
    dtype = dtype or (torch.int64 if whole else torch.get_default_dtype())
    return torch.empty(math.ceil((end - start) / step), dtype=dtype, device=device)


def _log_sigmoid(x: Tensor) -> _Results:
    return (_empty(x.shape, x), _empty(x.shape, x)) if x.is_contiguous() else None


_KERNELS: dict[Any, Callable[..., _Results]] = {
    **dict.fromkeys(
        (
            *(_aten.add, _aten.sub, _aten.rsub, _aten.mul, _aten.div),
            *(_aten.neg, _aten.clamp, _aten.pow),
            *(_aten.exp, _aten.expm1, _aten.log, _aten.sigmoid, _aten.sin, _aten.cos),
            *(_aten.relu, _aten.leaky_relu, _aten.gelu, _aten.silu, _aten.softplus),
            *(_aten.gelu_backward, _aten.silu_backward, _aten.sigmoid_backward),
            _aten.log_sigmoid_backward,
        ),
        _pointwise,
    ),
    **dict.fromkeys((_aten.threshold_backward, _aten.leaky_relu_backward), _second_leads),
    **dict.fromkeys((_aten.add_, _aten.mul_, _aten.copy_, _aten.normal_), _in_place),
    **dict.fromkeys((_aten.upsample_bilinear2d, _aten.upsample_trilinear3d), _upsample),
    _aten.ones_like: _like,
    _aten.cat: _cat,
    _aten.stack: _stack,
    _aten.native_layer_norm: _layer_norm,
    _aten.native_layer_norm_backward: _layer_norm_backward,
    _aten.native_batch_norm: _batch_norm,
    _aten.native_batch_norm_backward: _batch_norm_backward,
    _aten.native_group_norm: _group_norm,
    _aten.native_group_norm_backward: _group_norm_backward,
    _aten.repeat: _repeat,
    **dict.fromkeys((_aten.logsumexp, _aten.mean), _reduced),
    **dict.fromkeys((_aten.mm, _aten.bmm), _product),
    _aten.addmm: _sum_and_product,
    _aten.convolution: _convolution,
    _aten.convolution_backward: _convolution_backward,
    _aten.log_sigmoid_forward: _log_sigmoid,
}
