"""Softmax of CSR rows in NumPy, with the bits of the compiled paths.

Here: rows of the same number of groups of 16 are done together. Never here: input checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cabildo_kernels.fallback.lanes import LANES, exponential, ordered_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_kernels.fallback.lanes import Floats


def sparse_softmax(data: Floats, indptr: NDArray[np.int64], out: Floats) -> NDArray[np.int64]:
    """Write the softmax of every row to `out`.

    Returns:
        The rows that hold NaN or +inf; `out` is then of no use.
    """
    sizes = np.diff(indptr)
    bad: list[NDArray[np.int64]] = []
    for groups in np.unique(-(-sizes // LANES)):
        if groups == 0:
            continue
        rows = np.flatnonzero(-(-sizes // LANES) == groups)
        columns = np.arange(groups * LANES)
        present = columns < sizes[rows, None]
        where = np.where(present, indptr[rows, None] + columns, 0)
        values = np.where(present, data[where], np.float32(-np.inf))
        top = values.max(axis=1, keepdims=True)  # NaN where there is one
        bad.append(rows[~(top[:, 0] < np.inf)])
        with np.errstate(invalid="ignore", divide="ignore"):
            powers = exponential(values - top)
            total = ordered_sum(powers.reshape(len(rows), int(groups), LANES))
            result = np.where(top == -np.inf, np.float32(0.0), powers / total[:, None])
        out[where[present]] = result[present]
    return np.sort(np.concatenate(bad)) if bad else np.empty(0, dtype=np.int64)
