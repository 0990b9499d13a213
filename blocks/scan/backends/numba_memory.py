"""Vectors to and from memory: a kernel's own buffers, and arrays of any strides.

A buffer is one-dimensional and contiguous. Of an array only the last axis has to be contiguous.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from blocks.scan.backends.numba_simd import I32, LANES, Vector, call_llvm, splat_value, suffix


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: list[Any]) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, index, wraparound=False)


@intrinsic
def load(typingctx: Any, buffer: Any, offset: Any) -> Any:
    """Read the vector that starts at `offset` of a one-dimensional contiguous array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = context.get_value_type(sig.return_type)
        pointer = _pointer(context, builder, buffer, args[0], [args[1]])
        return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)

    return Vector(buffer.dtype)(buffer, types.intp), codegen


@intrinsic
def load_one(typingctx: Any, buffer: Any, offset: Any) -> Any:
    """Read one number of a one-dimensional contiguous array into every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, buffer, args[0], [args[1]])
        return splat_value(builder, builder.load(pointer), context.get_value_type(sig.return_type))

    return Vector(buffer.dtype)(buffer, types.intp), codegen


@intrinsic
def store(typingctx: Any, buffer: Any, offset: Any, value: Any) -> Any:
    """Write the vector that starts at `offset` of a one-dimensional contiguous array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, buffer, args[0], [args[1]])
        builder.store(args[2], builder.bitcast(pointer, args[2].type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(buffer, types.intp, value), codegen


def _is_full(builder: Any, count: Any) -> Any:
    """Masked access is slow on many machines, so that only the last channels use it."""
    return builder.icmp_signed(">=", count, count.type(LANES))


def _mask(builder: Any, count: Any) -> Any:
    wide = ir.VectorType(I32, LANES)
    limit = splat_value(builder, builder.trunc(count, I32), wide)
    return builder.icmp_signed("<", ir.Constant(wide, list(range(LANES))), limit)


@intrinsic
def read(typingctx: Any, array: Any, index: Any, count: Any) -> Any:
    """Read `count` values from array[index] on, along its contiguous last axis; the rest is 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = context.get_value_type(sig.return_type)
        places = cgutils.unpack_tuple(builder, args[1])
        pointer = _pointer(context, builder, array, args[0], places)
        pointer = builder.bitcast(pointer, vector.as_pointer())
        result = cgutils.alloca_once(builder, vector)
        with builder.if_else(_is_full(builder, args[2]), likely=True) as (full, part):
            with full:
                builder.store(builder.load(pointer, align=4), result)
            with part:
                name = f"llvm.masked.load.{suffix(vector)}.p0"
                others = [_mask(builder, args[2]), ir.Constant(vector, None)]
                builder.store(call_llvm(builder, name, vector, [pointer, I32(4), *others]), result)
        return builder.load(result)

    indices = types.UniTuple(types.intp, len(index))
    return Vector(array.dtype)(array, indices, types.intp), codegen


@intrinsic
def write(typingctx: Any, array: Any, index: Any, count: Any, value: Any) -> Any:
    """Write the first `count` lanes from array[index] on, along its contiguous last axis."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = cgutils.unpack_tuple(builder, args[1])
        pointer = _pointer(context, builder, array, args[0], places)
        pointer = builder.bitcast(pointer, args[3].type.as_pointer())
        with builder.if_else(_is_full(builder, args[2]), likely=True) as (full, part):
            with full:
                builder.store(args[3], pointer, align=4)
            with part:
                name = f"llvm.masked.store.{suffix(args[3].type)}.p0"
                others = [args[3], pointer, I32(4), _mask(builder, args[2])]
                call_llvm(builder, name, ir.VoidType(), others)
        return context.get_dummy_value()

    indices = types.UniTuple(types.intp, len(index))
    return types.void(array, indices, types.intp, value), codegen


GROUP = 8
"""Vectors that `write_sums` adds up at once."""

_EVEN, _ODD = [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]
_LOW, _HIGH = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]


def _add_shuffled(builder: Any, a: Any, b: Any, one: list[int], other: list[int]) -> Any:
    """Add two rearrangements of the lanes of `a` and `b`."""
    parts = [
        builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(mask)), mask))
        for mask in (one, other)
    ]
    return builder.fadd(*parts)


@intrinsic
def write_sums(typingctx: Any, array: Any, index: Any, buffer: Any) -> Any:
    """Write the sums over lanes of the first `GROUP` vectors of a buffer to array[index] and on.

    Eight at a time, so that a sum costs four instructions and not its seven additions.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _pointer(context, builder, array, args[0], cgutils.unpack_tuple(builder, args[1]))
        vector = context.get_value_type(Vector(buffer.dtype))
        vectors = []
        for step in range(GROUP):
            place = context.get_constant(types.intp, step * LANES)
            pointer = _pointer(context, builder, buffer, args[2], [place])
            whole = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)
            for width in (LANES >> i for i in range(1, LANES.bit_length() - 3)):
                halves = list(range(width)), list(range(width, 2 * width))
                whole = _add_shuffled(builder, whole, whole, *halves)
            vectors.append(whole)
        while len(vectors) > 2:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [_add_shuffled(builder, a, b, _EVEN, _ODD) for a, b in pairs]
        sums = _add_shuffled(builder, vectors[0], vectors[1], _LOW, _HIGH)
        builder.store(sums, builder.bitcast(target, sums.type.as_pointer()), align=4)
        return context.get_dummy_value()

    indices = types.UniTuple(types.intp, len(index))
    return types.void(array, indices, buffer), codegen
