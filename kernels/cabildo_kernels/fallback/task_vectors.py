"""Task vectors in NumPy: the same bits as the compiled kernels.

Here: magnitudes as integers, their histograms, and the combination of selected differences, entry
by entry in the order that native/task_vectors.h states. Never here: checks of the input; they are
in `cabildo_kernels.task_vectors`. Next: nothing; this is the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LOW_BITS: Final = 15
HIGH_BINS: Final = 1 << 16
LOW_BINS: Final = 1 << LOW_BITS
_SPAN: Final = 24_576
_SIGN: Final = np.uint32(0x7FFF_FFFF)
_INFINITE: Final = np.uint32(0x7F80_0000)


def widened(values: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """Return float32 or bf16 elements as float32."""
    if kind == "bf16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values


def magnitudes(
    row: NDArray[Any], kind: str, base: NDArray[Any] | None, base_kind: str
) -> NDArray[np.uint32]:
    """Return the 31 bits below the sign of fl32(row - base)."""
    difference = widened(row, kind)
    if base is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            difference = difference - widened(base, base_kind)
    return np.ascontiguousarray(difference).view(np.uint32) & _SIGN


def histogram(
    row: NDArray[Any],
    kind: str,
    base: NDArray[Any] | None,
    base_kind: str,
    prefix: int,
    counts: NDArray[np.uint64],
) -> None:
    """Add the magnitudes' leading bits (prefix < 0) or the low bits after `prefix` to `counts`."""
    for start in range(0, row.size, _SPAN):
        stop = min(start + _SPAN, row.size)
        part = None if base is None else base[start:stop]
        bits = magnitudes(row[start:stop], kind, part, base_kind)
        bins = bits >> np.uint32(LOW_BITS)
        if prefix >= 0:
            bins = bits[bins == prefix] & np.uint32(LOW_BINS - 1)
        counts += np.bincount(bins, minlength=counts.size).astype(np.uint64)


def find(
    row: NDArray[Any], kind: str, base: NDArray[Any] | None, base_kind: str, bits: int, nth: int
) -> tuple[int, int]:
    """Return (index of the nth magnitude equal to `bits` or -1, how many there were before it)."""
    seen = 0
    for start in range(0, row.size, _SPAN):
        stop = min(start + _SPAN, row.size)
        part = None if base is None else base[start:stop]
        equal = np.flatnonzero(magnitudes(row[start:stop], kind, part, base_kind) == bits)
        if seen + equal.size > nth:
            return start + int(equal[nth - seen]), nth
        seen += equal.size
    return -1, seen


@dataclass(frozen=True, slots=True)
class Combination:
    """What `combine` works on, checked: arrays of float32 or bf16, a number or bound for each row.

    Attributes:
        rows: n arrays [d].
        kinds: n of f32, bf16.
        base: Array [d].
        base_kind: f32 or bf16.
        start: Index in the tensor of element 0.
        weights: n numbers.
        votes: n weights of the vote.
        bounds: Bits and stops of what is kept, bits and stops of what is dropped again.
        factors: An array [d] for each row, or None.
        columns: Where the output differs from the base; None everywhere.
        elect: none, sum or count.
        normalize: Whether to divide by the weights that were added.
        scale: What the merged difference is multiplied with.
    """

    rows: tuple[NDArray[Any], ...]
    kinds: tuple[str, ...]
    base: NDArray[Any]
    base_kind: str
    start: int
    weights: NDArray[np.float64]
    votes: NDArray[np.float64]
    bounds: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
    factors: Sequence[NDArray[np.float64]] | None
    columns: NDArray[np.bool_] | None
    elect: str
    normalize: bool
    scale: float


def combine(job: Combination, out: NDArray[np.float64]) -> tuple[int, bool]:
    """Fill `out` in fp64; return (mask of rows that are not finite, whether the base is not)."""
    bad_rows = 0
    for first in range(0, out.size, _SPAN):
        part = slice(first, min(first + _SPAN, out.size))
        origin = widened(job.base[part], job.base_kind)
        if not np.isfinite(origin).all():
            return bad_rows, True
        kept = []
        for row, values in enumerate(job.rows):
            limits = tuple(int(bound[row]) for bound in job.bounds)
            difference, bad = _kept(values[part], job.kinds[row], origin, limits, job.start + first)
            bad_rows |= int(bad) << row
            factor = None if job.factors is None else job.factors[row]
            kept.append(difference if factor is None else difference * factor[part])
        if bad_rows:
            continue
        merged = _merged(kept, job)
        if job.columns is not None:
            merged = np.where(job.columns[part], merged, 0.0)
        # + 0.0: -0.0 of the base becomes +0.0
        out[part] = (origin.astype(np.float64) + 0.0) + job.scale * merged
    return bad_rows, False


def _kept(
    values: NDArray[Any],
    kind: str,
    base: NDArray[np.float32],
    limits: tuple[int, ...],
    first: int,
) -> tuple[NDArray[np.float64], bool]:
    """Return the differences inside the first bound and outside the second, zero elsewhere."""
    with np.errstate(over="ignore", invalid="ignore"):
        difference = widened(values, kind) - base
    size = difference.view(np.uint32) & _SIGN
    if (size >= _INFINITE).any():
        return np.zeros(difference.size), True
    index = np.arange(first, first + difference.size)
    keep_bits, keep_stop, drop_bits, drop_stop = limits
    keep = (size > keep_bits) | ((size == keep_bits) & (index < keep_stop))
    drop = (size > drop_bits) | ((size == drop_bits) & (index < drop_stop))
    return np.where(keep & ~drop, difference, np.float32(0.0)).astype(np.float64), False


def _merged(kept: Sequence[NDArray[np.float64]], job: Combination) -> NDArray[np.float64]:
    merged = np.zeros_like(kept[0])
    divisor = np.zeros_like(kept[0])
    sign = None if job.elect == "none" else _elected(kept, job.votes, elect=job.elect)
    for weight, vote, row in zip(job.weights, job.votes, kept, strict=True):
        agrees = 1.0 if sign is None else ((vote * row) * sign > 0.0).astype(np.float64)
        merged = merged + agrees * (weight * row)
        divisor = divisor + agrees * weight
    if not job.normalize:
        return merged
    return np.divide(merged, divisor, out=np.zeros_like(merged), where=divisor != 0.0)


def _elected(
    kept: Sequence[NDArray[np.float64]], votes: NDArray[np.float64], *, elect: str
) -> NDArray[np.float64]:
    total = np.zeros_like(kept[0])
    for vote, row in zip(votes, kept, strict=True):
        value = vote * row
        if elect == "count":
            value = (value > 0.0).astype(np.float64) - (value < 0.0)
        total = total + value
    return np.where(total >= 0.0, 1.0, -1.0)
