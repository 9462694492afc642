"""Products and solutions of symmetric positive definite systems in plain fp64, the same everywhere.

LAPACK and BLAS add in orders of their own, which differ between builds; here every entry is a sum
over k = 0, 1, ... of products, each operation rounded once.

Here: matrices of a linear layer's inputs. Never here: Gram matrices of models
(`cabildo_kernels`). Next: `statistics.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]


class NotPositiveDefiniteError(ValueError):
    """A pivot is not above zero.

    Attributes:
        pivot: Its index.
    """

    def __init__(self, pivot: int) -> None:
        super().__init__(f"pivot {pivot} is not above zero")
        self.pivot = pivot


def add_product(total: Matrix, left: Matrix, right: Matrix) -> None:
    """Adds left @ right to total, k by k.

    Args:
        total: (a, b), changed in place.
        left: (a, k).
        right: (k, b).
    """
    for k in range(left.shape[1]):
        total += left[:, k, None] * right[None, k, :]


def cholesky(matrix: Matrix) -> Matrix:
    """Returns the lower triangular L with L L^T = matrix, which is (k, k) and symmetric.

    Raises:
        NotPositiveDefiniteError: It is not positive definite.
    """
    lower = np.tril(matrix)
    for k in range(lower.shape[0]):
        pivot = float(lower[k, k])
        if not pivot > 0.0:
            raise NotPositiveDefiniteError(k)
        lower[k:, k] /= math.sqrt(pivot)
        column = lower[k + 1 :, k]
        lower[k + 1 :, k + 1 :] -= column[:, None] * column[None, :]
    return np.tril(lower)


def solve(lower: Matrix, right: Matrix) -> Matrix:
    """Returns X with L L^T X = right.

    Args:
        lower: L, (k, k).
        right: (k, b).
    """
    result = right.copy()
    size = lower.shape[0]
    for k in range(size):
        result[k] /= lower[k, k]
        result[k + 1 :] -= lower[k + 1 :, k, None] * result[None, k]
    for k in range(size - 1, -1, -1):
        result[k] /= lower[k, k]
        result[:k] -= lower[k, :k, None] * result[None, k]
    return result
