"""Gram matrix and dot products in NumPy: the definition of the bits.

Here: the sums of one superblock, in the order that every compiled path follows. Per pair of rows
and per lane (column modulo 4), a block of 64 columns is summed one group of 4 after another from
+0.0, blocks are added one after another, and a superblock is ``(l0 + l2) + (l1 + l3)``. The
product of two float32 values is exact in float64, so a fused multiply-add elsewhere gives the
bits of the two steps here; and the sum over superblocks. Never here: checks of arguments, or how
many superblocks are done at a time (:mod:`cabildo_kernels.gram_matrix`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.grid import BLOCK, SUPERBLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_kernels.rows import Rows

LANES: Final = 4
GROUPS: Final = BLOCK // LANES


def gram(rows: Rows, *, base: Rows | None, first: int, count: int) -> NDArray[np.float64]:
    """Return the Gram matrices [count, n, n] of superblocks first..first+count-1."""
    n = len(rows)
    sums = np.empty((count, n, n))
    with default_environment():
        for index in range(count):
            x = _lanes(rows, base=base, superblock=first + index)  # [n, group, block * lane]
            for i in range(n):
                products = x[i, 0] * x[i:, 0]
                for group in range(1, GROUPS):
                    products += x[i, group] * x[i:, group]
                sums[index, i, i:] = sums[index, i:, i] = _reduced(products)
    return sums


def dots(
    rows: Rows, *, vector: Rows, base: Rows | None, first: int, count: int
) -> NDArray[np.float64]:
    """Return the products <row - base, vector> [count, n] of superblocks first..first+count-1."""
    sums = np.empty((count, len(rows)))
    with default_environment():
        for index in range(count):
            x = _lanes(rows, base=base, superblock=first + index)
            v = _lanes(vector, base=None, superblock=first + index)[0]
            products = x[:, 0] * v[0]
            for group in range(1, GROUPS):
                products += x[:, group] * v[group]
            sums[index] = _reduced(products)
    return sums


def added(total: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``total`` [...] plus ``sums`` [count, ...], one superblock after another."""
    with default_environment():
        # accumulate, not sum: one after another by definition.
        whole: NDArray[np.float64] = np.add.accumulate(
            np.concatenate([total[np.newaxis], sums]), axis=0
        )[-1]
    return whole


def _reduced(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Block sums [rows, block * lane] to one sum a row."""
    # + 0.0: a block sum starts from +0.0, so it is never -0.0. accumulate goes one after another
    # by definition, which np.sum does not.
    blocks = (products + 0.0).reshape(len(products), -1, LANES)
    lanes = np.add.accumulate(blocks, axis=1)[:, -1, :]
    total: NDArray[np.float64] = (lanes[:, 0] + lanes[:, 2]) + (lanes[:, 1] + lanes[:, 3])
    return total


def _lanes(rows: Rows, *, base: Rows | None, superblock: int) -> NDArray[np.float64]:
    """One superblock, centred in float32, then widened: [n, group, block * lane], zeros behind."""
    begin = superblock * SUPERBLOCK
    end = min(begin + SUPERBLOCK, rows.columns)
    blocks = -(-(end - begin) // BLOCK)
    padded = np.zeros((len(rows), blocks * BLOCK))
    for row in range(len(rows)):
        values = rows.float32(row, begin, end)
        padded[row, : end - begin] = (
            values if base is None else values - base.float32(0, begin, end)
        )
    by_group = padded.reshape(len(rows), blocks, GROUPS, LANES).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(by_group).reshape(len(rows), GROUPS, blocks * LANES)
