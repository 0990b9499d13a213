"""SIMD vectors inside numba functions: one `Vector` holds a value for each of `LANES` channels.

The kernels say what a vector is and do not leave it to LLVM's vectoriser, which would have to see
that no two arrays overlap, and cannot keep a vector of states in registers from token to token.
LLVM maps vectors to the registers of the machine: SSE, AVX, AVX-512 or NEON.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 16
"""Channels per vector: two AVX registers, which hide each other's latency."""

I32 = ir.IntType(32)


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


def _operator(function: Callable[..., Any], instruction: Callable[..., Any]) -> None:
    @type_callable(function)
    def typer(context: Any) -> Any:
        return lambda a, b: a if isinstance(a, Vector) and a == b else None

    @lower_builtin(function, Vector, Vector)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return instruction(builder, *args)


_operator(operator.add, ir.IRBuilder.fadd)
_operator(operator.sub, ir.IRBuilder.fsub)
_operator(operator.mul, ir.IRBuilder.fmul)
_operator(operator.truediv, ir.IRBuilder.fdiv)


def splat_value(builder: Any, value: Any, vector: Any) -> Any:
    """Repeat a number in every lane of an LLVM vector type."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    return builder.shuffle_vector(one, one, zeros)


def call_llvm(builder: Any, name: str, result: Any, args: Any) -> Any:
    """Call one of LLVM's own functions."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [a.type for a in args]), name
    )
    return builder.call(function, args)


def suffix(vector: Any) -> str:
    """Return how names of LLVM's functions end for a vector type."""
    return f"v{LANES}f{64 if isinstance(vector.element, ir.DoubleType) else 32}"


@intrinsic
def const(typingctx: Any, like: Any, value: Any) -> Any:
    """Repeat a number in every lane, in the type of the vector `like`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = context.cast(builder, args[1], value, like.dtype)
        return splat_value(builder, number, args[0].type)

    return like(like, value), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once where the machine can."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = args[0].type
        return call_llvm(builder, f"llvm.fmuladd.{suffix(vector)}", vector, args)

    return a(a, b, c), codegen


@intrinsic
def exp2_exact(typingctx: Any, a: Any) -> Any:
    """Return 2**a from the C library, lane by lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call_llvm(builder, f"llvm.exp2.{suffix(args[0].type)}", args[0].type, args)

    return a(a), codegen


@intrinsic
def exp_exact(typingctx: Any, a: Any) -> Any:
    """Return exp(a) from the C library, lane by lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call_llvm(builder, f"llvm.exp.{suffix(args[0].type)}", args[0].type, args)

    return a(a), codegen


@intrinsic
def log_exact(typingctx: Any, a: Any) -> Any:
    """Return log(a) from the C library, lane by lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call_llvm(builder, f"llvm.log.{suffix(args[0].type)}", args[0].type, args)

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
        whole = ir.VectorType(I32, LANES)
        shifted = builder.shl(builder.bitcast(args[1], whole), ir.Constant(whole, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(args[0], whole), shifted), args[0].type)

    return a(a, b), codegen
