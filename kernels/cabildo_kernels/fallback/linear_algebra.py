"""Small dense linear algebra in NumPy, many matrices at once: the definition of the bits.

Here: cyclic Jacobi and the covariance of subsets, with + - * / and square root only, element by
element over the last axis (the matrices of the batch), so that each matrix gets the bits that it
would get alone and that the compiled code gives. Never here: LAPACK, BLAS, or a NumPy reduction
(their order is not ours). :mod:`cabildo_kernels.linear_algebra` is the face of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cabildo_kernels.fallback.floating_point import default_environment

if TYPE_CHECKING:
    from numpy.typing import NDArray


def squared_distances(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(g_ii + g_jj) - 2 g_ij``, not below zero, zero on the diagonal."""
    squares = np.diagonal(gram)
    with default_environment():
        distances = (squares[:, None] + squares[None, :]) - 2.0 * gram
        if not np.isfinite(distances).all():  # infinity less infinity is NaN: once more, halved
            halves = 0.5 * squares
            doubled = 2.0 * ((halves[:, None] + halves[None, :]) - gram)
            distances = np.where(np.isfinite(distances), distances, doubled)
        distances = np.where(distances > 0.0, distances, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def eigen(
    matrices: NDArray[np.float64], *, vectors: bool, sweeps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, bool]:
    """Eigenvalues ascending ``[m, k]``, vectors as columns ``[m, k, k]``, and convergence."""
    count, k, _ = matrices.shape
    work = np.array(matrices.transpose(1, 2, 0), order="C")  # a copy, always
    turned = None
    if vectors:
        turned = np.zeros((k, k, count))
        turned[np.arange(k), np.arange(k)] = 1.0
    with default_environment():
        converged = jacobi(work, turned, sweeps=sweeps)
        values = work[np.arange(k), np.arange(k)].T + 0.0  # [m, k], -0.0 to +0.0
        turned = None if turned is None else turned + 0.0
        order = np.argsort(values, axis=1, kind="stable")  # flushed denormals would be equal
    values = np.take_along_axis(values, order, axis=1)
    if turned is None:
        return values, None, converged
    columns = np.take_along_axis(turned.transpose(2, 0, 1), order[:, None, :], axis=2)
    return values, columns, converged


def top_of_subsets(
    gram: NDArray[np.float64], subsets: NDArray[np.int16], *, sweeps: int
) -> tuple[NDArray[np.float64], bool]:
    """Largest covariance eigenvalue of each subset of rows ``[m]``, and convergence."""
    size = subsets.shape[1]
    with default_environment():
        work = subset_covariances(gram, subsets)
        converged = jacobi(work, None, sweeps=sweeps)
        top = np.zeros(len(subsets))  # a covariance has no negative eigenvalue: rounding only
        for i in range(size):
            top = np.where(work[i, i] > top, work[i, i], top)
        return top / float(size), converged


def jacobi(
    matrices: NDArray[np.float64], vectors: NDArray[np.float64] | None, *, sweeps: int
) -> bool:
    """Diagonalise ``matrices`` in place; the upper triangle is read and written.

    Args:
        matrices: ``[k, k, m]``, the batch last; afterwards the diagonals hold the eigenvalues,
            unsorted.
        vectors: ``[k, k, m]`` identities to be rotated along, or None.
        sweeps: The most sweeps over all pairs.

    Returns:
        Whether every matrix came to a sweep without a rotation.
    """
    k = matrices.shape[0]
    for _ in range(sweeps):
        rotated = False
        for p in range(k - 1):
            for q in range(p + 1, k):
                rotated |= _rotate(matrices, vectors, p=p, q=q)
        if not rotated:
            return True
    return bool(k == 1)  # one entry is its own eigenvalue


def _rotate(a: NDArray[np.float64], vectors: NDArray[np.float64] | None, *, p: int, q: int) -> bool:
    """One rotation of every matrix where entry (p, q) still matters; whether there was one."""
    entry, app, aqq = a[p, q].copy(), a[p, p].copy(), a[q, q].copy()
    size = np.abs(entry)
    negligible = (np.abs(app) + size == np.abs(app)) & (np.abs(aqq) + size == np.abs(aqq))
    a[p, q] = 0.0
    if negligible.all():
        return False
    theta = (aqq - app) / (entry + entry)
    root = np.sqrt(theta * theta + 1.0)
    tangent = np.where(theta < 0.0, -1.0, 1.0) / (np.abs(theta) + root)
    tangent = np.where(negligible, 0.0, tangent)
    cosine = 1.0 / np.sqrt(tangent * tangent + 1.0)
    sine = tangent * cosine
    tau = sine / (cosine + 1.0)
    shift = np.where(negligible, 0.0, tangent * entry)
    a[p, p] = app - shift
    a[q, q] = aqq + shift
    k = a.shape[0]
    _turn(a[:p, p], a[:p, q], sine=sine, tau=tau)
    _turn(a[p, p + 1 : q], a[p + 1 : q, q], sine=sine, tau=tau)
    _turn(a[p, q + 1 : k], a[q, q + 1 : k], sine=sine, tau=tau)
    if vectors is not None:
        _turn(vectors[:, p], vectors[:, q], sine=sine, tau=tau)
    return True


def _turn(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    sine: NDArray[np.float64],
    tau: NDArray[np.float64],
) -> None:
    """Rotate the plane of x and y: views ``[rows, m]``, written in place."""
    old_x, old_y = x.copy(), y.copy()
    x[...] = old_x - sine * (old_y + old_x * tau)
    y[...] = old_y + sine * (old_x - old_y * tau)


def subset_covariances(
    gram: NDArray[np.float64], subsets: NDArray[np.int16]
) -> NDArray[np.float64]:
    """Centred Gram matrix of each subset of rows, times its size, batch last: ``[s, s, m]``.

    Its eigenvalues, divided by the size, are those of the subset's covariance in R^d.
    """
    count, size = subsets.shape
    picked = np.empty((size, size, count))
    for i in range(size):
        for j in range(size):
            picked[i, j] = gram[subsets[:, i], subsets[:, j]]
    means = np.empty((size, count))
    total = np.zeros(count)
    for i in range(size):
        row = np.zeros(count)
        for j in range(size):
            row = row + picked[i, j]
        total = total + row
        means[i] = row / float(size)
    grand = total / float(size * size)
    for i in range(size):
        for j in range(size):
            picked[i, j] = ((picked[i, j] - means[i]) - means[j]) + grand
    return picked
