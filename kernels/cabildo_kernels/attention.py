"""Attention on CPUs: one query against a cache, short prompts, and everything else by a library.

Here: the checks, and the one table that says who does the work at which size. Never here: a loop
over keys; see `native/` and `fallback/`. Arrays are [batch, heads, sequence, features], or without
the leading axes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_kernels import dispatch, libraries
from cabildo_kernels.arguments import finite_number, refuse_no_array
from cabildo_kernels.errors import InvalidInput, NonFiniteInput
from cabildo_kernels.fallback import attention as fallback
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_PREFILL_UP_TO: Final = {
    # path: (causal with torch, causal without, whole with torch, whole without)
    "avx512": (1024, 1024, 64, 1024),
    "avx2": (512, 512, 64, 256),
    "neon": (0, 256, 0, 0),  # not measured: as baseline
    "baseline": (0, 256, 0, 0),
    "numpy": (0, 0, 0, 0),
}
"""Up to this many keys our kernel was the fastest: `make bench-kernels`, cases prefill/*, on an AMD
EPYC (Zen 4), which adds and multiplies side by side.

A causal prompt has work to skip; on a whole one fused multiply-add lets the libraries win.
Decoding is not in the table: it is ours at every length and on every path, for its bits. It is the
fastest only where there is AVX; elsewhere a library is ahead (8 heads over 1024 keys of 64: numpy
4.5 ms and baseline 0.19 ms against 0.08 ms of `by_matmul`).
"""

_AXES: Final = 4
_LEAST_AXES: Final = 2


def fast_attention(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    *,
    causal: bool = False,
    scale: float | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return softmax(q k' scale) v, by our kernel or by a library.

    | queries | who does the work |
    |---|---|
    | one | `decode_attention`: our kernel, for its bits; the fastest with AVX |
    | prompts up to `OWN_PREFILL_UP_TO` keys | `prefill`: our kernel, measured to be the fastest |
    | else, torch is installed | torch.nn.functional.scaled_dot_product_attention, on its threads |
    | else | np.matmul (its BLAS) and np.exp |

    One query gives the same bits everywhere. A prompt does not: whether our kernel or a library
    works on it goes by its length, the path in use and whether torch is installed, and a library's
    bits are its own. Call `prefill` for a prompt whose bits must be the same everywhere.

    Args:
        q: [batch, heads, queries, features], float32; leading axes may be left out.
        k: [batch, key heads, keys, features]; the number of heads is a multiple of key heads.
        v: As k.
        causal: Query i sees keys 0..i; queries and keys are then equal in number, or there is one
            query, the last.
        scale: None: 1 / sqrt(features).
        threads: Of our kernels; None: the CPU quota, on inputs above 1 MB.

    Returns:
        As q.

    Raises:
        NonFiniteInput: Our kernels only: naming the (batch, head) pairs, counted in C order, whose
            result is not finite. A library returns what it computes: NaN.
        InvalidInput: An argument that is not as described.
    """
    _refuse_no_arrays(q, k, v)
    if q.ndim >= _LEAST_AXES and q.shape[-2] == 1:
        return decode_attention(q, k, v, scale=scale, threads=threads)
    longest = OWN_PREFILL_UP_TO[dispatch.isa()]
    keys = k.shape[-2] if k.ndim >= _LEAST_AXES else 0
    if keys <= max(longest):
        own = longest[(0 if causal else 2) + (0 if libraries.torch() is not None else 1)]
        if keys <= own:
            return prefill(q, k, v, causal=causal, scale=scale, threads=threads)
    threads_for(0, asked=threads)  # refused as where it is used
    return _library(q, k, v, causal=causal, scale=scale)


def decode_attention(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    *,
    scale: float | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the attention of one query over a cache of keys and values.

    Our own kernel: the cache is read once, in place (a slice `cache[:, :, :length]` is not copied).
    Scores are sums over 16 lanes, the values are added up in blocks of 64 keys, exp is a polynomial
    of ours (within 1 unit in the last place; 0 below -87): the same bits on every path and number
    of threads.

    Args:
        q: [batch, heads, 1, features], float32; leading axes may be left out.
        k: [batch, key heads, keys, features]; the number of heads is a multiple of key heads.
        v: As k.
        scale: None: 1 / sqrt(features).
        threads: None: the CPU quota, on inputs above 1 MB.

    Raises:
        NonFiniteInput: Naming the (batch, head) pairs, counted in C order, whose result is not
            finite.
        InvalidInput: An argument that is not as described.
    """
    _refuse_no_arrays(q, k, v)
    if q.ndim < _LEAST_AXES or q.shape[-2] != 1:
        raise InvalidInput(
            f"q: shape {q.shape}; decode_attention takes one query: [..., 1, features]"
        )
    return _own(q, k, v, causal=False, decode=True, scale=scale, threads=threads)


def prefill(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    *,
    causal: bool = True,
    scale: float | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the attention of a prompt, by our own kernel whatever its length.

    Keys that no query of a tile of 24 sees are skipped, which halves the causal work. Sums go in
    the order of the features and of the keys: the same bits on every path and number of threads.
    Arguments, result and errors are those of `fast_attention`.
    """
    _refuse_no_arrays(q, k, v)
    return _own(q, k, v, causal=causal, decode=False, scale=scale, threads=threads)


def _refuse_no_arrays(*arrays: NDArray[np.float32]) -> None:
    for array in arrays:
        if type(array) is not np.ndarray:  # here, not by a call: a short cache leaves no time
            refuse_no_array("q, k, v", array)


def _own(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    *,
    causal: bool,
    decode: bool,
    scale: float | None,
    threads: int | None,
) -> NDArray[np.float32]:
    count = threads_for(k.nbytes + v.nbytes, asked=threads)
    if scale is not None:
        scale = finite_number("scale", scale)
    native = dispatch.native("softmax")
    if native is not None:
        # Plain arrays are checked by the compiled code: a short cache leaves no time for more.
        at_once: NDArray[np.float32] | None = native.attention(
            q,
            k,
            v,
            scale=scale,
            causal=causal,
            decode=decode,
            path=dispatch.path(),
            threads=count,
        )
        if at_once is not None:
            return at_once
    queries, keys, values = _four_axes(q, k, v, causal=causal)
    if native is not None:
        checked: NDArray[np.float32] | None = native.attention(
            queries,
            keys,
            values,
            scale=scale,
            causal=causal,
            decode=decode,
            path=dispatch.path(),
            threads=count,
        )
        if checked is not None:
            return checked.reshape(q.shape)
    out = np.empty(queries.shape, dtype=np.float32)
    with default_environment():
        factor = 1 / math.sqrt(queries.shape[3]) if scale is None else scale
        bad = (
            fallback.decode(queries, keys, values, scale=factor, out=out)
            if decode
            else fallback.prefill(
                queries, keys, values, scale=factor, causal=causal and queries.shape[2] > 1, out=out
            )
        )
    if len(bad):
        raise NonFiniteInput(bad.tolist())
    return out.reshape(q.shape)


def _four_axes(
    q: NDArray[np.float32], k: NDArray[np.float32], v: NDArray[np.float32], *, causal: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.dtype != np.float32 or array.ndim != q.ndim:
            raise InvalidInput(f"{name}: {array.dtype}{array.shape}; float32 of q's axes is needed")
    if not _LEAST_AXES <= q.ndim <= _AXES:
        raise InvalidInput(
            f"q: shape {q.shape}; 2 to 4 axes are taken, the last two [sequence, features]"
        )
    lead = (1,) * (_AXES - q.ndim)
    queries, keys, values = (_rows_in_place(a.reshape(lead + a.shape)) for a in (q, k, v))
    batch, heads, count, features = queries.shape
    if keys.shape != values.shape or keys.shape[0] != batch or keys.shape[3] != features:
        raise InvalidInput(
            f"k, v: shapes {k.shape} and {v.shape}; both must be [batch, key heads, keys, features]"
            f" with the batch and features of q's {q.shape}"
        )
    if keys.shape[1] == 0 or heads % keys.shape[1]:
        raise InvalidInput(f"k: {keys.shape[1]} heads do not divide q's {heads}")
    if keys.shape[2] == 0 or features == 0:
        raise InvalidInput(f"k: shape {k.shape}; at least one key and one feature are needed")
    if causal and count not in {1, keys.shape[2]}:
        raise InvalidInput(f"causal: {count} queries over {keys.shape[2]} keys; as many are needed")
    return queries, keys, values


def _rows_in_place(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the array if its rows lie without gaps and on their natural alignment, else a copy."""
    itemsize = array.itemsize
    in_place = array.strides[3] == itemsize and all(s % itemsize == 0 for s in array.strides)
    return array if in_place and array.flags.aligned else np.ascontiguousarray(array)


def _library(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    *,
    causal: bool,
    scale: float | None,
) -> NDArray[np.float32]:
    queries, keys, values = _four_axes(q, k, v, causal=causal)
    torch = libraries.torch()
    if torch is None:
        return by_matmul(queries, keys, values, causal=causal, scale=scale).reshape(q.shape)
    tensors = (torch.from_numpy(_writable(array)) for array in (queries, keys, values))
    result: NDArray[Any] = torch.nn.functional.scaled_dot_product_attention(
        *tensors, is_causal=causal, scale=scale, enable_gqa=queries.shape[1] != keys.shape[1]
    ).numpy()
    return result.reshape(q.shape)


def _writable(array: NDArray[np.float32]) -> NDArray[np.float32]:
    usable = array.flags.writeable and min(array.strides) >= 0  # torch takes no others
    return array if usable else array.copy()


def by_matmul(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    *,
    causal: bool,
    scale: float | None,
) -> NDArray[np.float32]:
    """Return the attention by np.matmul and np.exp, for arrays that passed the checks."""
    group = q.shape[1] // k.shape[1]
    keys, values = (np.repeat(a, group, axis=1) if group > 1 else a for a in (k, v))
    factor = np.float32(1 / math.sqrt(q.shape[3]) if scale is None else scale)
    scores = np.matmul(q * factor, keys.swapaxes(2, 3))
    if causal:
        scores[..., ~np.tri(q.shape[2], k.shape[2], dtype=bool)] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    sums = scores.sum(axis=-1, keepdims=True)
    result: NDArray[np.float32] = np.matmul(scores, values) / sums
    return result
