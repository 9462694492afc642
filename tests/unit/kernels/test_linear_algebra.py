"""Eigenvalues, distances and subsets: right, and the same bits on every path and in any batch."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    InvalidInput,
    KernelError,
    jacobi_eigen,
    smallest_diameter_subset,
    squared_distances,
    top_eigenvalues_of_subsets,
)
from support.denormals import flushed_denormals
from support.kernel_paths import COMPILED, EVERY_PATH, on_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = (1, 2, 3, 5, 11, 16, 33, 64)


def symmetric(size: int, *, count: int = 12) -> NDArray[np.float64]:
    """Random matrices and such as break eigenvalue code."""
    random = np.random.default_rng(size)
    matrices = random.standard_normal((count, size, size))
    matrices = matrices + matrices.transpose(0, 2, 1)
    thin = random.standard_normal((size, 2))
    matrices[0] = 0.0
    matrices[1] = 1.0
    matrices[2] = np.eye(size) * 3.0
    matrices[3] *= 1e-280
    matrices[4] *= 1e250
    matrices[5] = thin @ thin.T
    matrices[6] = np.diag(10.0 ** random.integers(-200, 200, size))
    matrices[7] = np.diag(np.repeat([2.0, -1.0], size)[:size]) + 1e-18
    return matrices


def gram_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([[float(np.sum(x * y)) for x in points] for y in points])


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("size", SIZES)
def test_eigenvalues_and_vectors_are_lapacks(isa: str, size: int) -> None:
    matrices = symmetric(size)
    with on_path(isa):
        values, vectors = jacobi_eigen(matrices, vectors=True)
    scale = np.abs(np.linalg.eigvalsh(matrices)).max(axis=1)[:, None]
    assert (np.diff(values, axis=1) >= 0.0).all()
    assert (np.abs(values - np.linalg.eigvalsh(matrices)) <= 1e-12 * scale).all()
    for matrix, ascending, columns in zip(matrices, values, vectors, strict=True):
        np.testing.assert_allclose(columns.T @ columns, np.eye(size), atol=1e-12)
        gap = matrix @ columns - columns * ascending
        assert np.abs(gap).max() <= 1e-12 * max(np.abs(ascending).max(), 1e-300)


@pytest.mark.parametrize("size", SIZES)
def test_every_path_gives_the_same_bits(size: int) -> None:
    matrices = symmetric(size, count=13)  # the last lot is not full
    with on_path("numpy"):
        values, vectors = jacobi_eigen(matrices, vectors=True)
    for isa in COMPILED:
        with on_path(isa):
            result = jacobi_eigen(matrices, vectors=True)
            alone = jacobi_eigen(matrices)
        assert result[0].tobytes() == alone.tobytes() == values.tobytes(), isa
        assert result[1].tobytes() == vectors.tobytes(), isa


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_matrix_of_a_batch_gets_the_bits_that_it_gets_alone(isa: str) -> None:
    matrices = symmetric(7)
    with on_path(isa):
        together = jacobi_eigen(matrices)
        apart = np.array([jacobi_eigen(matrix) for matrix in matrices])
    assert apart.tobytes() == together.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_the_input_stays_as_it_was(isa: str) -> None:
    matrix = symmetric(5)[-1]
    before = matrix.copy()
    with on_path(isa):
        jacobi_eigen(matrix, vectors=True)
        squared_distances(matrix)
        top_eigenvalues_of_subsets(matrix, size=3)
    assert np.array_equal(matrix, before)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_flushed_denormals_of_the_caller_change_no_bit(isa: str) -> None:
    matrix = symmetric(6)[-1] * 1e-308
    with on_path(isa):
        expected = jacobi_eigen(matrix)
    with on_path(isa), flushed_denormals():
        result = jacobi_eigen(matrix)
    assert result.tobytes() == expected.tobytes()
    assert (expected != 0.0).all()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_too_few_sweeps_are_said(isa: str) -> None:
    with on_path(isa), pytest.raises(KernelError, match="more than 1 sweeps"):
        jacobi_eigen(symmetric(8)[-1], sweeps=1)


@pytest.mark.parametrize("matrix", [np.zeros((2, 3)), np.zeros(4), np.full((2, 2), np.nan)])
def test_matrices_that_have_no_eigenvalues_are_refused(matrix: Any) -> None:
    with pytest.raises(InvalidInput, match="matrices"):
        jacobi_eigen(matrix)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_entries_whose_sums_overflow_are_refused_with_what_helps(isa: str) -> None:
    matrix = np.array([[1e308, 1e308], [1e308, -1e308]])
    with on_path(isa):
        with pytest.raises(InvalidInput, match=r"matrices holds entries above 1\.1e\+307"):
            jacobi_eigen(matrix)
        helped = jacobi_eigen(matrix * 2.0**-100)
        with pytest.raises(InvalidInput, match="gram holds entries above"):
            top_eigenvalues_of_subsets(np.full((3, 3), 1e307), size=3)
    np.testing.assert_allclose(helped, np.array([-1e308, 1e308]) * 2.0**-100 * np.sqrt(2.0))


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_distance_whose_terms_overflow_is_no_zero(isa: str) -> None:
    with on_path(isa):
        near = squared_distances([[1.7e308, 1e308], [1e308, 1.7e308]])
        far = squared_distances([[1.7e308, -1e308], [-1e308, 1.7e308]])
    np.testing.assert_allclose(near, [[0.0, 1.4e308], [1.4e308, 0.0]], rtol=1e-15)
    assert far.tolist() == [[0.0, np.inf], [np.inf, 0.0]]


def test_distances_are_clipped_and_zero_to_oneself() -> None:
    points = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    expected = [[0.0, 25.0, 25.0], [25.0, 0.0, 0.0], [25.0, 0.0, 0.0]]
    assert squared_distances(gram_of(points)).tolist() == expected
    rounded = np.array([[1.0, 1.0 + 1e-15], [1.0 + 1e-15, 1.0]])
    assert squared_distances(rounded).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize(("n", "size"), [(1, 1), (5, 1), (6, 4), (7, 7), (9, 2), (16, 11)])
def test_the_covariance_of_every_subset(isa: str, n: int, size: int) -> None:
    random = np.random.default_rng(n)
    points = random.standard_normal((n, 20)) + 3.0
    with on_path(isa):
        subsets, values = top_eigenvalues_of_subsets(gram_of(points), size=size)
    everything = list(combinations(range(n), size))
    assert [tuple(subset) for subset in subsets.tolist()] == everything
    for index in random.choice(len(everything), min(100, len(everything)), replace=False):
        moved = points[list(everything[index])]
        moved = moved - moved.mean(axis=0)
        expected = np.linalg.eigvalsh(moved @ moved.T / size)[-1]
        assert values[index] == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("isa", COMPILED)
def test_subsets_get_the_same_bits_on_every_path(isa: str) -> None:
    random = np.random.default_rng(3)
    gram = gram_of(random.standard_normal((13, 40)) * 10.0 ** random.uniform(-3, 3, (13, 1)))
    for size in (1, 2, 6, 12, 13):
        with on_path("numpy"):
            expected = top_eigenvalues_of_subsets(gram, size=size)[1]
        with on_path(isa):
            assert top_eigenvalues_of_subsets(gram, size=size)[1].tobytes() == expected.tobytes()


def test_equal_rows_have_no_covariance() -> None:
    _, values = top_eigenvalues_of_subsets(np.full((5, 5), 7.0), size=3)
    assert values.tolist() == [0.0] * 10


def by_enumeration(distances: NDArray[np.float64], size: int) -> tuple[int, ...]:
    def diameter(subset: tuple[int, ...]) -> float:
        return max((float(distances[i, j]) for i, j in combinations(subset, 2)), default=0.0)

    return min(combinations(range(len(distances)), size), key=diameter)  # the first of equals


@pytest.mark.parametrize("seed", range(30))
def test_the_smallest_diameter_is_found_and_ties_go_to_the_first(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 11))
    distances = random.integers(0, 3 + seed, (n, n)).astype(np.float64)  # many ties
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    for size in range(1, n + 1):
        expected = by_enumeration(distances, size)
        assert smallest_diameter_subset(distances, size=size) == expected
        assert smallest_diameter_subset(distances**2, size=size) == expected


def test_sixteen_rows_with_five_far_away() -> None:
    random = np.random.default_rng(4)
    points = random.standard_normal((16, 30))
    points[[0, 3, 8, 9, 15]] += 50.0
    distances = squared_distances(gram_of(points))
    chosen = smallest_diameter_subset(distances, size=11)
    assert chosen == (1, 2, 4, 5, 6, 7, 10, 11, 12, 13, 14)


@pytest.mark.parametrize("size", [0, 4])
def test_sizes_that_cannot_be_are_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match="size must be 1 to 3"):
        smallest_diameter_subset(np.zeros((3, 3)), size=size)
    with pytest.raises(InvalidInput, match="size must be 1 to 3"):
        top_eigenvalues_of_subsets(np.zeros((3, 3)), size=size)


def test_distances_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InvalidInput, match="distances"):
        smallest_diameter_subset(np.array([[0.0, np.nan], [np.nan, 0.0]]), size=1)
