"""Softmax with top-k of a router's logits in NumPy, with the bits of the compiled paths.

Here: sums over the experts in their order. Never here: input checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cabildo_kernels.fallback.lanes import exponential

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_kernels.fallback.lanes import Floats


def moe_topk(
    logits: Floats, k: int, *, renormalise: bool, weights: Floats, indices: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Write the k best experts of every row and their weights.

    Returns:
        The rows that hold NaN or +inf, or fewer than k logits above -inf; their results are of no
        use.
    """
    # A stable sort of the negated values keeps the lower index first among equals.
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(logits, chosen, axis=1)
    top = best[:, :1]
    with np.errstate(all="ignore"):  # bad rows are reported, not used
        powers = exponential((best if renormalise else logits) - top)
        total = np.zeros(len(logits), dtype=np.float32)
        for column in range(powers.shape[1]):
            total = total + powers[:, column]
        weights[:] = exponential(best - top) / total[:, None]
    indices[:] = chosen
    unusable = np.isnan(logits).any(axis=1) | (top[:, 0] == np.inf) | (best[:, -1] == -np.inf)
    return np.flatnonzero(unusable)
