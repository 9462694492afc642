"""Rules that look at one column at a time: median, trimmed mean, mean around the median, sums.

A row is one model's tensor, a column one parameter of all models. Every rule reads the rows once,
takes any mixture of float32, float16 and bf16, computes in double, and rounds once to the output's
type; -0.0 counts as +0.0. The bits depend on the values and the order of the rows alone, never on
path, threads, alignment or strides. Here: the checks and the choice between compiled code and
NumPy. Never here: a loop over columns; see `native/` and `fallback/`.
"""

from __future__ import annotations

import math
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
from cabildo_kernels.errors import InvalidInput
from cabildo_kernels.fallback import columns as fallback
from cabildo_kernels.rows import (
    ELEMENT_TYPES,
    MOST_ROWS,
    STORED_AS,
    Rows,
    checked_rows,
    refuse_non_finite,
)
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

# enum column_rule of native/columns.h.
MEDIAN: Final = 0
TRIMMED_MEAN: Final = 1
MEAN_AROUND_MEDIAN: Final = 2
WEIGHTED_SUM: Final = 3

CACHE_LINE_BYTES: Final = 64


def median(
    rows: Sequence[NDArray[Any]],
    *,
    dtype: str | Sequence[str] | None = None,
    out: NDArray[Any] | None = None,
    out_dtype: str = "f32",
    threads: int | None = None,
) -> NDArray[Any]:
    """Return the median of each column; of an even number of rows the mean of the middle two.

    Args:
        rows: n arrays [d], 1 <= n <= 64, of float32, float16, or uint16 holding bf16.
        dtype: "f32", "f16" or "bf16" for all rows, or one for each; None: float32 or float16, as
            the arrays are.
        out: Array [d] to write to, contiguous and apart from the rows; None makes one.
        out_dtype: Element type of the result; bf16 is held in uint16.
        threads: None: the CPU quota, on inputs above 1 MB. No number changes the result.

    Raises:
        NonFiniteInput: Naming all rows with NaN or infinity; `out` then holds nothing of use.
        InvalidInput: An argument that is not as described.
    """
    checked = checked_rows(rows, dtype=dtype)
    result = _output(out, rows=checked, out_dtype=out_dtype)
    count = threads_for(checked.size_bytes, asked=threads)
    native = dispatch.native("columns")
    if native is None:
        suspect = fallback.median(checked, out=result, out_type=out_dtype)
    else:
        suspect = _run(native, MEDIAN, checked, result, out_dtype, count)
    return _accepted(result, rows=checked, suspect=suspect)


def trimmed_mean(
    rows: Sequence[NDArray[Any]],
    *,
    trim: int,
    dtype: str | Sequence[str] | None = None,
    out: NDArray[Any] | None = None,
    out_dtype: str = "f32",
    threads: int | None = None,
) -> NDArray[Any]:
    """Return the mean of each column without its `trim` least and `trim` greatest values.

    The kept values are added in ascending order and divided once (Yin et al. 2018,
    arXiv:1803.01498).

    Args:
        rows: As for `median`.
        trim: Values left out at each end; 2 * trim < n.
        dtype: As for `median`.
        out: As for `median`.
        out_dtype: As for `median`.
        threads: As for `median`.

    Raises:
        NonFiniteInput: As for `median`.
        InvalidInput: As for `median`, and when nothing would be kept.
    """
    checked = checked_rows(rows, dtype=dtype)
    trim = whole_number("trim", trim)
    if not 0 <= 2 * trim < len(checked):
        raise InvalidInput(
            f"trim={trim}: 0 <= 2 * trim < n is needed, and n is {len(checked)}; at most"
            f" {(len(checked) - 1) // 2} can be left out at each end"
        )
    result = _output(out, rows=checked, out_dtype=out_dtype)
    count = threads_for(checked.size_bytes, asked=threads)
    native = dispatch.native("columns")
    if native is None:
        suspect = fallback.trimmed_mean(checked, trim=trim, out=result, out_type=out_dtype)
    else:
        suspect = _run(native, TRIMMED_MEAN, checked, result, out_dtype, count, trim=trim)
    return _accepted(result, rows=checked, suspect=suspect)


def mean_around_median(
    rows: Sequence[NDArray[Any]],
    *,
    keep: int,
    dtype: str | Sequence[str] | None = None,
    out: NDArray[Any] | None = None,
    out_dtype: str = "f32",
    threads: int | None = None,
) -> NDArray[Any]:
    """Return the mean of the `keep` values of each column that lie nearest its median.

    From the sorted column the end further from the median (kept in double) is dropped until `keep`
    values are left; at equal distance the upper end goes. The kept ones are added in ascending
    order and divided once (MeaMed: Xie et al. 2018, arXiv:1802.10116).

    Args:
        rows: As for `median`.
        keep: How many values are averaged, 1 to n; the paper's is n - f.
        dtype: As for `median`.
        out: As for `median`.
        out_dtype: As for `median`.
        threads: As for `median`.

    Raises:
        NonFiniteInput: As for `median`.
        InvalidInput: As for `median`, and for a `keep` out of range.
    """
    checked = checked_rows(rows, dtype=dtype)
    keep = whole_number("keep", keep)
    if not 1 <= keep <= len(checked):
        raise InvalidInput(f"keep={keep}: 1 to n values can be kept, and n is {len(checked)}")
    result = _output(out, rows=checked, out_dtype=out_dtype)
    count = threads_for(checked.size_bytes, asked=threads)
    native = dispatch.native("columns")
    if native is None:
        suspect = fallback.mean_around_median(checked, keep=keep, out=result, out_type=out_dtype)
    else:
        suspect = _run(native, MEAN_AROUND_MEDIAN, checked, result, out_dtype, count, keep=keep)
    return _accepted(result, rows=checked, suspect=suspect)


def weighted_sum(
    rows: Sequence[NDArray[Any]],
    weights: ArrayLike,
    *,
    divisor: float = 1.0,
    dtype: str | Sequence[str] | None = None,
    out: NDArray[Any] | None = None,
    out_dtype: str = "f32",
    threads: int | None = None,
) -> NDArray[Any]:
    """Return sum_i weights[i] * rows[i] / divisor: products added in the order of the rows.

    Args:
        rows: As for `median`.
        weights: n doubles, each at most 1e200 in size; nothing is normalised.
        divisor: Divides the sum once, before the one rounding; 1 leaves the sum as it is.
        dtype: As for `median`.
        out: As for `median`.
        out_dtype: As for `median`.
        threads: As for `median`.

    Raises:
        NonFiniteInput: As for `median`, also when the row's weight is 0.
        InvalidInput: As for `median`, and for weights or a divisor out of range.
    """
    checked = checked_rows(rows, dtype=dtype)
    matrix = _weights(real_numbers("weights", weights)[np.newaxis], rows=checked)
    divisor = finite_number("divisor", divisor)
    if is_zero(divisor):
        raise InvalidInput(f"divisor={divisor}: a finite number other than 0 is needed")
    result = _output(out, rows=checked, out_dtype=out_dtype)
    count = threads_for(checked.size_bytes, asked=threads)
    native = dispatch.native("columns")
    if native is None:
        suspect = fallback.weighted_sums(
            checked,
            weights=matrix,
            divisor=divisor,
            out=result[np.newaxis],
            out_type=out_dtype,
        )
    else:
        suspect = _run(
            native,
            WEIGHTED_SUM,
            checked,
            result,
            out_dtype,
            count,
            weights=matrix,
            divisor=divisor,
        )
    return _accepted(result, rows=checked, suspect=suspect)


def mix(
    rows: Sequence[NDArray[Any]],
    weights: ArrayLike,
    *,
    dtype: str | Sequence[str] | None = None,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return m weighted sums of the rows, each as `weighted_sum` makes it, as float32 [m, d].

    What nearest-neighbour mixing and bucketing feed to a rule.

    Args:
        rows: As for `median`.
        weights: [m, n] doubles, 1 <= m <= 64, each at most 1e200 in size.
        dtype: As for `median`.
        out: float32 array [m, d] to write to; None makes one.
        threads: As for `median`.

    Raises:
        NonFiniteInput: As for `weighted_sum`.
        InvalidInput: As for `weighted_sum`.
    """
    checked = checked_rows(rows, dtype=dtype)
    matrix = _weights(real_numbers("weights", weights), rows=checked)
    result = _output(out, rows=checked, out_dtype="f32", outputs=len(matrix))
    count = threads_for(checked.size_bytes, asked=threads)
    native = dispatch.native("columns")
    if native is None:
        suspect = fallback.weighted_sums(
            checked, weights=matrix, divisor=1.0, out=result, out_type="f32"
        )
    else:
        suspect = _run(native, WEIGHTED_SUM, checked, result, "f32", count, weights=matrix)
    return _accepted(result, rows=checked, suspect=suspect)


def _run(
    native: Any,
    rule: int,
    rows: Rows,
    out: NDArray[Any],
    out_dtype: str,
    threads: int,
    **parameters: Any,
) -> bool:
    suspect: bool = native.run(
        dispatch.path(),
        rule,
        rows.arrays,
        rows.codes,
        rows.columns,
        out,
        ELEMENT_TYPES.index(out_dtype),
        threads=threads,
        **parameters,
    )
    return suspect


def _accepted(result: NDArray[Any], *, rows: Rows, suspect: bool) -> NDArray[Any]:
    if suspect:
        refuse_non_finite(rows)
    return result


def _weights(weights: NDArray[np.float64], *, rows: Rows) -> NDArray[np.float64]:
    if weights.ndim != 2 or weights.shape[1] != len(rows) or not 1 <= len(weights) <= MOST_ROWS:  # noqa: PLR2004
        raise InvalidInput(
            f"weights have shape {weights.shape}: one for each of {len(rows)} rows is needed, and"
            f" at most {MOST_ROWS} sums"
        )
    if not (np.abs(weights) <= LARGEST_WEIGHT).all():
        raise InvalidInput(f"weights: each must be finite and at most {LARGEST_WEIGHT:g} in size")
    return np.array(weights, order="C")  # a copy: `out` may lie where the caller's weights do


def _output(
    out: NDArray[Any] | None, *, rows: Rows, out_dtype: str, outputs: int | None = None
) -> NDArray[Any]:
    if out_dtype not in ELEMENT_TYPES:
        raise InvalidInput(f"out_dtype: {out_dtype!r} is none of {', '.join(ELEMENT_TYPES)}")
    shape = (rows.columns,) if outputs is None else (outputs, rows.columns)
    stored = STORED_AS[out_dtype]
    if out is None:
        # From a cache line's beginning, as large rows are: no vector is then written across two.
        size_bytes = math.prod(shape) * stored.itemsize
        room = np.empty(size_bytes + CACHE_LINE_BYTES, dtype=np.uint8)
        skip = -room.ctypes.data % CACHE_LINE_BYTES
        made: NDArray[Any] = room[skip : skip + size_bytes].view(stored).reshape(shape)
        return made
    refuse_no_array("out", out)
    if out.shape != shape or out.dtype != stored:
        raise InvalidInput(
            f"out is {out.dtype} of shape {out.shape}: {stored} of shape {shape} is needed"
        )
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise InvalidInput("out must be contiguous and writeable")
    if any(np.may_share_memory(out, row) for row in rows.arrays):
        raise InvalidInput("out shares memory with a row: give it memory of its own")
    return out
