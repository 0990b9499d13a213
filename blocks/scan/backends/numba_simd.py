"""SIMD vectors inside numba functions: one `Vector` holds a value for each of `LANES` channels.

LLVM's own vectoriser gives up on loops whose state lives from one token to the next, so the kernels
say what a vector is. LLVM maps it to the registers of the machine: SSE, AVX, AVX-512 or NEON.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 16

_I32 = ir.IntType(32)
_MASK = ir.VectorType(ir.IntType(1), LANES)


class Vector(types.Type):
    """The numba type of `LANES` values of one float type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(
            manager, vector, ir.VectorType(manager[vector.dtype].get_value_type(), LANES)
        )


def _operator(function: Callable[..., Any], instruction: str) -> None:
    @type_callable(function)
    def typer(context: Any) -> Any:
        return lambda a, b: a if isinstance(a, Vector) and a == b else None

    @lower_builtin(function, Vector, Vector)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _I32(0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(one, one, zeros)


def _call(builder: Any, name: str, result: Any, args: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [a.type for a in args]), name
    )
    return builder.call(function, args)


def _suffix(vector: Any) -> str:
    return f"v{LANES}f{64 if isinstance(vector.element, ir.DoubleType) else 32}"


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """Repeat a float in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], context.get_value_type(sig.return_type))

    return Vector(value)(value), codegen


@intrinsic
def const(typingctx: Any, like: Any, value: Any) -> Any:
    """Repeat a number in every lane, in the type of the vector `like`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = context.cast(builder, args[1], value, like.dtype)
        return _splat(builder, number, args[0].type)

    return like(like, value), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once where the machine can."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = args[0].type
        return _call(builder, f"llvm.fmuladd.{_suffix(vector)}", vector, args)

    return a(a, b, c), codegen


@intrinsic
def exp2_exact(typingctx: Any, a: Any) -> Any:
    """Return 2**a from the C library, lane by lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, f"llvm.exp2.{_suffix(args[0].type)}", args[0].type, args)

    return a(a), codegen


@intrinsic
def log_exact(typingctx: Any, a: Any) -> Any:
    """Return log(a) from the C library, lane by lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, f"llvm.log.{_suffix(args[0].type)}", args[0].type, args)

    return a(a), codegen


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the larger of both; where `a` is NaN, NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return a(a, b), codegen


@intrinsic
def minimum(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the smaller of both; where `a` is NaN, NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), args[1], args[0])

    return a(a, b), codegen


@intrinsic
def where_negative(typingctx: Any, test: Any, a: Any, b: Any) -> Any:
    """Return `a` in the lanes where `test` is below zero, else `b`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), args[1], args[2])

    return a(test, a, b), codegen


@intrinsic
def add_exponent(typingctx: Any, a: Any, b: Any) -> Any:
    """Add the low 9 bits of float32 `b` to the exponent of `a`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = ir.VectorType(_I32, LANES)
        shifted = builder.shl(builder.bitcast(args[1], whole), ir.Constant(whole, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(args[0], whole), shifted), args[0].type)

    return a(a, b), codegen


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
        return _splat(builder, builder.load(pointer), context.get_value_type(sig.return_type))

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
    wide = ir.VectorType(_I32, LANES)
    limit = _splat(builder, builder.trunc(count, _I32), wide)
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
                name = f"llvm.masked.load.{_suffix(vector)}.p0"
                others = [_mask(builder, args[2]), ir.Constant(vector, None)]
                builder.store(_call(builder, name, vector, [pointer, _I32(4), *others]), result)
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
                name = f"llvm.masked.store.{_suffix(args[3].type)}.p0"
                others = [args[3], pointer, _I32(4), _mask(builder, args[2])]
                _call(builder, name, ir.VoidType(), others)
        return context.get_dummy_value()

    indices = types.UniTuple(types.intp, len(index))
    return types.void(array, indices, types.intp, value), codegen


_EVEN, _ODD = [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]
_LOW, _HIGH = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]


def _add_shuffled(builder: Any, a: Any, b: Any, one: list[int], other: list[int]) -> Any:
    """Add two rearrangements of the lanes of `a` and `b`."""
    parts = [
        builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(mask)), mask))
        for mask in (one, other)
    ]
    return builder.fadd(*parts)


@intrinsic
def write_sums(typingctx: Any, array: Any, index: Any, buffer: Any, offset: Any) -> Any:
    """Write the sums over lanes of the 8 vectors from buffer[offset] on: 8 values at array[index].

    Eight at a time, so that a sum costs four instructions and not its seven additions.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _pointer(context, builder, array, args[0], cgutils.unpack_tuple(builder, args[1]))
        vector = context.get_value_type(Vector(buffer.dtype))
        vectors = []
        for step in range(8):
            place = builder.add(args[3], args[3].type(step * LANES))
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
    return types.void(array, indices, buffer, types.intp), codegen
