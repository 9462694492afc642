"""The column rules in NumPy, superblock by superblock.

Here: the definition of each rule's bits, in double and in the order that the compiled code keeps.
Never here: checks of arguments (`cabildo_kernels.columns` made them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.grid import SUPERBLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cabildo_kernels.rows import Rows

    Floats = NDArray[np.float64]


def median(rows: Rows, *, out: NDArray[Any], out_type: str) -> bool:
    """Write the median of each column into `out`; see `cabildo_kernels.columns.median`.

    Returns:
        Whether some row holds NaN or infinity; `out` is then of no use.
    """
    return _ordered(rows, out=out, out_type=out_type, rule=_middle)


def trimmed_mean(rows: Rows, *, trim: int, out: NDArray[Any], out_type: str) -> bool:
    """Write the mean of each column without its `trim` least and greatest values."""

    def rule(ordered: Floats) -> Floats:
        kept = ordered[trim : len(ordered) - trim]
        return _sum(kept) / float(len(kept))

    return _ordered(rows, out=out, out_type=out_type, rule=rule)


def mean_around_median(rows: Rows, *, keep: int, out: NDArray[Any], out_type: str) -> bool:
    """Write the mean of the `keep` values of each column nearest its median."""

    def rule(ordered: Floats) -> Floats:
        n = len(ordered)
        middle = _middle(ordered)
        # dropped[i]: value i is further below the median than value i + keep is above it. Sorted
        # values make this true for the first few and false from there on.
        dropped = (middle - ordered[: n - keep]) > (ordered[keep:] - middle)
        kept = ordered.copy()
        kept[: n - keep][dropped] = 0.0
        kept[keep:][~dropped] = 0.0
        return _sum(kept) / float(keep)

    return _ordered(rows, out=out, out_type=out_type, rule=rule)


def weighted_sums(
    rows: Rows, *, weights: Floats, divisor: float, out: NDArray[Any], out_type: str
) -> bool:
    """Write one weighted sum of the rows for each row of `weights` [m, n] into `out` [m, d]."""
    suspect = False
    with default_environment():
        for start in range(0, rows.columns, SUPERBLOCK):
            stop = min(start + SUPERBLOCK, rows.columns)
            values = [rows.float32(i, start, stop).astype(np.float64) for i in range(len(rows))]
            for output, row_weights in enumerate(weights):
                total = np.zeros(stop - start)
                for weight, value in zip(row_weights, values, strict=True):
                    total += weight * value
                suspect = suspect or not bool(np.isfinite(total).all())
                if divisor != 1.0:
                    total /= divisor
                    total += 0.0  # a zero over a negative divisor is -0.0
                out[output, start:stop] = rounded(total, element_type=out_type)
    return suspect


def _ordered(
    rows: Rows, *, out: NDArray[Any], out_type: str, rule: Callable[[Floats], Floats]
) -> bool:
    suspect = False
    with default_environment():
        for start in range(0, rows.columns, SUPERBLOCK):
            stop = min(start + SUPERBLOCK, rows.columns)
            values = np.stack([rows.float32(i, start, stop) for i in range(len(rows))])
            suspect = suspect or not bool(np.isfinite(values).all())
            values += np.float32(0.0)  # -0.0 becomes +0.0
            values.sort(axis=0)
            out[start:stop] = rounded(rule(values.astype(np.float64)), element_type=out_type)
    return suspect


def _middle(ordered: Floats) -> Floats:
    n = len(ordered)
    middle: Floats = ordered[n // 2]
    return middle if n % 2 else (ordered[n // 2 - 1] + middle) * 0.5


def _sum(values: Floats) -> Floats:
    # One row after another: np.sum would add them in pairs.
    total = np.zeros(values.shape[1])
    for value in values:
        total += value
    return total


def rounded(values: Floats, *, element_type: str) -> NDArray[Any]:
    """Round doubles to an element type once, to the nearest, ties to even (bf16 as uint16)."""
    near = values.astype(np.float32)
    if element_type == "f32":
        return near
    # Rounding to odd first: then a second rounding, to a type at least two bits shorter, gives what
    # rounding the double itself would.
    error = values - near.astype(np.float64)
    bits = near.view(np.int32)
    inexact = (error > 0.0) | (error < 0.0)
    step = np.where((error > 0.0) == (bits >= 0), np.int32(1), np.int32(-1))
    odd = np.where(inexact & (bits & 1 == 0), bits + step, bits).view(np.uint32)
    if element_type == "f16":
        return odd.view(np.float32).astype(np.float16)
    return ((odd + np.uint32(0x7FFF) + (odd >> 16 & 1)) >> 16).astype(np.uint16)
