"""Gram matrix, dot products and eigenvalues on random calls: NumPy's bits on every path.

`CABILDO_FUZZ_CASES` says how many comparisons (100,000 unless set): each call runs on every path.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    KernelError,
    dots,
    gram,
    jacobi_eigen,
    squared_distances,
    top_eigenvalues_of_subsets,
)
from support.column_cases import EDGES, KINDS, LARGE, laid_out, values
from support.kernel_paths import COMPILED, on_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CASES = int(os.environ.get("CABILDO_FUZZ_CASES", "100000"))
CHUNKS = 16

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def rows_call(random: np.random.Generator, *, large: bool) -> Callable[[], Any]:
    """Return one call of `gram` or `dots`, ready to be made again."""
    most = 65 if random.random() < 0.1 and not large else 13
    n = int(random.integers(1, most))
    columns = int(random.choice(LARGE if large else EDGES))

    def vector(kind: str) -> NDArray[Any]:
        placed: NDArray[Any] = laid_out(random, values(random, columns, kind=kind))
        return placed

    kinds = tuple(str(kind) for kind in random.choice(KINDS, n))
    options: dict[str, Any] = {"dtype": kinds, "threads": int(random.integers(1, 4))}
    rows = tuple(vector(kind) for kind in kinds)
    if random.random() < 0.5:
        options["base"] = vector(str(random.choice(KINDS)))
    if random.random() < 0.3:
        options["initial"] = random.standard_normal((n, n))
        return lambda: gram(rows, **options)
    if random.random() < 0.5:
        other = vector(str(random.choice(KINDS)))
        return lambda: dots(rows, other, **options)
    return lambda: gram(rows, **options)


def matrix_call(random: np.random.Generator) -> Callable[[], Any]:
    """Return one call on small matrices, from nothing to badly scaled ones."""
    k = int(random.integers(1, 10))
    points = random.standard_normal((k, int(random.integers(1, 12))))
    points = points * 10.0 ** random.uniform(-60, 60, (k, 1))
    points[random.random(points.shape) < 0.2] = 0.0
    matrix = points @ points.T
    matrix = np.triu(matrix) + np.triu(matrix, 1).T
    choice = random.integers(0, 3)
    size = int(random.integers(1, k + 1))
    if choice == 0:
        return lambda: np.concatenate([np.ravel(x) for x in jacobi_eigen(matrix, vectors=True)])
    if choice == 1:
        return lambda: top_eigenvalues_of_subsets(matrix, size=size)[1]
    return lambda: squared_distances(matrix)


def outcome(call: Callable[[], Any]) -> bytes | str:
    """The bits of the result, or what was refused: the same rows on every path."""
    try:
        result: bytes = call().tobytes()
    except KernelError as error:
        return str(error)
    return result


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_calls_give_the_bits_of_numpy(chunk: int) -> None:
    random = np.random.default_rng([2028, chunk])
    for index in range(CASES // CHUNKS // len(COMPILED) + 1):
        large = index % 200 == 199
        call = matrix_call(random) if index % 4 == 3 else rows_call(random, large=large)
        with on_path("numpy"):
            expected = outcome(call)
        for isa in COMPILED:
            with on_path(isa):
                assert outcome(call) == expected, (chunk, index, isa)
