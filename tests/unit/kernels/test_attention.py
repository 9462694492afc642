"""Attention: right, one table of who does the work, and the same bits on every path of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import (
    InvalidInput,
    NonFiniteInput,
    attention,
    decode_attention,
    fast_attention,
    libraries,
    prefill,
)
from support.kernel_paths import COMPILED, EVERY_PATH, on_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

# batch, heads, key heads, queries, keys, features
DECODE = [(1, 8, 8, 1, 16, 64), (2, 4, 2, 1, 77, 40), (1, 2, 1, 1, 65, 100), (1, 1, 1, 1, 1, 3)]
PREFILL = [(1, 2, 2, 64, 64, 64), (2, 4, 2, 77, 77, 40), (1, 1, 1, 33, 33, 3), (1, 2, 2, 1, 9, 8)]
Shape = tuple[int, int, int, int, int, int]


def operands(shape: Shape, *, seed: int = 0) -> list[NDArray[np.float32]]:
    batch, heads, key_heads, queries, keys, features = shape
    random = np.random.default_rng(seed)
    return [
        random.standard_normal((batch, count, length, features)).astype(np.float32)
        for count, length in ((heads, queries), (key_heads, keys), (key_heads, keys))
    ]


def in_double(q: Any, k: Any, v: Any, *, causal: bool = False) -> NDArray[np.float64]:
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(a.astype(np.float64), group, axis=1) for a in (k, v))
    scores = q.astype(np.float64) @ k.swapaxes(2, 3) / np.sqrt(q.shape[3])
    if causal and q.shape[2] > 1:
        scores[..., ~np.tri(*scores.shape[2:], dtype=bool)] = -np.inf
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = powers @ v / powers.sum(axis=-1, keepdims=True)
    return result


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("shape", DECODE)
def test_one_query_over_a_cache(isa: str, shape: Shape) -> None:
    q, k, v = operands(shape)
    with on_path(isa):
        result = decode_attention(q, k, v)
    np.testing.assert_allclose(result, in_double(q, k, v), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("shape", PREFILL)
@pytest.mark.parametrize("causal", [True, False])
def test_a_prompt(isa: str, shape: Shape, *, causal: bool) -> None:
    q, k, v = operands(shape)
    with on_path(isa):
        result = prefill(q, k, v, causal=causal)
    np.testing.assert_allclose(result, in_double(q, k, v, causal=causal), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("shape", [*DECODE, (1, 4, 4, 1, 1025, 64)])
def test_decoding_has_the_same_bits_on_every_path(isa: str, shape: Shape) -> None:
    q, k, v = operands(shape, seed=shape[4])
    with on_path("numpy"):
        expected = decode_attention(q, k, v, scale=0.3)
    for threads in (1, 2):
        with on_path(isa):
            result = decode_attention(q, k, v, scale=0.3, threads=threads)
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", COMPILED)
@pytest.mark.parametrize("shape", PREFILL)
@pytest.mark.parametrize("causal", [True, False])
def test_prompts_have_the_same_bits_on_every_path(isa: str, shape: Shape, *, causal: bool) -> None:
    q, k, v = operands(shape, seed=shape[4])
    with on_path("numpy"):
        expected = prefill(q, k, v, causal=causal)
    for threads in (1, 3):
        with on_path(isa):
            result = prefill(q, k, v, causal=causal, threads=threads)
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", COMPILED)
def test_fast_attention_of_one_query_has_the_same_bits_on_every_path(isa: str) -> None:
    q, k, v = operands((1, 2, 2, 1, 40, 24))
    with on_path("numpy"):
        expected = fast_attention(q, k, v, causal=True)
    with on_path(isa):
        assert fast_attention(q, k, v, causal=True).tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", COMPILED)
def test_a_cache_too_large_for_the_processor_gives_the_same_bits(isa: str) -> None:
    q, k, v = operands((1, 2, 2, 1, 10_000, 64))  # fetched ahead, unlike small ones
    with on_path("numpy"):
        expected = decode_attention(q, k, v)
    with on_path(isa):
        assert decode_attention(q, k, v, threads=1).tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", COMPILED)
def test_flushed_denormals_of_the_caller_change_no_bit(isa: str) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = operands((1, 2, 2, 1, 40, 24))
    tiny = v * np.float32(1e-39)
    with on_path(isa):
        expected = decode_attention(q, k, tiny)
        torch.set_flush_denormal(True)
        try:
            result = decode_attention(q, k, tiny)
        finally:
            torch.set_flush_denormal(False)
    assert expected.any()
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_a_slice_of_a_longer_cache_is_taken_where_it_lies(isa: str) -> None:
    q, k, v = operands((2, 4, 2, 1, 50, 32))
    with on_path(isa):
        expected = decode_attention(q, k[:, :, :20].copy(), v[:, :, :20].copy())
        assert decode_attention(q, k[:, :, :20], v[:, :, :20]).tobytes() == expected.tobytes()
        # [batch, keys, heads, features] as some caches are laid out, and backwards.
        turned = np.ascontiguousarray(k.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
        assert decode_attention(q, turned[:, :, :20], v[:, :, :20]).tobytes() == expected.tobytes()
        mirrored = np.ascontiguousarray(k[..., ::-1])[..., ::-1]
        result = decode_attention(q, mirrored[:, :, :20], v[:, :, :20])
        assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
def test_leading_axes_may_be_left_out(isa: str) -> None:
    q, k, v = operands((1, 1, 1, 6, 6, 8))
    with on_path(isa):
        expected = fast_attention(q, k, v, causal=True)
        assert fast_attention(q[0], k[0], v[0], causal=True).tobytes() == expected.tobytes()
        flat = fast_attention(q[0, 0], k[0, 0], v[0, 0], causal=True)
    assert flat.shape == (6, 8)
    assert flat.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 40, 300])
def test_whoever_does_the_work_the_result_is_right(
    isa: str, length: int, monkeypatch: pytest.MonkeyPatch, *, installed: bool, causal: bool
) -> None:
    if installed:
        pytest.importorskip("torch")
    else:
        monkeypatch.setattr(libraries, "torch", lambda: None)
    q, k, v = operands((1, 4, 2, length, length, 16))
    with on_path(isa):
        result = fast_attention(q, k, v, causal=causal)
    np.testing.assert_allclose(result, in_double(q, k, v, causal=causal), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("causal", "length", "installed", "ours"),
    [
        (True, 100, True, True),
        (True, 1025, True, False),
        (False, 100, True, False),
        (False, 100, False, True),
        (False, 40, True, True),
        (False, 1100, False, False),
    ],
)
def test_the_table_says_who_does_the_work(
    length: int, monkeypatch: pytest.MonkeyPatch, *, causal: bool, installed: bool, ours: bool
) -> None:
    called: list[str] = []
    for name in ("_own", "_library"):
        monkeypatch.setattr(attention, name, lambda *_, name=name, **__: called.append(name))
    monkeypatch.setattr(libraries, "torch", lambda: object() if installed else None)
    q = np.zeros((1, 1, length, 4), dtype=np.float32)
    with on_path("avx512"):
        fast_attention(q, q, q, causal=causal)
    assert called == ["_own" if ours else "_library"]


@pytest.mark.parametrize("isa", EVERY_PATH)
@pytest.mark.parametrize("place", ["q", "k", "v"])
@pytest.mark.parametrize("queries", [1, 5])
def test_what_is_not_finite_is_refused_with_batch_and_head(
    isa: str, place: str, queries: int
) -> None:
    named = dict(zip("qkv", operands((2, 3, 3, queries, 5, 7)), strict=True))
    named[place][1, 2, 0, 3] = np.nan
    with on_path(isa), pytest.raises(NonFiniteInput) as caught:
        (decode_attention if queries == 1 else prefill)(*named.values())
    assert caught.value.rows == (5,)


Q = np.zeros((1, 4, 3, 8), dtype=np.float32)
ONE = Q[:, :, :1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fast_attention([1.0], Q, Q), "list; NumPy arrays"),
        (lambda: fast_attention(Q.astype(np.float64), Q, Q), "q: float64"),
        (lambda: fast_attention(Q, Q[0], Q), "k: float32"),
        (lambda: fast_attention(Q, Q, Q[:, :, :2]), "k, v: shapes"),
        (lambda: fast_attention(Q, Q[..., :4], Q[..., :4]), "features of q's"),
        (lambda: fast_attention(Q, Q[:, :3], Q[:, :3]), "3 heads do not divide q's 4"),
        (lambda: fast_attention(ONE, Q[:, :, :0], Q[:, :, :0]), "at least one key"),
        (lambda: fast_attention(Q[:, :, :2], Q, Q, causal=True), "2 queries over 3 keys"),
        (lambda: fast_attention(Q[0, 0, 0], Q[0, 0, 0], Q[0, 0, 0]), "2 to 4 axes"),
        (lambda: decode_attention(Q, Q, Q), "takes one query"),
        (lambda: decode_attention(ONE, Q, Q, threads=0), "threads=0"),
    ],
)
def test_operands_that_do_not_fit_are_refused(call: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        call()
