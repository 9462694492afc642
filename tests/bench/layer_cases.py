"""Cases of bench-kernels: attention, routing, sparse softmax, products, digests.

Here: the same work by us, torch, NumPy and plain Python, one thread each. Never here: timing.
"""

from __future__ import annotations

import hashlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from contest import OURS, Contest

from cabildo_kernels import attention, fast_attention, matmul, moe_topk, prefill, sparse_softmax
from cabildo_kernels.digests import sha256, update_many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

HEADS, FEATURES = 8, 64
sdpa = torch.nn.functional.scaled_dot_product_attention


def _normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def python_attention(q: list[float], k: list[list[float]], v: list[list[float]]) -> list[float]:
    """Return one head's attention of one query by plain Python."""
    scale = len(q) ** -0.5
    scores = [scale * sum(x * y for x, y in zip(q, row, strict=True)) for row in k]
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    total = sum(powers)
    return [
        sum(p * x for p, x in zip(powers, column, strict=True)) / total
        for column in zip(*v, strict=True)
    ]


def _python_heads(q: Any, k: Any, v: Any) -> list[list[float]]:
    heads = zip(q[0, :, 0].tolist(), k[0].tolist(), v[0].tolist(), strict=True)
    return [python_attention(*head) for head in heads]


def decoding() -> Iterator[Contest]:
    """Yield one query against caches of several lengths."""
    for length in (16, 128, 1024, 8192):
        q, k, v = _normal(1, HEADS, 1, FEATURES), *_normal(2, 1, HEADS, length, FEATURES)
        contest = Contest(
            case=f"decode_attention/h{HEADS}/d{FEATURES}/s{length}",
            contenders={
                OURS: partial(fast_attention, q, k, v, threads=1),
                "torch SDPA": partial(sdpa, *map(torch.from_numpy, (q, k, v))),
            },
            size_bytes=k.nbytes + v.nbytes,
            rounds=25,
        )
        if length == 16:
            contest.contenders["pure_python"] = partial(_python_heads, q, k, v)
        yield contest


def prompts() -> Iterator[Contest]:
    """Yield our prefill beside the libraries: what the table of `fast_attention` was read off."""
    for length in (16, 64, 128, 512, 1024):
        operands = list(_normal(3, 1, HEADS, length, FEATURES))
        for causal in (True, False):
            yield Contest(
                case=f"prefill/h{HEADS}/d{FEATURES}/s{length}/{'causal' if causal else 'whole'}",
                contenders={
                    OURS: partial(prefill, *operands, causal=causal, threads=1),
                    "torch SDPA": partial(sdpa, *map(torch.from_numpy, operands), is_causal=causal),
                    "numpy": partial(attention.by_matmul, *operands, causal=causal, scale=None),
                },
                size_bytes=4 * operands[0].nbytes,  # q, k, v, the result
                rounds=7,
            )


def routing() -> Iterator[Contest]:
    """Yield softmax and top-2 of 8 and 64 experts."""
    for experts in (8, 64):
        logits = _normal(8192, experts)
        tensor = torch.from_numpy(logits)
        yield Contest(
            case=f"moe_topk/8192x{experts}/k2",
            contenders={
                OURS: partial(moe_topk, logits, 2, threads=1),
                "torch": lambda tensor=tensor: torch.topk(torch.softmax(tensor, -1), 2),
            },
            size_bytes=logits.nbytes,
            rounds=9,
        )


def _python_softmax(rows: list[list[float]]) -> list[list[float]]:
    result = []
    for row in rows:
        top = max(row, default=0.0)
        powers = [math.exp(x - top) for x in row]
        total = sum(powers)
        result.append([p / total for p in powers])
    return result


def sparse() -> Iterator[Contest]:
    """Yield the softmax of a sparse matrix, one entry in a hundred stored."""
    size, density = 2048, 0.01
    stored = np.random.default_rng(0).random((size, size)) < density
    dense = torch.from_numpy(np.where(stored, _normal(size, size), 0).astype(np.float32))
    coo, csr = dense.to_sparse_coo().coalesce(), dense.numpy()
    indptr = np.concatenate([[0], np.cumsum((csr != 0).sum(axis=1))])
    data = csr[csr != 0]
    rows = [row.tolist() for row in np.split(data, indptr[1:-1])]
    yield Contest(
        case=f"sparse_softmax/{size}x{size}/p{density}",
        contenders={
            OURS: partial(sparse_softmax, data, indptr, threads=1),
            "torch.sparse": partial(torch.sparse.softmax, coo, 1),
            "pure_python": partial(_python_softmax, rows),
        },
        size_bytes=2 * data.nbytes,
        rounds=9,
    )


def _python_product(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    columns = list(zip(*b, strict=True))
    return [[sum(x * y for x, y in zip(r, c, strict=True)) for c in columns] for r in a]


def products() -> Iterator[Contest]:
    """Yield products of tiny matrices, of larger ones, and of bf16."""
    for n in (4, 16, 64):
        a, b = _normal(n, n), _normal(n, n)
        yield Contest(
            case=f"matmul/{n}",
            contenders={
                OURS: partial(matmul, a, b),
                "numpy": partial(np.matmul, a, b),
                "torch": partial(torch.matmul, torch.from_numpy(a), torch.from_numpy(b)),
                "pure_python": partial(_python_product, a.tolist(), b.tolist()),
            },
            size_bytes=3 * a.nbytes,  # a, b, the result
            rounds=15,
        )
    tensor = torch.from_numpy(_normal(512, 512)).bfloat16()
    stored = tensor.view(torch.int16).numpy().view(np.uint16)
    yield Contest(
        case="matmul_bf16/512",
        contenders={
            OURS: partial(matmul, stored, stored, dtype="bf16"),
            "torch": partial(torch.matmul, tensor, tensor),
        },
        size_bytes=3 * stored.nbytes,
        rounds=40,
    )


def hashing() -> Iterator[Contest]:
    """Yield SHA-256 of two streams side by side."""
    pieces = [np.random.default_rng(seed).bytes(1 << 22) for seed in (0, 1)]
    yield Contest(
        case="sha256/2x4MiB",
        contenders={
            OURS: lambda: update_many([sha256(), sha256()], pieces, threads=1),
            "hashlib": lambda: [hashlib.sha256(piece).digest() for piece in pieces],
        },
        size_bytes=sum(map(len, pieces)),
        rounds=9,
    )


def contests() -> Iterator[Contest]:
    """Yield every case."""
    for family in (decoding, routing, sparse, products, hashing, prompts):
        yield from family()
