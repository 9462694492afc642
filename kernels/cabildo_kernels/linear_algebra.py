"""From the Gram matrix to the weights: our own IEEE arithmetic, the same bits everywhere.

Here: squared distances, Jacobi eigenvalues of many small matrices, the top covariance eigenvalue
of every subset (SMEA) and the subset of smallest diameter (MDA). Only + - * / and square root,
in a fixed order: LAPACK, BLAS and libm differ between builds, and a verifier on another machine
has to come to the same digest. Never here: passes over the models (:mod:`cabildo_kernels.gram`)
or rules (``cabildo_trainer.consensus.robust``, where the results go next).
"""

from __future__ import annotations

from itertools import combinations, islice
from math import comb
from typing import TYPE_CHECKING, Any, Final, Literal, overload

import numpy as np

from cabildo_kernels import dispatch
from cabildo_kernels.arguments import real_numbers, whole_number
from cabildo_kernels.errors import InvalidInput, KernelError
from cabildo_kernels.fallback import linear_algebra as fallback
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.layout import in_one_piece
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

SWEEPS: Final = 64
MOST_SWEEPS: Final = 1_000_000
SUBSETS_AT_ONCE: Final = 4096
"""Subsets whose matrices exist at one time: some megabytes in NumPy."""


def squared_distances(gram: ArrayLike) -> NDArray[np.float64]:
    """Squared distances between the rows that a Gram matrix describes.

    Args:
        gram: ``float64[n, n]`` from :func:`cabildo_kernels.gram`; centred or not.

    Returns:
        ``float64[n, n]``: ``(g_ii + g_jj) - 2 g_ij``, not below zero, zero on the diagonal;
        infinity where it is beyond float64.

    Raises:
        InvalidInput: The matrix is not square, not real, or not finite.
    """
    return fallback.squared_distances(_square(gram, "gram"))


@overload
def jacobi_eigen(
    matrices: ArrayLike, *, vectors: Literal[False] = False, sweeps: int = SWEEPS
) -> NDArray[np.float64]: ...
@overload
def jacobi_eigen(
    matrices: ArrayLike, *, vectors: Literal[True], sweeps: int = SWEEPS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def jacobi_eigen(
    matrices: ArrayLike, *, vectors: bool = False, sweeps: int = SWEEPS
) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of symmetric matrices by cyclic Jacobi (Golub and Van Loan, 8.5).

    Pairs (p, q) are visited row by row. An entry that both its diagonal entries absorb without
    a change is set to zero; a matrix is done after a sweep without a rotation. A matrix of a
    batch gets the bits that it gets alone.

    Args:
        matrices: ``float64[m, k, k]``, or one ``[k, k]``; only the upper triangles are read.
        vectors: Whether to return the eigenvectors, too.
        sweeps: The most sweeps over all pairs; 6 to 10 are usual.

    Returns:
        Values ascending ``[m, k]`` (``[k]`` for one matrix) and, when asked for, vectors
        ``[m, k, k]`` whose column j belongs to value j. Ties keep the order of the diagonal.

    Raises:
        InvalidInput: The matrices are not square, not real, not finite, or so large that sums of
            their entries overflow.
        KernelError: ``sweeps`` were not enough.
    """
    sweeps = whole_number("sweeps", sweeps)
    if not 1 <= sweeps <= MOST_SWEEPS:
        raise InvalidInput(f"sweeps={sweeps}: 1 or more is needed, at most {MOST_SWEEPS}")
    batch = in_one_piece(real_numbers("matrices", matrices))
    single = batch.ndim == 2  # noqa: PLR2004 - a matrix
    batch = batch[None] if single else batch
    if batch.ndim != 3 or batch.shape[1] != batch.shape[2]:  # noqa: PLR2004 - a batch of them
        raise InvalidInput(f"matrices must be [m, k, k] or [k, k], not {list(batch.shape)}")
    _require_finite(batch, "matrices")
    _require_room(batch, "matrices")
    values, columns = _eigen(batch, vectors=vectors, sweeps=sweeps)
    if columns is None:
        return values[0] if single else values
    return (values[0], columns[0]) if single else (values, columns)


def top_eigenvalues_of_subsets(
    gram: ArrayLike, *, size: int
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Largest eigenvalue of the centred covariance of every subset of rows (SMEA).

    All C(n, size) subsets are computed; the caller caps their number. The covariance is
    ``1/size * sum (x - mean)(x - mean)^T`` over the subset; its eigenvalues come from the
    subset's centred Gram matrix. Source: Allouah et al., AISTATS 2023, arXiv 2302.01772.

    Args:
        gram: ``float64[n, n]``.
        size: Rows in a subset, 1 to n.

    Returns:
        Subsets ``int16[m, size]`` in lexicographic order and values ``float64[m]``.

    Raises:
        InvalidInput: ``size`` is not in 1..n, or the matrix is not finite or so large that sums of
            its entries overflow.
    """
    matrix = _square(gram, "gram")
    _require_room(matrix, "gram")
    size = _required_size(size, len(matrix))
    count = comb(len(matrix), size)
    subsets = np.empty((count, size), dtype=np.int16)
    values = np.empty(count)
    start = 0
    for chunk in _chunks_of_subsets(len(matrix), size):
        stop = start + len(chunk)
        subsets[start:stop] = chunk
        values[start:stop] = _top_of_subsets(matrix, chunk)
        start = stop
    return subsets, values


def smallest_diameter_subset(distances: ArrayLike, *, size: int) -> tuple[int, ...]:
    """The subset whose largest distance inside is smallest (MDA), exactly.

    The smallest threshold under which ``size`` rows lie pairwise near each other is searched by
    bisection over the distances that occur; under it the lexicographically first such subset is
    taken. Nothing is computed, only compared, so squared distances give the same subset. The
    worst case grows with C(n, size): the caller caps it.

    Args:
        distances: ``float64[n, n]``, symmetric; the upper triangle is read.
        size: Rows in the subset, 1 to n.

    Returns:
        Row indices, ascending.

    Raises:
        InvalidInput: ``size`` is not in 1..n, or a distance is not finite.
    """
    matrix = _square(distances, "distances")
    n = len(matrix)
    size = _required_size(size, n)
    rows, columns = np.triu_indices(n, 1)
    if size == 1:
        return (0,)
    with default_environment():  # flushed denormals would be equal
        steps = np.unique(matrix[rows, columns])
        low, high = 0, len(steps) - 1  # under steps[high] all rows are near each other
        found = tuple(range(size))
        while low <= high:
            middle = (low + high) // 2
            subset = _first_clique(_near(matrix, float(steps[middle])), size=size)
            if subset is None:
                low = middle + 1
            else:
                found, high = subset, middle - 1
    return found


def _eigen(
    batch: NDArray[np.float64], *, vectors: bool, sweeps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    native = dispatch.native("linear_algebra")
    if native is None:
        values, columns, converged = fallback.eigen(batch, vectors=vectors, sweeps=sweeps)
    else:
        values = np.empty(batch.shape[:2])
        columns = np.empty(batch.shape) if vectors else None
        threads = threads_for(batch.nbytes, asked=None)
        converged = native.eigen(
            dispatch.path(), batch, values, columns, sweeps=sweeps, threads=threads
        )
    _require_converged(converged, sweeps)
    return values, columns


def _top_of_subsets(matrix: NDArray[np.float64], subsets: NDArray[np.int16]) -> NDArray[np.float64]:
    native = dispatch.native("linear_algebra")
    if native is None:
        values, converged = fallback.top_of_subsets(matrix, subsets, sweeps=SWEEPS)
    else:
        values = np.empty(len(subsets))
        size_bytes = subsets.size * subsets.shape[1] * matrix.itemsize  # of the matrices
        threads = threads_for(size_bytes, asked=None)
        converged = native.top_of_subsets(
            dispatch.path(), matrix, subsets, values, sweeps=SWEEPS, threads=threads
        )
    _require_converged(converged, SWEEPS)
    return values


def _near(matrix: NDArray[np.float64], threshold: float) -> list[int]:
    """Of each row, the set (as bits) of later and earlier rows within the threshold."""
    n = len(matrix)
    sets = [0] * n
    for i in range(n):
        for j in range(i + 1, n):
            if matrix[i, j] <= threshold:
                sets[i] |= 1 << j
                sets[j] |= 1 << i
    return sets


def _first_clique(near: list[int], *, size: int) -> tuple[int, ...] | None:
    """The lexicographically first set of ``size`` rows that are pairwise near, or None."""
    allowed = (1 << len(near)) - 1
    changed = True
    while changed:  # a row with too few neighbours is in no such set
        changed = False
        for row, neighbours in enumerate(near):
            if allowed >> row & 1 and (neighbours & allowed).bit_count() < size - 1:
                allowed &= ~(1 << row)
                changed = True
    return _extended((), allowed, near, size=size)


def _extended(
    chosen: tuple[int, ...], candidates: int, near: list[int], *, size: int
) -> tuple[int, ...] | None:
    """``chosen`` completed from ``candidates`` (rows near all chosen ones), or None."""
    missing = size - len(chosen)
    if missing == 0:
        return chosen
    while candidates.bit_count() >= missing:
        lowest = candidates & -candidates
        row = lowest.bit_length() - 1
        candidates &= ~lowest
        found = _extended((*chosen, row), candidates & near[row], near, size=size)
        if found is not None:
            return found
    return None


def _chunks_of_subsets(n: int, size: int) -> Iterator[NDArray[np.int16]]:
    """All subsets in lexicographic order, some thousands at a time."""
    subsets = combinations(range(n), size)
    while chunk := list(islice(subsets, SUBSETS_AT_ONCE)):
        yield np.array(chunk, dtype=np.int16)


def _square(matrix: ArrayLike, name: str) -> NDArray[np.float64]:
    """The matrix as contiguous float64, checked."""
    checked = in_one_piece(real_numbers(name, matrix))
    if checked.ndim != 2 or checked.shape[0] != checked.shape[1]:  # noqa: PLR2004 - a matrix
        raise InvalidInput(f"{name} must be [n, n], not {list(checked.shape)}")
    _require_finite(checked, name)
    return checked


def _require_finite(values: NDArray[Any], name: str) -> None:
    if not np.isfinite(values).all():
        raise InvalidInput(f"{name} holds NaN or infinity: drop such rows before")


def _require_room(values: NDArray[Any], name: str) -> None:
    """Refuse what would overflow on the way: no sum here is above 4 k * k times the largest entry.

    Infinity there is no eigenvalue, and NaN would turn for ever.
    """
    most = np.finfo(np.float64).max / (4 * max(values.shape[-1], 1) ** 2)
    if np.abs(values).max(initial=0.0) > most:
        raise InvalidInput(
            f"{name} holds entries above {most:.1e} in size, whose sums overflow: multiply it by"
            " 2.0**-100, which is exact, and the eigenvalues by 2.0**100"
        )


def _required_size(size: int, n: int) -> int:
    number = whole_number("size", size)
    if not 1 <= number <= n:
        raise InvalidInput(f"size must be 1 to {n} (the rows there are), not {number}")
    return number


def _require_converged(converged: bool, sweeps: int) -> None:
    if not converged:
        raise KernelError(f"Jacobi needs more than {sweeps} sweeps: raise `sweeps`")
