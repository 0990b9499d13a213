"""The scan operators in ONNX's terms: what stands for them in an exported file.

No order of tokens needs a table of rows there: each is a few reshapes and transposes, see
`blocks.scan.orders`.

Legend: B batch, K directions, L tokens, D channels, N states, W taps. Only B may be unknown.
"""

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

from blocks.scan.orders import order_parts

_FLOAT = onnx.TensorProto.FLOAT
_Value = Any
"""A tensor of the file that is made; its shape is known."""


def translations() -> dict[Any, Callable[..., Any]]:
    """Return the operators with what stands for each, for `torch.onnx.export`."""
    return {
        torch.ops.archspec.selective_scan.default: _selective_scan,
        torch.ops.archspec.causal_conv1d.default: _causal_conv1d,
    }


@script(Opset("archspec", 1), default_opset=op)
def _recurrence(start: FLOAT, A: FLOAT, dt: FLOAT, dt_u: FLOAT, B: FLOAT, C: FLOAT) -> FLOAT:
    """Run state = exp(dt A) state + dt u B, y = C state along L, axis 2 of all but the first two.

    exp(dt A) is of one token: of all, it would be L states at once.
    """

    @graph()
    def step(state, dt, dt_u, B, C):  # type: ignore[no-untyped-def]
        new = op.Exp(dt * A) * state + dt_u * B
        y = op.MatMul(new, C)
        return new, y

    _, y = op.Scan(
        start,
        dt,
        dt_u,
        B,
        C,
        body=step,
        num_scan_inputs=4,
        scan_input_axes=[2, 2, 2, 2],
        scan_output_axes=[2],
    )
    return y


def _selective_scan(
    u: _Value,
    delta: _Value,
    A: _Value,
    B: _Value,
    C: _Value,
    D: _Value,
    delta_bias: _Value,
    z: _Value = None,
    orders: Sequence[int] = (),
) -> Any:
    """Follow `blocks.scan.backends.reference.recurrence`, in float32."""
    directions, channels, states = A.shape
    wide_u, dt, B, C = (_all_in_order(x, orders) for x in (u, delta, B, C))
    dt = op.Softplus(op.Add(dt, _unsqueezed(_wide(delta_bias), 1)))
    start = op.Expand(
        op.CastLike(0.0, dt),
        op.Concat(op.Shape(u, start=0, end=1), _ints(directions, channels, states), axis=0),
    )
    column = _unsqueezed(op.Mul(dt, wide_u), 4)
    y = _recurrence(
        start, _wide(A), _unsqueezed(dt, 4), column, _unsqueezed(B, 3), _unsqueezed(C, 4)
    )
    y = op.Add(op.Squeeze(y, _ints(4)), op.Mul(wide_u, _unsqueezed(_wide(D), 1)))
    size = tuple(u.shape[2:])
    parts = [
        _in_order(part, order, size, back=True)
        for part, order in zip(_parts(y, directions, axis=1), orders, strict=True)
    ]
    out = op.Squeeze(parts[0] if directions == 1 else op.Sum(*parts), _ints(1))
    if z is not None:
        out = op.Mul(out, _silu(_wide(z)))
    return op.CastLike(out, u), op.Identity(
        start
    )  # nothing reads the states: they are for training


def _causal_conv1d(x: _Value, weight: _Value, bias: _Value, orders: Sequence[int] = ()) -> _Value:
    """Convolve in every order, over tokens that are padded at their start, and apply SiLU."""
    directions, channels, taps = weight.shape
    size, found = tuple(x.shape[1:]), []
    weights, biases = (_parts(op.CastLike(one, x), directions, axis=0) for one in (weight, bias))
    for order, kernel, shift in zip(orders, weights, biases, strict=True):
        tokens = op.Squeeze(_in_order(_unsqueezed(x, 1), order, size), _ints(1))
        raw = op.Conv(
            op.Transpose(tokens, perm=[0, 2, 1]),
            op.Reshape(kernel, _ints(channels, 1, taps)),
            op.Reshape(shift, _ints(channels)),
            group=channels,
            pads=[taps - 1, 0],
        )
        out = _unsqueezed(op.Transpose(_silu(raw), perm=[0, 2, 1]), 1)
        found.append(_in_order(out, order, size, back=True))
    return found[0] if directions == 1 else op.Concat(*found, axis=1)


def _all_in_order(x: _Value, orders: Sequence[int]) -> _Value:
    """Bring (B, K, L, X) from token order into scan order, as float32."""
    size, parts = tuple(x.shape[2:]), _parts(_wide(x), len(orders), axis=1)
    found = [_in_order(part, order, size) for part, order in zip(parts, orders, strict=True)]
    return found[0] if len(found) == 1 else op.Concat(*found, axis=1)


def _in_order(x: _Value, order: int, size: tuple[int, int], *, back: bool = False) -> _Value:
    """Bring (B, 1, L, X) from token order into scan order, or back."""
    slices, rows, columns, mirrored = order_parts(order)
    length, features = size
    turns = [(length // (rows * columns), rows, columns), (1, slices, length // slices)]
    if back:
        x = _flipped(x) if mirrored else x
        turns = [(outer, inner, middle) for outer, middle, inner in reversed(turns)]
    for outer, middle, inner in turns:
        if middle > 1 and inner > 1:
            x = op.Reshape(x, _ints(0, outer, middle, inner, features))
            x = op.Transpose(x, perm=[0, 1, 3, 2, 4])
            x = op.Reshape(x, _ints(0, 1, length, features))
    return _flipped(x) if mirrored and not back else x


def _flipped(x: _Value) -> _Value:
    return op.Slice(x, _ints(-1), _ints(-(2**62)), _ints(2), _ints(-1))


def _parts(x: _Value, count: int, *, axis: int) -> Sequence[_Value]:
    """Cut a tensor into parts of length one."""
    if count == 1:
        return [x]
    return [op.Slice(x, _ints(i), _ints(i + 1), _ints(axis)) for i in range(count)]


def _silu(x: _Value) -> _Value:
    return op.Mul(x, op.Sigmoid(x))


def _wide(x: _Value) -> _Value:
    return op.Cast(x, to=_FLOAT)


def _unsqueezed(x: _Value, axis: int) -> _Value:
    return op.Unsqueeze(x, _ints(axis))


def _ints(*values: int) -> _Value:
    return op.Constant(value_ints=values)
