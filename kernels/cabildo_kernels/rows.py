"""The rows that a kernel reads: n arrays of one length, each of its own element type.

Here: checking what the caller gave, once, before any pointer is taken. Never here: arithmetic on
the values; whether they are finite is found while they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_kernels.arguments import refuse_no_array
from cabildo_kernels.errors import InvalidInput, NonFiniteInput
from cabildo_kernels.grid import SUPERBLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_ROWS: Final = 64
# In the order of native/columns.h: a type's place is the number that the compiled code takes.
ELEMENT_TYPES: Final = ("f32", "f16", "bf16")
STORED_AS: Final[dict[str, np.dtype[Any]]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that passed the checks.

    Attributes:
        arrays: n arrays [d], contiguous.
        types: n of ELEMENT_TYPES.
        columns: d.
    """

    arrays: tuple[NDArray[Any], ...]
    types: tuple[str, ...]
    columns: int

    def __len__(self) -> int:
        """Return n."""
        return len(self.arrays)

    @property
    def codes(self) -> bytes:
        """The types as the compiled code takes them."""
        return bytes(map(ELEMENT_TYPES.index, self.types))

    @property
    def size_bytes(self) -> int:
        """What reading all rows once moves."""
        return sum(array.nbytes for array in self.arrays)

    def float32(self, row: int, start: int, stop: int) -> NDArray[np.float32]:
        """Return columns start..stop-1 of a row as float32 (exact), the row itself if it is f32."""
        piece = self.arrays[row][start:stop]
        if self.types[row] == "f32":
            return piece
        if self.types[row] == "f16":
            return piece.astype(np.float32)
        return (piece.astype(np.uint32) << np.uint32(16)).view(np.float32)


def checked_rows(rows: Sequence[NDArray[Any]], *, dtype: str | Sequence[str] | None) -> Rows:
    """Check rows and take contiguous views of them (a row with gaps is copied).

    Args:
        rows: 1 to 64 arrays [d] of float32, float16 or, where `dtype` says "bf16", uint16.
        dtype: Element type of all rows or of each; None reads it off the arrays.

    Raises:
        InvalidInput: Naming the row, what it is and what is taken.
    """
    if not 1 <= len(rows) <= MOST_ROWS:
        raise InvalidInput(f"rows: {len(rows)} were given; kernels take 1 to {MOST_ROWS}")
    for index, row in enumerate(rows):
        if type(row) is not np.ndarray:
            refuse_no_array(f"rows[{index}]", row)
    types = _types(rows, dtype=dtype)
    columns = -1
    arrays: list[NDArray[Any]] = []
    for index, (row, name) in enumerate(zip(rows, types, strict=True)):
        if row.ndim != 1 or (arrays and len(row) != columns):
            expected = f"({columns},)" if arrays else "one dimension"
            raise InvalidInput(f"rows[{index}] has shape {row.shape}: {expected} is expected")
        if row.dtype != STORED_AS[name]:
            raise InvalidInput(
                f"rows[{index}] holds {row.dtype}, which is no {name}: give float32, float16, or"
                " uint16 with dtype='bf16'"
            )
        columns = len(row)
        arrays.append(row if row.flags.c_contiguous else np.ascontiguousarray(row))
    return Rows(arrays=tuple(arrays), types=types, columns=columns)


def _types(rows: Sequence[NDArray[Any]], *, dtype: str | Sequence[str] | None) -> tuple[str, ...]:
    if dtype is None:
        return tuple("f16" if row.dtype == np.float16 else "f32" for row in rows)
    types = (dtype,) * len(rows) if isinstance(dtype, str) else tuple(dtype)
    if len(types) != len(rows):
        raise InvalidInput(f"dtype: {len(types)} types for {len(rows)} rows; give one for each")
    for name in types:
        if name not in ELEMENT_TYPES:
            raise InvalidInput(f"dtype: {name!r} is none of {', '.join(ELEMENT_TYPES)}")
    return types


def non_finite_rows(rows: Rows) -> tuple[int, ...]:
    """Return the indices of all rows that hold NaN or infinity."""
    return tuple(index for index in range(len(rows)) if not _finite(rows, index))


def _finite(rows: Rows, index: int) -> bool:
    return all(
        bool(np.isfinite(rows.float32(index, start, start + SUPERBLOCK)).all())
        for start in range(0, rows.columns, SUPERBLOCK)
    )


def refuse_non_finite(rows: Rows) -> None:
    """Look closely where a sum over a column was not finite: an overflow of finite values is fine.

    Raises:
        NonFiniteInput: Naming every row with NaN or infinity, whichever was met first.
    """
    found = non_finite_rows(rows)
    if found:
        raise NonFiniteInput(found)
