"""Softmax of the rows of a sparse matrix (CSR), over the stored entries alone.

Here: the checks and the choice between compiled code and NumPy; both give the same bits on every
path and number of threads. Never here: a loop over rows; see `native/` and `fallback/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_kernels import dispatch
from cabildo_kernels.arguments import refuse_no_array
from cabildo_kernels.errors import InvalidInput, NonFiniteInput
from cabildo_kernels.fallback import csr_softmax as fallback
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.layout import in_one_piece
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sparse_softmax(
    data: NDArray[np.float32],
    indptr: NDArray[Any],
    *,
    out: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return softmax(row) for each row of a CSR matrix; entries not stored have weight 0.

    No library does this work: torch.sparse.softmax takes COO tensors only. An entry of -inf is
    masked and becomes 0, a row of nothing but -inf becomes zeros, an empty row has no result. The
    column indices play no part: the result goes with the caller's own.
    exp is a polynomial of ours (within 1 unit in the last place; 0 below -87), and the sum of a row
    is taken in 16 lanes: see `native/lanes.h`.

    Args:
        data: [entries], float32: the stored entries, row after row.
        indptr: [rows + 1], int32 or int64: row r is data[indptr[r]:indptr[r + 1]].
        out: [entries] to write to, contiguous; None makes one. It may be `data` or share memory
            with it or with `indptr`: what it would overwrite is copied first.
        threads: None: the CPU quota, on inputs above 1 MB. No number changes the result.

    Returns:
        [entries], float32.

    Raises:
        NonFiniteInput: Naming the rows with NaN or +inf.
        InvalidInput: An argument that is not as described.
    """
    values = _one_axis(data, name="data", dtypes=(np.dtype(np.float32),))
    starts = _row_starts(indptr, entries=len(values))
    result = np.empty_like(values) if out is None else out
    if not _is_output(result, like=values):
        raise InvalidInput(
            f"out: a writable contiguous aligned float32 array of {len(values)} is needed"
        )
    if out is not None:
        values, starts = (
            array.copy() if np.may_share_memory(result, array) else array
            for array in (values, starts)
        )
    count = threads_for(values.nbytes, asked=threads)
    native = dispatch.native("softmax")
    if native is None:
        with default_environment():
            bad = fallback.sparse_softmax(values, starts, result)
    elif native.sparse_softmax(values, starts, result, path=dispatch.path(), threads=count):
        return result
    else:
        with default_environment():
            bad = fallback.sparse_softmax(values, starts, np.empty_like(values))
    if len(bad):
        raise NonFiniteInput(bad.tolist())
    return result


def _one_axis(array: NDArray[Any], *, name: str, dtypes: tuple[np.dtype[Any], ...]) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype not in dtypes:
        found = f"{array.dtype}{array.shape}" if isinstance(array, np.ndarray) else type(array)
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise InvalidInput(f"{name}: {found}; a NumPy array of one axis of {wanted} is needed")
    refuse_no_array(name, array)
    return in_one_piece(array)


def _row_starts(indptr: NDArray[Any], *, entries: int) -> NDArray[np.int64]:
    dtypes = (np.dtype(np.int64), np.dtype(np.int32))
    starts = _one_axis(indptr, name="indptr", dtypes=dtypes).astype(np.int64, copy=False)
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != entries:
        ends = f"{starts[0]}..{starts[-1]}" if len(starts) else "nothing"
        raise InvalidInput(f"indptr: runs over {ends}; it must go from 0 to the {entries} entries")
    falls = np.flatnonzero(starts[1:] < starts[:-1])
    if len(falls):
        raise InvalidInput(f"indptr: row {falls[0]} ends before it starts; it must never fall")
    return starts


def _is_output(out: NDArray[Any], *, like: NDArray[np.float32]) -> bool:
    return (
        isinstance(out, np.ndarray)
        and not isinstance(out, np.ma.MaskedArray)
        and out.dtype == np.float32
        and out.shape == like.shape
        and out.flags.c_contiguous
        and out.flags.aligned
        and out.flags.writeable
    )
