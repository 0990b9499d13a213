"""exp2, softplus and sigmoid of a `Vector`: polynomials in float32, the C library in float64."""

from typing import Any

from numba import njit, types
from numba.extending import overload

from blocks.scan.backends.numba_simd import (
    add_exponent,
    const,
    exp2_exact,
    exp_exact,
    fma,
    log_exact,
    maximum,
    minimum,
    where_negative,
)

LOG2E = 1.4426950408889634
LOG2E_HIGH = 1.44269502162933349609375  # LOG2E in float32
LOG2E_LOW = LOG2E - LOG2E_HIGH
ROUND = 1.5 * 2.0**23  # float32 + ROUND has the nearest whole number in its low bits


def exp2(t: Any) -> Any:
    """Return 2**t; in float32, results below 2**-126 are up to 2**-126 off, and end at 0."""
    raise NotImplementedError("exp2 of a Vector works inside numba functions only")


def exp_negative(x: Any) -> Any:
    """Return exp(x) for x <= 0 with full relative precision; in float32, 0 below x = -88."""
    raise NotImplementedError("exp_negative works inside numba functions only")


def log1p(e: Any) -> Any:
    """Return log(1 + e) for 0 <= e <= 1."""
    raise NotImplementedError("log1p of a Vector works inside numba functions only")


@njit(forceinline=True)
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    one = const(x, 1.0)
    e = exp_negative(where_negative(x, x, const(x, 0.0) - x))
    return where_negative(x, e, one) / (one + e)


@njit(forceinline=True)
def softplus(x: Any) -> Any:
    """Return log(1 + exp(x))."""
    zero = const(x, 0.0)
    return maximum(x, zero) + log1p(exp_negative(where_negative(x, x, zero - x)))


@njit(forceinline=True)
def _exp2_fraction(f: Any) -> Any:
    """Return 2**f for |f| <= 1/2: minimax, relative error 2e-9.

    Exactly 1 at 0: an error there would compound over the thousand tokens of a state's memory.
    """
    p = fma(const(f, 0.00015353361959569156), f, const(f, 0.0013398875016719103))
    p = fma(p, f, const(f, 0.00961843691766262))
    p = fma(p, f, const(f, 0.055503323674201965))
    p = fma(p, f, const(f, 0.24022647738456726))
    p = fma(p, f, const(f, 0.6931471824645996))
    return fma(p, f, const(f, 1.0))


@njit(forceinline=True)
def _exp2_fraction_by_pairs(f: Any) -> Any:
    """Return the same by pairs of terms: one rounding more, half the latency."""
    square = f * f
    low = fma(const(f, 0.6931471824645996), f, const(f, 1.0))
    middle = fma(const(f, 0.055503323674201965), f, const(f, 0.24022647738456726))
    high = fma(const(f, 0.0013398875016719103), f, const(f, 0.00961843691766262))
    high = fma(const(f, 0.00015353361959569156), square, high)
    return fma(fma(high, square, middle), square, low)


@njit(forceinline=True)
def _log1p_polynomial(e: Any) -> Any:
    """Return log(1 + e) for 0 <= e <= 1: minimax, relative error 1e-8; by pairs of terms."""
    square = e * e
    fourth = square * square
    p0 = fma(const(e, 0.3333319127559662), e, const(e, -0.4999999701976776))
    p2 = fma(const(e, 0.19967754185199738), e, const(e, -0.24996978044509888))
    p4 = fma(const(e, 0.13452908396720886), e, const(e, -0.16462916135787964))
    p6 = fma(const(e, 0.06451541930437088), e, const(e, -0.10169694572687149))
    p8 = fma(const(e, 0.009223835542798042), e, const(e, -0.030529281124472618))
    p8 = fma(const(e, -0.0013054709415882826), square, p8)
    p = fma(fma(p8, fourth, fma(p6, square, p4)), fourth, fma(p2, square, p0))
    return e * fma(p, e, const(e, 1.0))


@overload(exp2, jit_options={"forceinline": True})
def _exp2(t: Any) -> Any:
    def single(t: Any) -> Any:
        t = minimum(maximum(t, const(t, -127.0)), const(t, 128.0))
        shifted = t + const(t, ROUND)
        return add_exponent(_exp2_fraction(t - (shifted - const(t, ROUND))), shifted)

    def double(t: Any) -> Any:
        return exp2_exact(t)

    return single if t.dtype == types.float32 else double


@overload(exp_negative, jit_options={"forceinline": True})
def _exp_negative(x: Any) -> Any:
    def single(x: Any) -> Any:
        x = maximum(x, const(x, -88.0))
        shifted = fma(x, const(x, LOG2E_HIGH), const(x, ROUND))
        whole = shifted - const(x, ROUND)
        f = fma(x, const(x, LOG2E_HIGH), const(x, 0.0) - whole)
        f = fma(x, const(x, LOG2E_LOW), f)
        # 2**whole from its exponent alone: 0 where whole is -127
        power = add_exponent(const(x, 0.0), shifted + const(x, 127.0))
        return _exp2_fraction_by_pairs(f) * power

    def double(x: Any) -> Any:
        return exp_exact(x)

    return single if x.dtype == types.float32 else double


@overload(log1p, jit_options={"forceinline": True})
def _log1p(e: Any) -> Any:
    def single(e: Any) -> Any:
        return _log1p_polynomial(e)

    def double(e: Any) -> Any:
        one = const(e, 1.0)
        rounded = one + e
        return log_exact(rounded) + (e - (rounded - one)) / rounded  # second: what 1 + e lost

    return single if e.dtype == types.float32 else double
