"""Sums of n <= 64 numbers in one stated order: no BLAS, no vendor's reduction, no libm.

Between the Gram matrix and the weights every operation is an IEEE fp64 + - * / or sqrt, done in the
order that is written here, so all machines get the same bits.

Here: sums, products of small matrices, medians. Never here: tensors. Next: the rules in `robust/`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


def ordered_sum(values: Iterable[float]) -> float:
    """Returns +0.0 + v0 + v1 + ..., from left to right."""
    total = 0.0
    for value in values:
        total += float(value)
    return total


def matrix_vector(matrix: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns matrix @ vector, adding the columns from left to right."""
    total = np.zeros(matrix.shape[0], dtype=np.float64)
    for column in range(matrix.shape[1]):
        total += matrix[:, column] * vector[column]
    return total


def inner(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Returns the inner product, added from left to right."""
    return ordered_sum((left * right).tolist())


def congruence(weights: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns W M W^T of a symmetric M, exactly symmetric: the Gram matrix of mixtures W x."""
    left = np.zeros((weights.shape[0], matrix.shape[1]), dtype=np.float64)
    for index in range(matrix.shape[0]):
        left += weights[:, index, None] * matrix[None, index, :]
    product = np.zeros((weights.shape[0], weights.shape[0]), dtype=np.float64)
    for index in range(matrix.shape[0]):
        product += left[:, index, None] * weights[None, :, index]
    lower = np.tril(product)
    return lower + np.tril(product, -1).T


def median(values: Sequence[float]) -> float:
    """Returns the median; for an even count the mean of the two middle values."""
    ordered = sorted(float(value) for value in values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2.0


def square_roots(values: Iterable[float]) -> list[float]:
    """Returns the square roots; rounding below zero counts as zero."""
    return [math.sqrt(max(float(value), 0.0)) for value in values]
