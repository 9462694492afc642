"""The Gram matrix of n models and dot products with a vector: one pass over all parameters.

Everything that rules want to know of distances and angles comes from these n * n numbers; what is
made of them goes on in :mod:`cabildo_kernels.linear_algebra`. All sums are float64 on the fixed
grid (:mod:`cabildo_kernels.grid`), so bits depend on the values alone, never on path, threads or
how a tensor is cut into runs of whole superblocks. Here: the checks, the runs of superblocks and
the choice between compiled code and NumPy. Never here: a loop over columns (``native/`` and
``fallback/``), nor several tensors: pass the last result on as ``initial``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_kernels import dispatch
from cabildo_kernels.arguments import real_numbers, refuse_no_array
from cabildo_kernels.errors import InvalidInput, NonFiniteInput
from cabildo_kernels.fallback import gram as fallback
from cabildo_kernels.grid import superblocks
from cabildo_kernels.rows import Rows, checked_rows, non_finite_rows, refuse_non_finite
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

SUMS_AT_ONCE: Final = 1 << 18
"""Numbers kept before they are added up: 2 MiB, whatever the length of the rows."""


def gram(
    rows: Sequence[NDArray[Any]],
    *,
    base: NDArray[Any] | None = None,
    initial: ArrayLike | None = None,
    dtype: str | Sequence[str] | None = None,
    base_dtype: str | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Return the inner products <x_i - base, x_j - base> of all pairs of rows.

    The difference to the base is rounded to float32 once; its products are exact in float64 and
    added in the order of the grid. The accuracy of distances is that of the values after
    centring, so give the trusted base, or the last global model, where there is one; never a
    participant's row, which an attacker chooses.

    Args:
        rows: 1 to 64 arrays [d] of float32, float16 or, where `dtype` says "bf16", uint16.
        base: One array [d] that is subtracted from every row, or None.
        initial: float64 [n, n] that the sums are added to: the result over the tensors, or over
            the run of whole superblocks of this tensor, that came before. None for zeros.
        dtype: Element type of all rows or of each; None reads it off the arrays.
        base_dtype: Element type of the base; None reads it off the array, uint16 is bf16.
        threads: How many; None for the CPU quota, on large inputs only.

    Returns:
        float64 [n, n], symmetric to the bit.

    Raises:
        NonFiniteInput: Naming the rows that hold NaN or infinity, or whose difference to the base
            overflows float32.
        InvalidInput: Rows, base or initial of another shape or type, or not finite where no row
            is at fault.
    """
    checked = checked_rows(rows, dtype=dtype)
    origin = _vector(base, name="base", dtype=base_dtype, rows=checked)
    total = _initial(initial, shape=(len(checked), len(checked)))
    total = _summed(checked, vector=None, base=origin, total=total, threads=threads)
    if not np.isfinite(np.diagonal(total)).all():  # a finite value cannot overflow a sum
        _refuse(np.diagonal(total), rows=checked, trusted={"base": origin})
    return total


def dots(
    rows: Sequence[NDArray[Any]],
    vector: NDArray[Any],
    *,
    base: NDArray[Any] | None = None,
    initial: ArrayLike | None = None,
    dtype: str | Sequence[str] | None = None,
    base_dtype: str | None = None,
    vector_dtype: str | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Return the inner products <x_i - base, vector>, on the same grid and lanes as `gram`.

    Args:
        rows: As for `gram`.
        vector: One array [d]; the base is not subtracted from it.
        base: As for `gram`.
        initial: float64 [n], otherwise as for `gram`.
        dtype: As for `gram`.
        base_dtype: As for `gram`.
        vector_dtype: Element type of the vector, as `base_dtype`.
        threads: As for `gram`.

    Returns:
        float64 [n].

    Raises:
        NonFiniteInput: As for `gram`.
        InvalidInput: As for `gram`, and for the vector as for the base.
    """
    checked = checked_rows(rows, dtype=dtype)
    origin = _vector(base, name="base", dtype=base_dtype, rows=checked)
    other = _vector(vector, name="vector", dtype=vector_dtype, rows=checked)
    total = _initial(initial, shape=(len(checked),))
    total = _summed(checked, vector=other, base=origin, total=total, threads=threads)
    if not np.isfinite(total).all():
        _refuse(total, rows=checked, trusted={"base": origin, "vector": other})
    return total


def _summed(
    rows: Rows,
    *,
    vector: Rows | None,
    base: Rows | None,
    total: NDArray[np.float64],
    threads: int | None,
) -> NDArray[np.float64]:
    """``total`` (contiguous, written to) plus the sums of all superblocks, one after another."""
    native = dispatch.native("gram")
    asked = threads_for(rows.size_bytes, asked=threads)
    at_once = max(1, SUMS_AT_ONCE // total.size)
    for first in range(0, superblocks(rows.columns), at_once):
        count = min(at_once, superblocks(rows.columns) - first)
        if native is not None:
            sums = np.empty((count, *total.shape))
            native.run(
                dispatch.path(),
                rows.arrays,
                rows.codes,
                rows.columns,
                first,
                sums.reshape(-1),
                threads=asked,
                **_extra("base", base),
                **_extra("vector", vector),
            )
            native.add(total.reshape(-1), sums.reshape(-1))
            continue
        if vector is None:
            sums = fallback.gram(rows, base=base, first=first, count=count)
        else:
            sums = fallback.dots(rows, vector=vector, base=base, first=first, count=count)
        total = fallback.added(total, sums)
    return total


def _extra(name: str, vector: Rows | None) -> dict[str, Any]:
    """Base or vector as the compiled code takes it."""
    if vector is None:
        return {}
    return {name: vector.arrays[0], f"{name}_type": vector.codes[0]}


def _vector(array: NDArray[Any] | None, *, name: str, dtype: str | None, rows: Rows) -> Rows | None:
    """One vector as long as the rows, checked like them."""
    if array is None:
        return None
    refuse_no_array(name, array)
    if dtype is None and array.dtype == np.uint16:
        dtype = "bf16"
    try:
        checked = checked_rows([array], dtype=dtype)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error}") from error
    if checked.columns != rows.columns:
        raise InvalidInput(f"{name} has {checked.columns} elements, the rows have {rows.columns}")
    return checked


def _initial(initial: ArrayLike | None, *, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if initial is None:
        return np.zeros(shape)
    # A copy, to be added to in place.
    given = np.array(real_numbers("initial", initial), order="C")
    if given.shape != shape:
        raise InvalidInput(f"initial has shape {given.shape}: {shape} is needed")
    if not np.isfinite(given).all():
        raise InvalidInput("initial holds NaN or infinity: give the result of an earlier call")
    return given


def _refuse(sums: NDArray[np.float64], *, rows: Rows, trusted: dict[str, Rows | None]) -> None:
    """Name what made the sums not finite: base or vector, rows as they are, or differences."""
    for name, checked in trusted.items():
        if checked is not None and non_finite_rows(checked):
            raise InvalidInput(f"{name} holds NaN or infinity: every sum would")
    refuse_non_finite(rows)
    raise NonFiniteInput(np.flatnonzero(~np.isfinite(sums)).tolist())
