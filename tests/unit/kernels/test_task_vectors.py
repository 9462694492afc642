"""Task vectors: exact selection, and every compiled path equal to NumPy bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cabildo_kernels as kernels
from cabildo_kernels import dispatch
from cabildo_kernels.task_vectors import (
    EVERYTHING,
    FIRST_NON_FINITE,
    NOTHING,
    combine_task_vectors,
    magnitude_counts,
)
from support.denormals import denormals_flushed, flushed_denormals
from support.kernel_paths import COMPILED, EVERY_PATH, on_path
from support.task_vector_cases import random_case, results


@pytest.mark.parametrize("isa", COMPILED)
def test_every_path_gives_the_bits_of_numpy(isa: str) -> None:
    random = np.random.default_rng(8)
    for index in range(120):
        case = random_case(random, columns=2 * 24_576 + 33 if index % 40 == 39 else None)
        with on_path(dispatch.FALLBACK):
            expected = results(case)
        with on_path(isa):
            for threads in (1, 3):
                assert results(case, threads=threads) == expected, index


def test_counts_add_up_over_pieces_and_show_what_is_not_finite() -> None:
    random = np.random.default_rng(3)
    row = random.normal(size=1000).astype(np.float32)
    row[[7, 600]] = [np.nan, -np.inf]
    whole = magnitude_counts(row)
    parts = magnitude_counts(row[300:], counts=magnitude_counts(row[:300]))
    assert np.array_equal(whole, parts)
    assert whole.sum() == 1000
    assert whole[FIRST_NON_FINITE:].sum() == 2


def test_a_task_vector_sum_is_the_closed_form() -> None:
    random = np.random.default_rng(4)
    base = random.normal(size=200).astype(np.float32)
    rows = [(base + random.normal(size=200)).astype(np.float32) for _ in range(3)]
    weights = [0.5, -1.25, 3.0]
    expected = base.astype(np.float64)
    for weight, row in zip(weights, rows, strict=True):
        expected = expected + 0.7 * weight * (row - base).astype(np.float64)
    found = combine_task_vectors(rows, base, weights, scale=0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_the_vote_keeps_the_sign_of_larger_mass_and_divides_by_those_who_agree() -> None:
    base = np.zeros(4, dtype=np.float32)
    rows = [
        np.array(values, dtype=np.float32)
        for values in ([3.0, 1.0, 0.0, 1.0], [-1.0, 1.0, 0.0, -1.0], [-1.0, -3.0, 0.0, 0.0])
    ]
    mean = combine_task_vectors(rows, base, [1.0] * 3, elect="sum", normalize=True)
    assert mean.tolist() == [3.0, -3.0, 0.0, 1.0]  # a draw elects plus
    added = combine_task_vectors(rows, base, [1.0] * 3, elect="count")
    assert added.tolist() == [-2.0, 2.0, 0.0, 1.0]


def test_bounds_keep_the_ties_of_lowest_index_and_drop_the_largest() -> None:
    base = np.zeros(6, dtype=np.float32)
    row = np.array([2.0, -2.0, 5.0, 2.0, 1.0, -2.0], dtype=np.float32)
    two = int(np.float32(2.0).view(np.uint32))
    kept = combine_task_vectors([row], base, [1.0], keep=[(two, 4)])
    assert kept.tolist() == [2.0, -2.0, 5.0, 2.0, 0.0, 0.0]
    inner = combine_task_vectors([row], base, [1.0], keep=[(two, 4)], drop=[(two, 1)])
    assert inner.tolist() == [0.0, -2.0, 0.0, 2.0, 0.0, 0.0]
    later = combine_task_vectors([row], base, [1.0], keep=[(two, 4)], start=3)
    assert later.tolist() == [2.0, 0.0, 5.0, 0.0, 0.0, 0.0]
    assert combine_task_vectors([row], base, [1.0], keep=[NOTHING]).tolist() == [0.0] * 6
    assert combine_task_vectors([row], base, [1.0], keep=[EVERYTHING]).tolist() == row.tolist()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_rows_that_are_not_finite_are_named_and_a_base_is_refused(isa: str) -> None:
    base = np.zeros(100, dtype=np.float32)
    rows = [np.ones(100, dtype=np.float32) for _ in range(4)]
    rows[1][99], rows[3][0] = np.inf, np.nan
    with on_path(isa):
        with pytest.raises(kernels.NonFiniteInput) as caught:
            combine_task_vectors(rows, base, [1.0] * 4)
        assert caught.value.rows == (1, 3)
        far = np.full(100, -3e38, dtype=np.float32)
        with pytest.raises(kernels.NonFiniteInput) as caught:
            combine_task_vectors([far, -far], far, [1.0, 1.0])
        assert caught.value.rows == (1,)
        with pytest.raises(kernels.InvalidInput, match="base"):
            combine_task_vectors(rows[:1], rows[1], [1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elect": "loudest"}, "elect"),
        ({"out_dtype": "f64"}, "out_dtype"),
        ({"weights": [1.0]}, "weights"),
        ({"weights": [1.0, np.nan]}, "weights"),
        ({"votes": [1.0] * 3}, "votes"),
        ({"keep": [EVERYTHING]}, "keep"),
        ({"factors": [np.ones(8)]}, "factors"),
        ({"columns": np.ones(8)}, "columns"),
        ({"base": np.zeros(9, dtype=np.float32)}, "base"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(
    change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {
        "rows": [np.ones(8, dtype=np.float32)] * 2,
        "base": np.zeros(8, dtype=np.float32),
        "weights": [1.0, 1.0],
    } | change
    with pytest.raises(kernels.InvalidInput, match=message):
        combine_task_vectors(**given)
    with pytest.raises(kernels.InvalidInput, match="counts"):
        magnitude_counts(given["rows"][0], counts=np.zeros(3, dtype=np.uint64))


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_flushed_denormals_of_the_caller_change_no_bit(isa: str) -> None:
    random = np.random.default_rng(6)
    base = (random.normal(size=3000) * 1e-40).astype(np.float32)
    rows = [(base + random.normal(size=3000) * 1e-41).astype(np.float32) for _ in range(3)]

    def merged_and_counted() -> tuple[bytes, ...]:
        merged = combine_task_vectors(rows, base, [0.5, 1.0, 2.0], elect="sum", normalize=True)
        counts = magnitude_counts(rows[0], base)
        low = magnitude_counts(rows[0], base, prefix=int(counts.argmax()))
        return merged.tobytes(), counts.tobytes(), low.tobytes()

    with on_path(dispatch.FALLBACK):
        expected = merged_and_counted()
    with on_path(isa), flushed_denormals():
        found = merged_and_counted()
    assert found == expected
    assert not denormals_flushed()
