"""Task vectors: how large the differences to a base are, and how they are combined with it.

A difference is fl32(x - base). Its magnitude is the 31 bits below the sign, which sort as the
numbers do, so "the k largest, ties by index" is exact: a histogram of the leading 16 bits, one
of the 15 low bits behind the chosen prefix, and the last tie's index make a bound (bits, stop).

Here: checks, and the choice between compiled code and NumPy. Never here: models, files or which
rule wants what; the merging rules drive the passes. No library does this work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_kernels import dispatch
from cabildo_kernels.arguments import (
    LARGEST_WEIGHT,
    finite_number,
    is_zero,
    real_numbers,
    refuse_no_array,
    whole_number,
)
from cabildo_kernels.errors import InvalidInput, NonFiniteInput
from cabildo_kernels.fallback import task_vectors as fallback
from cabildo_kernels.fallback.columns import rounded
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.rows import ELEMENT_TYPES, STORED_AS, checked_rows
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Bound = tuple[int, int]

HIGH_BINS: Final = fallback.HIGH_BINS
LOW_BINS: Final = fallback.LOW_BINS
LOW_BITS: Final = fallback.LOW_BITS
FIRST_NON_FINITE: Final = 0x7F80_0000 >> LOW_BITS
"""Bins of the leading bits from here on count NaN, infinities and differences that overflow."""
LARGEST_MAGNITUDE: Final = 0x7FFF_FFFF
NOTHING: Final[Bound] = (LARGEST_MAGNITUDE, 0)
EVERYTHING: Final[Bound] = (0, 2**62)
LARGEST_INDEX: Final = 2**62
"""Of an element in its tensor: the difference of two such fits 64 bits."""
LARGEST_FACTOR: Final = 1e60
"""Factors up to this size cannot overflow a sum of 64 weighted differences, so none is NaN."""

ELECTIONS: Final = ("none", "sum", "count")
_KINDS: Final = {"f32": 0, "bf16": 1}
_F64: Final = 2


def magnitude_counts(
    row: NDArray[Any],
    base: NDArray[Any] | None = None,
    *,
    prefix: int | None = None,
    counts: NDArray[np.uint64] | None = None,
    dtype: str = "f32",
    base_dtype: str | None = None,
) -> NDArray[np.uint64]:
    """Counts magnitudes of fl32(row - base) by their bits.

    Args:
        row: Elements of one model's tensor.
        base: The same elements of the base; None takes the row's own magnitudes.
        prefix: None counts by the leading 16 of the 31 bits; a number counts, among the magnitudes
            with these leading bits, by the 15 low ones.
        counts: Where to add to; None starts at zero.
        dtype: Element type of the row: f32, f16, bf16.
        base_dtype: Element type of the base; None is that of the row.

    Returns:
        uint64[65536], or uint64[32768] behind a prefix. No value is refused: see FIRST_NON_FINITE.

    Raises:
        InvalidInput: An argument that is not as described.
    """
    leading = -1 if prefix is None else _within("prefix", prefix, most=HIGH_BINS - 1)
    bins = HIGH_BINS if prefix is None else LOW_BINS
    total = np.zeros(bins, dtype=np.uint64) if counts is None else counts
    refuse_no_array("counts", total)
    if total.shape != (bins,) or total.dtype != np.uint64 or not total.flags.carray:
        raise InvalidInput(f"counts: uint64 of shape ({bins},) is needed, contiguous and writeable")
    values, kind, origin, origin_kind = _pair(row, base, dtype=dtype, base_dtype=base_dtype)
    native = dispatch.native("task_vectors")
    if native is None:
        with default_environment():
            fallback.histogram(values, kind, origin, origin_kind, leading, total)
    else:
        native.histogram(
            values,
            _KINDS[kind],
            origin,
            _KINDS[origin_kind],
            leading,
            total,
            dispatch.path(),
        )
    return total


def find_magnitude(
    row: NDArray[Any],
    base: NDArray[Any] | None = None,
    *,
    bits: int,
    nth: int,
    dtype: str = "f32",
    base_dtype: str | None = None,
) -> tuple[int, int]:
    """Finds the nth (from 0) entry whose magnitude has exactly these bits.

    Args:
        row: As for `magnitude_counts`.
        base: As for `magnitude_counts`.
        bits: The 31 bits below the sign.
        nth: How many such entries to pass over.
        dtype: As for `magnitude_counts`.
        base_dtype: As for `magnitude_counts`.

    Returns:
        Its index or -1, and how many such entries there are before it (in all, for -1).

    Raises:
        InvalidInput: An argument that is not as described.
    """
    bits = _within("bits", bits, most=LARGEST_MAGNITUDE)
    nth = _within("nth", nth, most=LARGEST_INDEX)
    values, kind, origin, origin_kind = _pair(row, base, dtype=dtype, base_dtype=base_dtype)
    native = dispatch.native("task_vectors")
    if native is None:
        with default_environment():
            return fallback.find(values, kind, origin, origin_kind, bits, nth)
    index, seen = native.find(
        values, _KINDS[kind], origin, _KINDS[origin_kind], bits, nth, dispatch.path()
    )
    return int(index), int(seen)


def combine_task_vectors(
    rows: Sequence[NDArray[Any]],
    base: NDArray[Any],
    weights: Sequence[float],
    *,
    start: int = 0,
    votes: Sequence[float] | None = None,
    keep: Sequence[Bound] | None = None,
    drop: Sequence[Bound] | None = None,
    factors: Sequence[NDArray[np.float64]] | None = None,
    columns: NDArray[np.bool_] | None = None,
    elect: str = "none",
    normalize: bool = False,
    scale: float = 1.0,
    dtype: str | Sequence[str] | None = None,
    base_dtype: str | None = None,
    out_dtype: str = "f32",
    threads: int | None = None,
) -> NDArray[Any]:
    """Returns base + scale * (sum weights[i] t_i / divisor), fp64 in row order, rounded once.

    t_i is fl32(rows[i] - base) where it is kept, 0 elsewhere. With a vote only the entries whose
    weighted sign is the elected one are added (Yadav et al., NeurIPS 2023, arXiv 2306.01708).

    Args:
        rows: n arrays [d] of float32, float16, or uint16 for bf16.
        base: Array [d].
        weights: n numbers, each at most 1e200 in size.
        start: Index in the tensor of element 0: bounds count from the tensor's first.
        votes: n weights of the vote, as `weights`; None takes `weights`.
        keep: A bound for each row: what is kept; None keeps all.
        drop: A bound for each row: what of that is dropped again; None drops nothing.
        factors: An array [d] for each row that its differences are multiplied with, in fp64; each
            factor at most 1e60 in size.
        columns: Where the output differs from the base; None everywhere.
        elect: "none", "sum" (sign of the weighted sum) or "count" (more rows); a draw elects plus.
        normalize: Divide by the sum of the weights of the rows that were added (0 where none was).
        scale: lambda, at most 1e200 in size.
        dtype: Element type of all rows, or one for each.
        base_dtype: Element type of the base; None reads it off the array, uint16 is bf16.
        out_dtype: f32, f16 or bf16 (uint16).
        threads: As for all kernels; no number changes the result.

    -0.0 counts as +0.0, in the base as in the rows. Within these bounds nothing can become NaN;
    what is larger than the output's type holds becomes infinite.

    Raises:
        NonFiniteInput: Naming the rows with NaN, infinity or a difference beyond float32.
        InvalidInput: An argument that is not as described, or a base that is not finite.
    """
    arrays, kinds, origin, origin_kind = _checked(rows, base, dtype=dtype, base_dtype=base_dtype)
    n, size = len(arrays), origin.size
    if elect not in ELECTIONS:
        raise InvalidInput(f"elect: {elect!r} is none of {', '.join(ELECTIONS)}")
    if out_dtype not in ELEMENT_TYPES:
        raise InvalidInput(f"out_dtype: {out_dtype!r} is none of {', '.join(ELEMENT_TYPES)}")
    scale = finite_number("scale", scale, most=LARGEST_WEIGHT)
    weighing = _weights("weights", weights, n=n)
    polls = weighing if votes is None else _weights("votes", votes, n=n)
    if is_zero(scale):  # times a quotient that overflowed it would be NaN
        weighing = np.zeros(n)
    job = fallback.Combination(
        rows=arrays,
        kinds=kinds,
        base=origin,
        base_kind=origin_kind,
        start=_within("start", start, most=LARGEST_INDEX - size),
        weights=weighing,
        votes=polls,
        bounds=(
            *_bounds("keep", keep, n=n, none=EVERYTHING),
            *_bounds("drop", drop, n=n, none=NOTHING),
        ),
        factors=_factors(factors, n=n, size=size),
        columns=_mask(columns, size=size),
        elect=elect,
        normalize=bool(normalize),
        scale=scale,
    )
    count = threads_for(sum(row.nbytes for row in arrays), asked=threads)
    out, bad_rows, bad_base = _combined(job, out_dtype=out_dtype, threads=count)
    if bad_base:
        raise InvalidInput("base holds NaN or infinity: no row is at fault")
    if bad_rows:
        raise NonFiniteInput(row for row in range(n) if bad_rows >> row & 1)
    return out


def _combined(
    job: fallback.Combination, *, out_dtype: str, threads: int
) -> tuple[NDArray[Any], int, bool]:
    native = dispatch.native("task_vectors")
    if native is not None and out_dtype in _KINDS:
        out = np.empty(job.base.size, dtype=STORED_AS[out_dtype])
        return out, *_combine_natively(native, job, out, _KINDS[out_dtype], threads)
    double = np.empty(job.base.size, dtype=np.float64)
    with default_environment():
        if native is None:
            bad_rows, bad_base = fallback.combine(job, double)
        else:
            bad_rows, bad_base = _combine_natively(native, job, double, _F64, threads)
        return rounded(double, element_type=out_dtype), bad_rows, bad_base


def _combine_natively(
    native: Any, job: fallback.Combination, out: NDArray[Any], out_kind: int, threads: int
) -> tuple[int, bool]:
    bad_rows, bad_base = native.combine(
        job.rows,
        [_KINDS[kind] for kind in job.kinds],
        job.base,
        _KINDS[job.base_kind],
        job.start,
        job.weights,
        job.votes,
        job.bounds,
        job.factors,
        job.columns,
        ELECTIONS.index(job.elect),
        job.normalize,
        job.scale,
        out,
        out_kind,
        dispatch.path(),
        threads,
    )
    return int(bad_rows), bool(bad_base)


def _checked(
    rows: Sequence[NDArray[Any]],
    base: NDArray[Any],
    *,
    dtype: str | Sequence[str] | None,
    base_dtype: str | None,
) -> tuple[tuple[NDArray[Any], ...], tuple[str, ...], NDArray[Any], str]:
    checked = checked_rows(rows, dtype=dtype)
    refuse_no_array("base", base)
    if base_dtype is None and base.dtype == np.uint16:
        base_dtype = "bf16"
    try:
        origin = checked_rows([base], dtype=base_dtype)
    except InvalidInput as error:
        raise InvalidInput(f"base: {error}") from error
    if origin.columns != checked.columns:
        raise InvalidInput(f"base has {origin.columns} elements, the rows {checked.columns}")
    arrays, kinds = zip(*map(_plain, checked.arrays, checked.types), strict=True)
    return arrays, kinds, *_plain(origin.arrays[0], origin.types[0])


def _pair(
    row: NDArray[Any], base: NDArray[Any] | None, *, dtype: str, base_dtype: str | None
) -> tuple[NDArray[Any], str, NDArray[Any] | None, str]:
    given = [row] if base is None else [row, base]
    checked = checked_rows(given, dtype=[dtype, base_dtype or dtype][: len(given)])
    values, kind = _plain(checked.arrays[0], checked.types[0])
    if base is None:
        return values, kind, None, kind
    return values, kind, *_plain(checked.arrays[1], checked.types[1])


def _plain(array: NDArray[Any], element_type: str) -> tuple[NDArray[Any], str]:
    """Returns float16 as float32, which is exact; the compiled loops know float32 and bf16."""
    if element_type == "f16":
        return array.astype(np.float32), "f32"
    return array, element_type


def _within(name: str, value: Any, *, most: int) -> int:
    number = whole_number(name, value)
    if not 0 <= number <= most:
        raise InvalidInput(f"{name}={number}: 0 to {most} is taken")
    return number


def _weights(name: str, values: Sequence[float], *, n: int) -> NDArray[np.float64]:
    numbers = real_numbers(name, values)
    if numbers.shape != (n,) or not (np.abs(numbers) <= LARGEST_WEIGHT).all():
        raise InvalidInput(
            f"{name}: {n} finite numbers are needed, one for each row, each at most"
            f" {LARGEST_WEIGHT:g} in size"
        )
    return np.ascontiguousarray(numbers)


def _bounds(
    name: str, bounds: Sequence[Bound] | None, *, n: int, none: Bound
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    if bounds is None:
        return np.full(n, none[0], dtype=np.uint32), np.full(n, none[1], dtype=np.int64)
    given = list(bounds)
    if len(given) != n:
        raise InvalidInput(f"{name}: {len(given)} bounds for {n} rows; give one for each")
    both = [
        (
            _within(f"{name}[{row}]: bits", bits, most=LARGEST_MAGNITUDE),
            _within(f"{name}[{row}]: stop", stop, most=LARGEST_INDEX),
        )
        for row, (bits, stop) in enumerate(given)
    ]
    return (
        np.array([bits for bits, _ in both], dtype=np.uint32),
        np.array([stop for _, stop in both], dtype=np.int64),
    )


def _factors(
    factors: Sequence[NDArray[np.float64]] | None, *, n: int, size: int
) -> list[NDArray[np.float64]] | None:
    if factors is None:
        return None
    given = [
        np.ascontiguousarray(real_numbers(f"factors[{row}]", factor))
        for row, factor in enumerate(factors)
    ]
    if len(given) != n or any(factor.shape != (size,) for factor in given):
        raise InvalidInput(f"factors: {n} arrays of {size} numbers are needed, one for each row")
    for row, factor in enumerate(given):
        # Not np.abs: that would be an array as large as the row. NaN passes through max and min.
        if not (factor.max(initial=0.0) <= LARGEST_FACTOR >= -factor.min(initial=0.0)):
            raise InvalidInput(
                f"factors[{row}]: each must be finite and at most {LARGEST_FACTOR:g} in size"
            )
    return given


def _mask(columns: NDArray[np.bool_] | None, *, size: int) -> NDArray[np.bool_] | None:
    if columns is None:
        return None
    refuse_no_array("columns", columns)
    if columns.shape != (size,) or columns.dtype != np.bool_:
        raise InvalidInput(f"columns: {size} booleans are needed")
    return np.ascontiguousarray(columns)
