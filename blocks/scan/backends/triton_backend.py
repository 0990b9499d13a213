"""The scan operators on CUDA by Triton: no permuted copies, no atomics, the same bits every run.

Directions are added one launch after the other into one buffer, so that memory does not grow with
their number. The tile sizes keep one warp per 32 channels and 16 states.

Legend: B batch, K directions, L tokens, D channels, N states per channel, W taps.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import triton
from torch import Tensor

from blocks.scan.backends import triton_backward, triton_conv, triton_forward, triton_sums
from blocks.scan.backends.triton_checks import check_conv, check_gradient, check_scan
from blocks.scan.backends.triton_rows import order_table, which_swap

SEGMENT = 64
"""Positions between two saved states."""
SLOTS = 1056
"""Programs of the backward pass that an H200 holds at once: 8 on each of its 132 processors.

The forward pass holds twice as many. Chunks are cut so that these are whole rounds; other GPUs get
the same, since the bits of a gradient depend on it.
"""
BLOCK_D = 32
ENDS_STEPS = 8
SCAN_STEPS = 4
MORE_WARPS_STEPS = 2
"""Of the backward pass where several warps share a tile, and 4 would spill."""
SCAN_REGISTERS = 128
MORE_WARPS_REGISTERS = 160
CONV_ROWS = 32
SUM_BLOCK = 1024
MOST_PARTIAL_BYTES = 2**26
"""Below this, what the directions leave is added in one launch; above, in one each."""
CONV_CHUNK = 2048
"""Most positions that a program sums the gradients of taps over."""
FUSED = {"enable_fp_fusion": True}
"""Options of every launch; Triton 3.10 fuses no multiplications and additions unless told."""


def selective_scan(
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
    """Return out (B, L, D) and the float32 states before every 64th position of each direction.

    Shapes: u, delta (B, K, L, D); A (K, D, N); B, C (B, K, L, N); D, delta_bias (K, D); z
    (B, L, D) or None; the states are (B, K, max(2, ceil(L / 64)), D, N).

    Raises:
        ValueError: a device, dtype, shape or order does not fit.
    """
    check_scan(u, delta, A, B, C, D, delta_bias, z, orders)
    batch, directions, length, channels = u.shape
    states = A.shape[-1]
    A, D, delta_bias = A.contiguous(), D.contiguous(), delta_bias.contiguous()
    B, C = _aligned(B, C)
    table = order_table(orders, length, u.device, u, delta, B, C, z)
    swaps = which_swap(orders)
    chunk, chunks, d_blocks = _chunks(batch, length, channels)
    block_n, warps = _block_n(states)
    segments = triton.cdiv(length, SEGMENT)
    boundaries = _float32(u, batch, directions, max(2, segments), channels, states)
    if segments < boundaries.shape[2]:
        boundaries[:, :, segments:] = 0
    out = u.new_empty(batch, length, channels)
    total = _total(out, directions)
    ends = sums = boundaries
    with _device(u):
        if chunks > 1:
            ends = _float32(u, batch, directions, chunks - 1, channels, states)
            sums = _float32(u, batch, directions, chunks - 1, channels)
            triton_forward.chunk_ends[(d_blocks, chunks - 1, batch * directions)](
                *(u, delta, A, B, delta_bias, table, ends, sums),
                *(length, channels, states, directions, chunks, chunk),
                *(*u.stride(), *delta.stride(), *B.stride()),
                BLOCK_N=block_n,
                BLOCK_D=BLOCK_D,
                STEPS=ENDS_STEPS,
                SWAPS=any(swaps),
                num_warps=warps,
                **FUSED,
            )
            _combine(ends, sums, A, reverse=False)
        for k in range(directions):
            triton_forward.scan[(d_blocks, chunks, batch)](
                *(u, delta, A, B, C, D, delta_bias, u if z is None else z, table),
                *(ends, boundaries, total, out, k),
                *(length, channels, states, directions, chunks, chunk, boundaries.shape[2]),
                *(*u.stride(), *delta.stride(), *B.stride(), *C.stride(), *_strides(z)),
                LAST=k == directions - 1,
                HAS_Z=z is not None,
                SEGMENT=SEGMENT,
                BLOCK_N=block_n,
                BLOCK_D=BLOCK_D,
                STEPS=SCAN_STEPS,
                SWAPS=swaps[k],
                maxnreg=SCAN_REGISTERS if warps == 1 else MORE_WARPS_REGISTERS,
                num_warps=warps,
                **FUSED,
            )
    return out, boundaries


def selective_scan_backward(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, delta, A, B, C, D, delta_bias and z (empty without z).

    Those of A, D and delta_bias are float32, the others have their tensor's dtype.

    Raises:
        ValueError: a device, dtype, shape or order does not fit.
    """
    check_scan(u, delta, A, B, C, D, delta_bias, z, orders)
    batch, directions, length, channels = u.shape
    states = A.shape[-1]
    check_gradient(grad, (batch, length, channels), u)
    A, D, delta_bias = A.contiguous(), D.contiguous(), delta_bias.contiguous()
    boundaries = boundaries.contiguous()
    B, C = _aligned(B, C)
    table = order_table(orders, length, u.device, grad, u, delta, B, C, z)
    swaps = which_swap(orders)
    chunk, chunks, d_blocks = _chunks(batch, length, channels)
    block_n, warps = _block_n(states)
    du, ddelta, dB, dC = (t.new_empty(t.shape) for t in (u, delta, B, C))
    dz = grad.new_empty(0) if z is None else z.new_empty(z.shape)
    total = dz if z is None else _total(dz, directions)
    at_once = _directions_at_once(directions, 8 * d_blocks * batch * length * states)
    part_B, part_C = (_float32(u, at_once, d_blocks * batch * length, states) for _ in range(2))
    small = _float32(u, directions, batch * chunks, channels * (states + 2))
    steps = SCAN_STEPS if warps == 1 else MORE_WARPS_STEPS
    parallel = min(chunks, max(1, SLOTS // (batch * d_blocks)))
    scratch = _float32(u, batch * d_blocks * parallel, SEGMENT // steps, block_n, BLOCK_D)
    ends = sums = boundaries
    gate = u if z is None else z
    with _device(u):
        if chunks > 1:
            ends = _float32(u, batch, directions, chunks - 1, channels, states)
            sums = _float32(u, batch, directions, chunks - 1, channels)
            triton_backward.adjoint_ends[(d_blocks, chunks - 1, batch * directions)](
                *(grad, delta, A, C, delta_bias, gate, table, ends, sums),
                *(length, channels, states, directions, chunks, chunk),
                *(*grad.stride(), *delta.stride(), *C.stride(), *_strides(z)),
                HAS_Z=z is not None,
                BLOCK_N=block_n,
                BLOCK_D=BLOCK_D,
                STEPS=ENDS_STEPS,
                SWAPS=any(swaps),
                num_warps=warps,
                **FUSED,
            )
            _combine(ends, sums, A, reverse=True)
        for k in range(directions):
            triton_backward.scan_backward[(d_blocks, parallel, batch)](
                *(grad, u, delta, A, B, C, D, delta_bias, gate, table, ends, boundaries),
                *(
                    scratch,
                    du,
                    ddelta,
                    total,
                    dz,
                    small,
                    part_B[k % at_once],
                    part_C[k % at_once],
                    k,
                ),
                *(length, channels, states, directions, chunks, chunk, boundaries.shape[2]),
                *(*grad.stride(), *u.stride(), *delta.stride(), *B.stride(), *C.stride()),
                *_strides(z),
                HAS_Z=z is not None,
                SEGMENT=SEGMENT,
                BLOCK_N=block_n,
                BLOCK_D=BLOCK_D,
                STEPS=steps,
                SWAPS=swaps[k],
                num_warps=warps,
                **FUSED,
            )
            if k % at_once == at_once - 1:
                size = length * states
                triton_sums.sum_parts[(triton.cdiv(size, SUM_BLOCK), batch, at_once)](
                    *(part_B, part_C, dB, dC, k - at_once + 1, size, directions, d_blocks),
                    BLOCK=SUM_BLOCK,
                    **FUSED,
                )
        dA, dD, dbias = (_float32(u, *t.shape) for t in (A, D, delta_bias))
        _sum_rows(small, dA, dD, dbias)
    return du, ddelta, dA, dB, dC, dD, dbias, dz


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]) -> Tensor:
    """Return silu(conv) per direction, in token order: (B, L, D) -> (B, K, L, D).

    Tap w of weight (K, D, W) reads the position W - 1 - w before; positions before the first count
    as zero. bias is (K, D).

    Raises:
        ValueError: a device, dtype, shape or order does not fit.
    """
    check_conv(x, weight, bias, orders)
    batch, length, channels = x.shape
    directions = len(orders)
    out = x.new_empty(batch, directions, length, channels)
    grid = (triton.cdiv(length, CONV_ROWS) * triton.cdiv(channels, BLOCK_D), batch * directions)
    with _device(x):
        triton_conv.conv[grid](
            *(x, weight.contiguous(), bias.contiguous()),
            order_table(orders, length, x.device, x),
            *(out, length, channels, directions, *x.stride()),
            WIDTH=weight.shape[-1],
            BLOCK_L=CONV_ROWS,
            BLOCK_D=BLOCK_D,
            SWAPS=any(which_swap(orders)),
            **FUSED,
        )
    return out


def causal_conv1d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, and of weight and bias in float32.

    Raises:
        ValueError: a device, dtype, shape or order does not fit.
    """
    check_conv(x, weight, bias, orders)
    batch, length, channels = x.shape
    directions, width = len(orders), weight.shape[-1]
    check_gradient(grad, (batch, directions, length, channels), x)
    weight, bias = weight.contiguous(), bias.contiguous()
    table = order_table(orders, length, x.device, grad, x)
    swaps = which_swap(orders)
    d_blocks = triton.cdiv(channels, BLOCK_D)
    chunk = _conv_chunk(length, batch * directions * d_blocks)
    chunks = triton.cdiv(length, chunk)
    dx = x.new_empty(x.shape)
    # float16 has no room for a slope above its gradient
    exact = x.dtype == torch.bfloat16 == grad.dtype
    slope = x.new_empty(grad.shape, dtype=torch.bfloat16 if exact else torch.float32)
    sums = _float32(x, directions, batch * chunks, channels * (width + 1))
    with _device(x):
        triton_conv.conv_backward_weight[(chunks * d_blocks, batch * directions)](
            *(grad, x, weight, bias, table, slope, sums, length, channels, directions),
            *(chunk, *grad.stride(), *x.stride()),
            WIDTH=width,
            BLOCK_L=CONV_ROWS if width <= 8 else CONV_ROWS // 4,  # a tile of sums per tap
            BLOCK_D=BLOCK_D,
            SWAPS=any(swaps),
            **FUSED,
        )
        triton_conv.conv_backward_input[(triton.cdiv(length, CONV_ROWS) * d_blocks, batch)](
            *(slope, weight, table, dx, length, channels, directions),
            WIDTH=width,
            BLOCK_L=CONV_ROWS,
            BLOCK_D=BLOCK_D,
            SWAPS=any(swaps),
            **FUSED,
        )
        dweight, dbias = (_float32(x, *t.shape) for t in (weight, bias))
        _sum_rows(sums, dweight, dbias, None)
    return dx, dweight, dbias


def _combine(ends: Tensor, sums: Tensor, A: Tensor, *, reverse: bool) -> None:
    batch, directions, count, channels, states = ends.shape
    block = 64
    triton_forward.combine[(triton.cdiv(channels * states, block), batch * directions)](
        *(ends, sums, A, channels, states, directions, count),
        REVERSE=reverse,
        BLOCK=block,
        ROWS=16,
        num_warps=2,
        **FUSED,
    )


def _directions_at_once(directions: int, size: int) -> int:
    """Return of how many directions the partial dB and dC, `size` bytes of each, are kept."""
    return directions if directions * size <= MOST_PARTIAL_BYTES else 1


def _sum_rows(parts: Tensor, one: Tensor, two: Tensor, three: Tensor | None) -> None:
    """Add the rows of (K, rows, elements) into tensors of K parts of them, side by side."""
    directions, rows, size = parts.shape
    triton_sums.sum_rows[(triton.cdiv(size, 32), directions)](
        *(parts, one, two, two if three is None else three, rows),
        *(0 if t is None else t[0].numel() for t in (one, two, three)),
        ROWS=32,
        BLOCK=32,
        **FUSED,
    )


def _chunks(batch: int, length: int, channels: int) -> tuple[int, int, int]:
    """Return the positions of a chunk, the chunks, and the blocks of channels."""
    d_blocks = triton.cdiv(channels, BLOCK_D)
    segments = triton.cdiv(length, SEGMENT)
    chunk = SEGMENT * triton.cdiv(segments, max(1, 2 * SLOTS // (batch * d_blocks)))
    return chunk, triton.cdiv(length, chunk), d_blocks


def _conv_chunk(length: int, programs: int) -> int:
    """Return the positions that a program sums over: fewer where there would be few programs."""
    chunk = CONV_CHUNK
    while chunk > CONV_ROWS and programs * triton.cdiv(length, chunk) < SLOTS:
        chunk //= 2
    return chunk


def _block_n(states: int) -> tuple[int, int]:
    """Return the tile's number of states, and the warps that hold at most 16 of them each."""
    block_n = triton.next_power_of_2(states)
    return block_n, max(1, block_n // 16)


def _aligned(B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Return B and C so that vector loads fit their rows.

    A layer's rows of steps, B and C are 35 to 56 wide: read in place, in every kernel, each state
    would be a load of its own.
    """
    states = B.shape[-1]
    if B.dtype != C.dtype or states % 16 or all(_vectors_fit(t) for t in (B, C)):
        return B, C
    B, C = torch.stack((B, C))
    return B, C


def _vectors_fit(t: Tensor) -> bool:
    return (
        t.data_ptr() % 16 == 0 and t.stride(-1) == 1 and all(s % 16 == 0 for s in t.stride()[:-1])
    )


def _device(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's GPU, not on the current one."""
    return torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]


def _strides(z: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if z is None else z.stride()


def _total(result: Tensor, directions: int) -> Tensor:
    """Return where y is added over directions: float32, since large ones may cancel."""
    exact = directions == 1 or result.dtype == torch.float32
    return result if exact else _float32(result, *result.shape)


def _float32(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)
