"""The softmax family on random shapes, strides, alignments and extreme values: NumPy's bits.

`CABILDO_FUZZ_CASES` says how many cases (20,000 unless set); each runs on every compiled path.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import KernelError, decode_attention, moe_topk, prefill, sparse_softmax
from cabildo_kernels import matmul as product
from cabildo_kernels.fallback.products import small_matmul
from cabildo_kernels.products import OWN_AXIS
from support.kernel_paths import COMPILED, EVERY_PATH, on_path
from support.layouts import misaligned

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CASES = int(os.environ.get("CABILDO_FUZZ_CASES", "20000"))
EXTREMES = np.array(
    [0.0, -0.0, 1e-45, -1e-39, 1.2e-38, 87.0, -87.0, -104.0, 3e38, -3e38, -np.inf, np.inf, np.nan],
    dtype=np.float32,
)

pytestmark = pytest.mark.long


def at_random_byte(random: np.random.Generator, array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that starts anywhere, off its alignment three times of four."""
    return misaligned(array, offset=int(random.integers(0, 68)))


def values(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Return values of a random scale, sometimes with extremes, at a random byte."""
    size = int(np.prod(shape))
    array = at_random_byte(random, np.empty(size, dtype=np.float32))
    array[:] = random.standard_normal(size) * 10.0 ** random.uniform(-6, 4)
    if size and random.random() < 0.4:
        kinds = len(EXTREMES) if random.random() < 0.2 else len(EXTREMES) - 3
        places = random.integers(0, size, random.integers(1, 5))
        array[places] = EXTREMES[random.integers(0, kinds, len(places))]
    return array.reshape(shape)


def strided(random: np.random.Generator, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the same values, sometimes laid out otherwise."""
    kind = random.integers(0, 6)
    if kind == 0:
        wide = np.zeros((*array.shape[:-2], array.shape[-2] + 3, array.shape[-1]), np.float32)
        wide[..., : array.shape[-2], :] = array
        return wide[..., : array.shape[-2], :]
    if kind == 1:
        return np.asfortranarray(array)
    if kind == 2:
        return array[..., ::-1, :].copy()[..., ::-1, :]
    if kind == 3:  # rows a number of bytes apart that is no multiple of their alignment
        records = np.zeros(
            array.shape[:-1], np.dtype([("row", "f4", array.shape[-1]), ("gap", "u1")])
        )
        records["row"] = array
        return records["row"]
    return array


def gaps(random: np.random.Generator, array: NDArray[Any]) -> NDArray[Any]:
    """Return the same values of one axis, sometimes apart or backwards."""
    kind = random.integers(0, 4)
    if kind == 0:
        return np.repeat(array, 3)[::3]
    if kind == 1:
        return array[::-1].copy()[::-1]
    return array


def attention_case(random: np.random.Generator) -> Callable[[], Any]:
    decode = bool(random.integers(0, 2))
    batch, key_heads, group = (int(x) for x in random.integers(1, 4, 3))
    keys = int(random.integers(1, 150 if decode else 60))
    features = int(random.choice([1, 3, 8, 16, 17, 32, 40, 64, 80]))
    queries = 1 if decode else keys
    shapes = [(key_heads * group, queries), (key_heads, keys), (key_heads, keys)]
    operands = [
        strided(random, values(random, batch, heads, length, features)) for heads, length in shapes
    ]
    threads = int(random.integers(1, 4))
    if decode:
        return partial(decode_attention, *operands, threads=threads)
    return partial(prefill, *operands, causal=bool(random.integers(0, 2)), threads=threads)


def moe_case(random: np.random.Generator) -> Callable[[], Any]:
    tokens, experts = int(random.integers(0, 50)), int(random.integers(1, 70))
    logits = strided(random, values(random, tokens, experts))
    if random.random() < 0.3:
        logits = np.round(logits)
    k = int(random.integers(1, min(experts, 8) + 1))
    return partial(
        moe_topk,
        logits,
        k,
        renormalise=bool(random.integers(0, 2)),
        threads=int(random.integers(1, 3)),
    )


def sparse_case(random: np.random.Generator) -> Callable[[], Any]:
    sizes = random.integers(0, int(random.choice([2, 17, 60, 300])), int(random.integers(0, 30)))
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(random.choice([np.int32, np.int64]))
    indptr = gaps(random, at_random_byte(random, indptr))
    data = gaps(random, values(random, int(sizes.sum())))
    return partial(sparse_softmax, data, indptr, threads=int(random.integers(1, 4)))


def product_case(random: np.random.Generator) -> Callable[[], Any]:
    m, k, n = (int(x) for x in random.integers(1, OWN_AXIS + 1, 3))
    a, b = strided(random, values(random, m, k)), strided(random, values(random, k, n))
    return partial(product, a, b)


def outcome(call: Callable[[], Any]) -> tuple[object, ...]:
    """Return the bits of the result, or the refusal."""
    try:
        result = call()
    except KernelError as error:
        return type(error), str(error)
    arrays = result if isinstance(result, tuple) else (result,)
    return tuple(array.tobytes() for array in arrays)


def bits_but_for_nan(array: NDArray[np.float32]) -> bytes:
    """Return the bits, with one NaN for all: IEEE leaves open which one an operation gives."""
    return np.where(np.isnan(array), np.float32(np.nan), array).tobytes()


@pytest.mark.parametrize("kind", [attention_case, moe_case, sparse_case])
def test_every_path_equals_numpy(kind: Callable[[np.random.Generator], Callable[[], Any]]) -> None:
    for seed in range(CASES // 3):
        call = kind(np.random.default_rng(seed))
        with on_path("numpy"):
            expected = outcome(call)
        for isa in COMPILED:
            with on_path(isa):
                assert outcome(call) == expected, f"seed {seed} on {isa}"


def test_tiny_products_equal_numpy() -> None:
    for seed in range(CASES // 3):
        call = product_case(np.random.default_rng(seed))
        with np.errstate(all="ignore"):
            expected = bits_but_for_nan(small_matmul(*call.args))
        for isa in EVERY_PATH:
            with on_path(isa):
                assert bits_but_for_nan(call()) == expected, f"seed {seed} on {isa}"
