"""Attention of one query and of a short prompt in NumPy, with the bits of the compiled paths.

Here: the order of every sum as in `native/softmax_attention.inc.h`. Never here: input checks.
Arrays are [batch, heads, sequence, features]; the number of query heads is a multiple of the
number of key heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cabildo_kernels.fallback.lanes import exponential, in_lanes, ordered_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_kernels.fallback.lanes import Floats

KEY_BLOCK = 64


def _shared(heads: Floats, *, query_heads: int) -> Floats:
    return np.repeat(heads, query_heads // heads.shape[1], axis=1)


def decode(q: Floats, k: Floats, v: Floats, *, scale: float, out: Floats) -> NDArray[np.int64]:
    """Write the attention of one query for each head.

    Returns:
        The (batch, head) pairs, numbered in C order, whose result is not finite.
    """
    k, v = _shared(k, query_heads=q.shape[1]), _shared(v, query_heads=q.shape[1])
    with np.errstate(all="ignore"):  # what is not finite is reported below
        products = in_lanes(q, fill=0.0) * in_lanes(k, fill=0.0)
        scores = ordered_sum(products) * np.float32(scale)  # [batch, heads, keys]
        top = scores.max(axis=-1, keepdims=True)
        powers = exponential(scores - top)
        sums = ordered_sum(in_lanes(powers, fill=0.0))
        total = np.zeros_like(v[:, :, 0])
        for start in range(0, k.shape[2], KEY_BLOCK):
            block = np.zeros_like(total)
            for key in range(start, min(start + KEY_BLOCK, k.shape[2])):
                block = block + powers[:, :, key, None] * v[:, :, key]
            total = total + block
        out[:, :, 0] = total / sums[:, :, None]
    finite = np.isfinite(top[..., 0]) & np.isfinite(out).all(axis=(2, 3))
    return np.flatnonzero(~finite.ravel())


def prefill(
    q: Floats, k: Floats, v: Floats, *, scale: float, causal: bool, out: Floats
) -> NDArray[np.int64]:
    """Write the attention of every query for each head.

    Returns:
        The (batch, head) pairs, numbered in C order, whose result is not finite.
    """
    k, v = _shared(k, query_heads=q.shape[1]), _shared(v, query_heads=q.shape[1])
    queries, keys = q.shape[2], k.shape[2]
    with np.errstate(all="ignore"):  # what is not finite is reported below
        scores = np.zeros((*q.shape[:2], queries, keys), dtype=np.float32)
        for feature in range(q.shape[3]):
            scores = scores + q[..., feature, None] * k[:, :, None, :, feature]
        scores = scores * np.float32(scale)
        if causal:
            scores[..., ~np.tri(queries, keys, dtype=bool)] = -np.inf
        top = scores.max(axis=-1, keepdims=True)
        powers = exponential(scores - top)
        sums = ordered_sum(in_lanes(powers, fill=0.0))
        total = np.zeros_like(out)
        for key in range(keys):
            total = total + powers[..., key, None] * v[:, :, None, key]
        out[:] = total / sums[..., None]
    finite = np.isfinite(top).all(axis=(2, 3)) & np.isfinite(out).all(axis=(2, 3))
    return np.flatnonzero(~finite.ravel())
