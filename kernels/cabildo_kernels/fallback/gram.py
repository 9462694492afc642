"""Gram matrix and dot products in NumPy: the definition of the bits.

Here: the sums of the fixed grid, in the order that every compiled path follows (see
:mod:`cabildo_kernels.grid`). Per pair of rows and per lane (column modulo 4): a block of 64
columns is summed one group of 4 after another from +0.0, blocks are added one after another into
the superblock, a superblock is ``(l0 + l2) + (l1 + l3)``. A product of two float32 values is
exact in float64, so a fused multiply-add elsewhere gives the same bits as the two steps here.
Never here: checks of the input, threads, the sum over superblocks (all in
:mod:`cabildo_kernels.gram`, for every path alike).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_kernels.grid import BLOCK, LANES, SUPERBLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

GROUPS = BLOCK // LANES
BF16_SHIFT = 16


def gram_superblocks(
    rows: Sequence[NDArray[Any]],
    base: NDArray[Any] | None,
    *,
    first: int,
    count: int,
) -> NDArray[np.float64]:
    """Sums of ``count`` superblocks, starting with superblock ``first``.

    Args:
        rows: n vectors of one length: float32, float16, or uint16 for bfloat16.
        base: What is subtracted from every row (in float32), or None.
        first: Index of the first superblock.
        count: How many superblocks.

    Returns:
        ``float64[count, n, n]``, both triangles filled.
    """
    n = len(rows)
    sums = np.zeros((count, n, n))
    for index in range(count):
        x = _lanes_of(rows, base, superblock=first + index)  # [n, group, block * lane]
        for i in range(n):
            products = x[i, 0] * x[i:, 0]
            for group in range(1, GROUPS):
                products += x[i, group] * x[i:, group]
            sums[index, i, i:] = sums[index, i:, i] = _reduced(products)
    return sums


def dots_superblocks(
    rows: Sequence[NDArray[Any]],
    vector: NDArray[Any],
    base: NDArray[Any] | None,
    *,
    first: int,
    count: int,
) -> NDArray[np.float64]:
    """Sums of ``(row - base) * vector`` over each of ``count`` superblocks.

    Returns:
        ``float64[count, n]``.
    """
    sums = np.zeros((count, len(rows)))
    for index in range(count):
        x = _lanes_of(rows, base, superblock=first + index)
        v = _lanes_of([vector], None, superblock=first + index)[0]
        products = x[:, 0] * v[0]
        for group in range(1, GROUPS):
            products += x[:, group] * v[group]
        sums[index] = _reduced(products)
    return sums


def _reduced(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Block sums ``[rows, block * lane]`` to one sum a row."""
    # + 0.0: a block sum starts from +0.0, so it is never -0.0. accumulate is sequential by
    # definition, which np.sum is not.
    blocks = (products + 0.0).reshape(len(products), -1, LANES)
    lanes = np.add.accumulate(blocks, axis=1)[:, -1, :]
    total: NDArray[np.float64] = (lanes[:, 0] + lanes[:, 2]) + (lanes[:, 1] + lanes[:, 3])
    return total


def _lanes_of(
    rows: Sequence[NDArray[Any]], base: NDArray[Any] | None, *, superblock: int
) -> NDArray[np.float64]:
    """One superblock, centred and widened: ``[n, group, block * lane]``, zeros after the end."""
    span = slice(superblock * SUPERBLOCK, (superblock + 1) * SUPERBLOCK)
    origin = None if base is None else widened(base[span])
    length = len(rows[0][span])
    blocks = -(-length // BLOCK)
    padded = np.zeros((len(rows), blocks * BLOCK))
    with np.errstate(over="ignore", invalid="ignore"):  # shows up in the sums, is raised there
        for index, row in enumerate(rows):
            values = widened(row[span])
            padded[index, :length] = values if origin is None else values - origin
    by_group = padded.reshape(len(rows), blocks, GROUPS, LANES).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(by_group).reshape(len(rows), GROUPS, blocks * LANES)


def widened(values: NDArray[Any]) -> NDArray[np.float32]:
    """Float32 of a float32, float16 or bfloat16 (as uint16) array; always exact."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << BF16_SHIFT).view(np.float32)
    return values.astype(np.float32)
