"""Sixteen float32 lanes in NumPy: the order of sums and the exponential of `native/lanes.h`.

Here: what the fallbacks of the softmax family share, bit for bit what the compiled paths do.
Never here: np.exp, np.sum, or anything else whose order or rounding NumPy may choose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LANES = 16

Floats = NDArray[np.float32]

_LOWEST = np.float32(-87.0)
_LOG2E = np.float32(1.44269504)
_MAGIC = np.float32(12582912.0)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_COEFFICIENTS = tuple(
    np.float32(c) for c in (1.3814467e-3, 8.368781e-3, 4.1668394e-2, 1.6666520e-1, 4.9999993e-1)
)


def exponential(t: Floats) -> Floats:
    """Return exp(t) for t <= 0; 0 below -87. The method is described in `native/lanes.h`."""
    with np.errstate(all="ignore"):  # what lies below -87 goes through nonsense and is dropped
        shifted = t * _LOG2E + _MAGIC
        n = shifted - _MAGIC
        r = t - n * _LN2_HIGH
        r = r - n * _LN2_LOW
        q = np.full_like(r, _COEFFICIENTS[0])
        for c in _COEFFICIENTS[1:]:
            q = q * r + c
        p = np.ascontiguousarray((r * r) * q + r + np.float32(1.0))
        exponent = np.ascontiguousarray(shifted).view(np.uint32) << np.uint32(23)
        result = (p.view(np.uint32) + exponent).view(np.float32)
    return np.where(t < _LOWEST, np.float32(0.0), result)


def lane_sum(lanes: Floats) -> Floats:
    """Return the sum over the last axis of 16: l + (l+8), then + (l+4), (l+2), (l+1)."""
    eight = lanes[..., :8] + lanes[..., 8:]
    four = eight[..., :4] + eight[..., 4:]
    two = four[..., :2] + four[..., 2:]
    return np.asarray(two[..., 0] + two[..., 1])


def in_lanes(values: Floats, *, fill: float) -> Floats:
    """Return [..., n] as [..., groups, 16], the last group filled up."""
    size = values.shape[-1]
    groups = -(-size // LANES)
    padded = np.full((*values.shape[:-1], groups * LANES), fill, dtype=np.float32)
    padded[..., :size] = values
    return padded.reshape(*values.shape[:-1], groups, LANES)


def ordered_sum(grouped: Floats) -> Floats:
    """Return the sum over [..., groups, 16]: groups in order, lane by lane, then the lanes."""
    total = np.zeros((*grouped.shape[:-2], LANES), dtype=np.float32)
    for group in range(grouped.shape[-2]):
        total = total + grouped[..., group, :]
    return lane_sum(total)
