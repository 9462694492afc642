"""moe_topk: right, ties to the lower index, masks, refusals, and the same bits on every path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cabildo_kernels import InvalidInput, NonFiniteInput, moe_topk
from support.kernel_paths import COMPILED, EVERY_PATH, on_path

SHAPES = [(1, 1, 1), (5, 8, 2), (16, 8, 1), (33, 13, 5), (40, 64, 2), (17, 64, 8), (3, 6, 6)]


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize(("tokens", "experts", "k"), SHAPES)
def test_weights_are_the_softmax_of_the_largest_logits(
    isa: str, tokens: int, experts: int, k: int
) -> None:
    logits = np.random.default_rng(0).standard_normal((tokens, experts)).astype(np.float32)
    with on_path(isa):
        weights, indices = moe_topk(logits, k)
    powers = np.exp(logits.astype(np.float64))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = np.argsort(-logits, axis=1)[:, :k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(
        weights, np.take_along_axis(probabilities, expected, axis=1), rtol=2e-6
    )


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize(("tokens", "experts", "k"), SHAPES)
@pytest.mark.parametrize("renormalise", [False, True])
def test_every_path_and_thread_count_gives_the_same_bits(
    isa: str, tokens: int, experts: int, k: int, *, renormalise: bool
) -> None:
    random = np.random.default_rng(tokens)
    logits = np.round(random.standard_normal((tokens, experts)) * 4).astype(np.float32)  # ties
    with on_path("numpy"):
        expected = moe_topk(logits, k, renormalise=renormalise)
    for threads in (1, 2):
        with on_path(isa):
            result = moe_topk(logits, k, renormalise=renormalise, threads=threads)
        assert result.weights.tobytes() == expected.weights.tobytes()
        assert result.indices.tobytes() == expected.indices.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_equal_logits_stand_by_index(isa: str, k: int) -> None:
    logits = np.array([[1, 3, 3, 3, 1], [2, 2, 2, 2, 2]], dtype=np.float32)
    with on_path(isa):
        indices = moe_topk(logits, k).indices
    assert indices.tolist() == [[1, 2, 3][:k], [0, 1, 2][:k]]


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_logits_whose_weights_round_alike_stand_in_their_own_order(isa: str) -> None:
    logits = np.array([[0.0, np.nextafter(np.float32(0), np.float32(1))]], dtype=np.float32)
    with on_path(isa):
        weights, indices = moe_topk(logits, 2)
    assert weights.tolist() == [[0.5, 0.5]]
    assert indices.tolist() == [[1, 0]]


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_masked_experts_are_never_chosen(isa: str) -> None:
    logits = np.array([[-np.inf, 0.0, -np.inf, 0.0]], dtype=np.float32)
    with on_path(isa):
        weights, indices = moe_topk(logits, 2)
        with pytest.raises(InvalidInput, match=r"k=3 experts are not masked.*token 0"):
            moe_topk(logits, 3)
    assert weights.tolist() == [[0.5, 0.5]]
    assert indices.tolist() == [[1, 3]]


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_their_tokens(isa: str, k: int, value: float) -> None:
    logits = np.zeros((20, 5), dtype=np.float32)
    logits[[3, 18], [4, 0]] = value
    with on_path(isa), pytest.raises(NonFiniteInput) as caught:
        moe_topk(logits, k)
    assert caught.value.rows == (3, 18)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_renormalised_weights_add_up_to_one(isa: str) -> None:
    logits = np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)
    with on_path(isa):
        weights = moe_topk(logits, 3, renormalise=True).weights
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_no_tokens_have_no_experts(isa: str) -> None:
    with on_path(isa):
        weights, indices = moe_topk(np.empty((0, 4), dtype=np.float32), 2)
    assert weights.shape == indices.shape == (0, 2)


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_rows_with_gaps_are_taken(isa: str) -> None:
    wide = np.random.default_rng(2).standard_normal((12, 16)).astype(np.float32)
    with on_path(isa):
        expected = moe_topk(np.ascontiguousarray(wide[::2, ::2]), 2)
        result = moe_topk(wide[::2, ::2], 2)
    assert result.weights.tobytes() == expected.weights.tobytes()


@pytest.mark.parametrize(
    ("logits", "k", "said"),
    [
        (np.ones((2, 4)), 1, "logits: float64"),
        (np.ones(4, np.float32), 1, r"logits: float32\(4,\)"),
        ([[1.0]], 1, "list"),
        (np.ones((2, 4), np.float32), 5, "k=5: 1 to the 4 experts"),
        (np.ones((2, 4), np.float32), 0, "k=0"),
        (np.ones((2, 0), np.float32), 1, "0 experts"),
    ],
)
def test_what_is_no_routing_is_refused(logits: Any, k: int, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        moe_topk(logits, k)
