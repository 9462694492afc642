"""sparse_softmax: right, refused by name where it cannot be, and the same bits on every path."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import InvalidInput, NonFiniteInput, dispatch, sparse_softmax
from cabildo_kernels.fallback.lanes import exponential
from support.kernel_paths import COMPILED, EVERY_PATH, on_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

INFINITY = np.float32(np.inf)


def matrix(seed: int, *, rows: int = 60, longest: int = 70) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    sizes = random.integers(0, longest, rows)
    data = (random.standard_normal(sizes.sum()) * 10.0 ** random.uniform(-3, 2)).astype(np.float32)
    data[random.random(len(data)) < 0.1] = -INFINITY
    return data, np.concatenate([[0], np.cumsum(sizes)])


def in_double(data: NDArray[Any], indptr: NDArray[Any]) -> NDArray[np.float64]:
    result = np.zeros(len(data))
    for start, stop in itertools.pairwise(indptr):
        row = data[start:stop].astype(np.float64)
        if len(row) and row.max() > -np.inf:
            powers = np.exp(row - row.max())
            result[start:stop] = powers / powers.sum()
    return result


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_softmax_of_each_row(isa: str) -> None:
    data, indptr = matrix(1)
    with on_path(isa):
        result = sparse_softmax(data, indptr)
    np.testing.assert_allclose(result, in_double(data, indptr), rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("seed", range(20))
def test_every_path_and_thread_count_gives_the_same_bits(isa: str, seed: int) -> None:
    data, indptr = matrix(seed, longest=[20, 70, 400][seed % 3])
    with on_path("numpy"):
        expected = sparse_softmax(data, indptr)
    for threads in (1, 3):
        with on_path(isa):
            result = sparse_softmax(data, indptr, threads=threads)
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_masked_rows_are_zeros_and_empty_ones_no_result(isa: str) -> None:
    data = np.array([-INFINITY, -INFINITY, 1.0, -INFINITY], dtype=np.float32)
    with on_path(isa):
        result = sparse_softmax(data, np.array([0, 2, 2, 4], dtype=np.int32))
        nothing = sparse_softmax(data[:0], np.array([0]))
    assert result.tolist() == [0.0, 0.0, 1.0, 0.0]
    assert nothing.shape == (0,)


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("length", [3, 40])
def test_nan_and_infinity_are_refused_with_their_rows(isa: str, value: float, length: int) -> None:
    data = np.ones(4 * length, dtype=np.float32)
    data[[length + 1, 4 * length - 1]] = value
    with on_path(isa), pytest.raises(NonFiniteInput) as caught:
        sparse_softmax(data, np.arange(5) * length)
    assert caught.value.rows == (1, 3)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_result_may_replace_the_data(isa: str) -> None:
    data, indptr = matrix(3)
    with on_path(isa):
        expected = sparse_softmax(data, indptr)
        assert sparse_softmax(data, indptr, out=data) is data
    assert data.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("shift", [-17, -1, 0, 1, 17])
def test_result_may_overlap_the_data(isa: str, shift: int) -> None:
    memory = np.linspace(0, 5, 200, dtype=np.float32)
    data, out = memory[40:120], memory[40 + shift : 120 + shift]
    indptr = np.array([0, 20, 40, 80])
    with on_path(isa):
        expected = sparse_softmax(data.copy(), indptr)
        assert sparse_softmax(data, indptr, out=out) is out
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_result_may_overlap_the_starts_of_rows(isa: str) -> None:
    data, memory = np.linspace(0, 5, 160, dtype=np.float32), np.arange(80) * 4
    indptr = memory[:41]
    with on_path(isa):
        expected = sparse_softmax(data, indptr)
        found = sparse_softmax(data, indptr, out=memory.view(np.float32))
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("data", "indptr", "said"),
    [
        (np.ones(3), np.array([0, 3]), "data: float64"),
        (np.ones((3, 1), np.float32), np.array([0, 3]), "one axis"),
        ([1.0], np.array([0, 1]), "data: <class 'list'>"),
        (np.ones(3, np.float32), np.array([0.0, 3.0]), "indptr: float64"),
        (np.ones(3, np.float32), np.array([0, 2]), "0..2"),
        (np.ones(3, np.float32), np.array([1, 3]), "1..3"),
        (np.ones(3, np.float32), np.array([], dtype=np.int64), "nothing"),
        (np.ones(3, np.float32), np.array([0, 3, 1, 3]), "row 1 ends before"),
    ],
)
def test_what_is_no_csr_matrix_is_refused(data: Any, indptr: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        sparse_softmax(data, indptr)


def test_output_that_does_not_fit_is_refused() -> None:
    data, indptr = matrix(4)
    with pytest.raises(InvalidInput, match="out"):
        sparse_softmax(data, indptr, out=np.empty(len(data) + 1, dtype=np.float32))


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_exponential_is_within_one_unit_in_the_last_place(isa: str) -> None:
    random = np.random.default_rng(0)
    t = -random.random(1 << 18, dtype=np.float32) * np.float32(87.0)
    t[:3] = [0.0, -0.0, -87.0]
    with on_path(isa):
        native = dispatch.native("softmax")
        result = exponential(t)
        if native is not None:
            result = np.empty_like(t)
            native.exponentials(t, result, path=dispatch.path())
    exact = np.exp(t.astype(np.float64))
    units = np.abs(result - exact) / np.spacing(exact.astype(np.float32))
    assert units.max() < 1.0
    assert result[:2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_exponential_far_down_is_zero(isa: str) -> None:
    data = np.array([0.0, -87.1, -1e30, np.finfo(np.float32).min], dtype=np.float32)
    with on_path(isa):
        assert sparse_softmax(data, np.array([0, 4])).tolist() == [1.0, 0.0, 0.0, 0.0]
