"""The caller's rounding mode and flushed denormals change no bit of what the kernels compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    SUPERBLOCK,
    decode_attention,
    dots,
    gram,
    matmul,
    mean_around_median,
    median,
    moe_topk,
    prefill,
    smallest_diameter_subset,
    sparse_softmax,
    squared_distances,
    top_eigenvalues_of_subsets,
    trimmed_mean,
    weighted_sum,
)
from support.denormals import flushed_denormals
from support.kernel_paths import EVERY_PATH, on_path
from support.rounding import DIRECTIONS, rounding

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = 6 * SUPERBLOCK + 100  # several superblocks: their sums are added up at the end
RANDOM = np.random.default_rng(5)
ROWS = list(RANDOM.standard_normal((3, COLUMNS), dtype=np.float32))
SHORT = [row[:1000] for row in ROWS]
Q, K, V = RANDOM.standard_normal((3, 1, 2, 24, 40), dtype=np.float32)  # sqrt(40) is rounded
LOGITS = RANDOM.standard_normal((40, 20), dtype=np.float32)
INDPTR = np.array([0, 3, 40, 41, 200])
TINY = RANDOM.standard_normal((2, 16, 16), dtype=np.float32)

CALLS: dict[str, Callable[[], Any]] = {
    "gram": lambda: gram(ROWS),
    "gram with initial": lambda: gram(ROWS, initial=np.full((3, 3), 0.1)),
    "dots": lambda: dots(ROWS, ROWS[1], base=ROWS[2]),
    "weighted_sum": lambda: weighted_sum(SHORT, [0.1, 0.7, 1.3]),
    "median": lambda: median(SHORT[:2]),
    "trimmed_mean": lambda: trimmed_mean(SHORT, trim=0),
    "mean_around_median": lambda: mean_around_median(SHORT, keep=2),
    "decode_attention": lambda: decode_attention(Q[:, :, :1], K, V),
    "decode_attention with a scale": lambda: decode_attention(Q[:, :, :1], K, V, scale=0.1),
    "prefill": lambda: prefill(Q, K, V),
    "prefill of a strided array": lambda: prefill(Q[..., ::2], K[..., ::2], V[..., ::2]),
    "sparse_softmax": lambda: sparse_softmax(LOGITS.ravel()[:200], INDPTR),
    "moe_topk": lambda: moe_topk(LOGITS, 3),
    "matmul": lambda: matmul(*TINY),
    "squared_distances": lambda: squared_distances(np.array([[0.1, 0.3], [0.3, 0.7]])),
    "top_eigenvalues_of_subsets": lambda: top_eigenvalues_of_subsets(
        np.array([[0.1, 0.3, 0.2], [0.3, 0.7, 0.1], [0.2, 0.1, 0.3]]), size=2
    ),
}


def bits(result: Any) -> list[bytes]:
    return [array.tobytes() for array in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("name", CALLS)
def test_the_callers_rounding_mode_changes_no_bit(isa: str, name: str) -> None:
    with on_path("numpy"):
        expected = bits(CALLS[name]())
    with on_path(isa):
        for direction in DIRECTIONS:
            with rounding(direction):
                found = CALLS[name]()
            assert bits(found) == expected, direction


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_flushed_denormals_of_the_caller_do_not_reach_the_sum_over_superblocks(isa: str) -> None:
    zeros = [np.zeros(10, dtype=np.float32)] * 2
    with on_path(isa), flushed_denormals():
        products = gram(zeros, initial=np.full((2, 2), 1e-310))
        product = dots(zeros, zeros[0], initial=np.full(2, 1e-310))
    assert (products == 1e-310).all()
    assert (product == 1e-310).all()


def test_flushed_denormals_of_the_caller_make_no_two_distances_equal() -> None:
    distances = np.array([[0.0, 3e-310, 2e-310], [3e-310, 0.0, 1e-310], [2e-310, 1e-310, 0.0]])
    with flushed_denormals():
        assert smallest_diameter_subset(distances, size=2) == (1, 2)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_an_initial_in_fortran_order_is_added_to_and_left_as_it_was(isa: str) -> None:
    initial = np.asfortranarray(np.arange(9.0).reshape(3, 3))
    with on_path(isa):
        result = gram(SHORT, initial=initial)
        assert result.tobytes() == gram(SHORT, initial=initial.copy(order="C")).tobytes()
        assert result[0, 1] == gram(SHORT)[0, 1] + 1.0
    assert (initial == np.arange(9.0).reshape(3, 3)).all()
