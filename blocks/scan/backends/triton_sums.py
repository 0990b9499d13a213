# mypy: ignore-errors
# Kernels are written in Triton's language, which has no types.
"""Triton kernels that add what programs have left apart, in one order, and write it in its dtype.

Several results come from one launch: on small grids a launch costs more than what it adds.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["k", "directions", "d_blocks"])
def sum_parts(part_B, part_C, dB, dC, k, size, directions, d_blocks, BLOCK: tl.constexpr):
    """Add the partial dB and dC of directions k and on over the blocks of channels."""
    b = tl.program_id(1).to(tl.int64)
    next_k = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    sum_B, sum_C = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for block in range(0, d_blocks):
        at = ((next_k * d_blocks + block) * tl.num_programs(1) + b) * size + i
        sum_B += tl.load(part_B + at, mask=mask, other=0.0)
        sum_C += tl.load(part_C + at, mask=mask, other=0.0)
    at = (b * directions + k + next_k) * size + i
    tl.store(dB + at, sum_B, mask=mask)
    tl.store(dC + at, sum_C, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def sum_rows(
    parts, one, two, three, rows, size_1, size_2, size_3, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Add the rows of each direction, and cut the sum into three results of (K, size) each."""
    k = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    size = size_1 + size_2 + size_3
    row = tl.arange(0, ROWS)
    found = tl.zeros([ROWS, BLOCK], tl.float32)
    parts += k * rows * size
    for start in range(0, rows, ROWS):
        at = (start + row).to(tl.int64)[:, None] * size + i[None, :]
        found += tl.load(
            parts + at, mask=(start + row < rows)[:, None] & (i < size)[None, :], other=0.0
        )
    total = tl.sum(found, 0)
    tl.store(one + k * size_1 + i, total, mask=i < size_1)
    i -= size_1
    tl.store(two + k * size_2 + i, total, mask=(i >= 0) & (i < size_2))
    i -= size_2
    tl.store(three + k * size_3 + i, total, mask=(i >= 0) & (i < size_3))
