"""Exact selection by magnitude in tensors that need not fit in memory.

"The k largest of a tensor, ties by index" becomes a bound (bits, stop): one pass counts the leading
16 of 31 bits, a second one the rest behind the chosen prefix, a third finds the last tie. A tensor
up to `CACHED_BYTES` is read once and kept for the three; a larger one is read again.

Here: bounds for the rows of a session, and for a column statistic. Never here: what is done with
them. Next: `task_vector_recipes.py`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

import cabildo_kernels as kernels
from cabildo_kernels.task_vectors import (
    EVERYTHING,
    FIRST_NON_FINITE,
    HIGH_BINS,
    LOW_BINS,
    LOW_BITS,
    NOTHING,
)
from cabildo_kernels.threads import threads_for
from cabildo_trainer.consensus.chunks import non_finite
from cabildo_trainer.consensus.passes import spans
from cabildo_trainer.consensus.sources import NUMPY_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.merges.task_vector_recipes import Bound
    from cabildo_trainer.consensus.passes import Session
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec

CACHED_BYTES: Final = 40 * 2**20
"""Of one tensor of one model; three such are held at a time with two threads."""


class Pieces(Protocol):
    """A tensor in pieces, as often as asked for."""

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any], NDArray[Any] | None]]:
        """Yields (first index, elements, elements of the base or None)."""


def bounds_of(
    pieces: Pieces, ranks: Sequence[int], *, size: int, dtype: str, base_dtype: str, key: str
) -> list[Bound]:
    """Returns the bound of the `rank` largest magnitudes for every rank.

    Args:
        pieces: The tensor.
        ranks: How many entries each bound takes.
        size: Elements of the tensor.
        dtype: Element type of the pieces, as the kernels call it.
        base_dtype: That of the base.
        key: Whose tensor it is.

    Raises:
        NonFiniteInput: NaN, Inf or a difference beyond float32.
    """
    counts = np.zeros(HIGH_BINS, dtype=np.uint64)
    for _, row, base in pieces:
        kernels.magnitude_counts(row, base, counts=counts, dtype=dtype, base_dtype=base_dtype)
    if counts[FIRST_NON_FINITE:].any():
        raise non_finite((key,))
    found: dict[int, Bound] = {rank: NOTHING for rank in ranks if rank <= 0}
    found |= {rank: EVERYTHING for rank in ranks if rank >= size}
    open_ranks = {rank: _bin_of(counts, rank) for rank in ranks if rank not in found}
    low = {prefix: np.zeros(LOW_BINS, dtype=np.uint64) for prefix, _ in open_ranks.values()}
    for prefix, bins in low.items():
        for _, row, base in pieces:
            kernels.magnitude_counts(
                row, base, prefix=prefix, counts=bins, dtype=dtype, base_dtype=base_dtype
            )
    for rank, (prefix, above) in open_ranks.items():
        last, higher = _bin_of(low[prefix], rank - above)
        bits, ties = prefix << LOW_BITS | last, rank - above - higher
        everyone = ties == int(low[prefix][last])
        found[rank] = (bits, size)
        if not everyone:
            place = _index_of(pieces, bits, ties - 1, dtype=dtype, base_dtype=base_dtype)
            found[rank] = (bits, place + 1)
    return [found[rank] for rank in ranks]


def _bin_of(counts: NDArray[np.uint64], rank: int) -> tuple[int, int]:
    """Returns the bin that holds the rank-th largest, and how many lie in the bins above it."""
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, rank, side="left"))
    return counts.size - 1 - place, 0 if place == 0 else int(from_top[place - 1])


def _index_of(pieces: Pieces, bits: int, nth: int, *, dtype: str, base_dtype: str) -> int:
    seen = 0
    for start, row, base in pieces:
        index, before = kernels.find_magnitude(
            row, base, bits=bits, nth=nth - seen, dtype=dtype, base_dtype=base_dtype
        )
        if index >= 0:
            return start + index
        seen += before
    raise AssertionError("a counted magnitude was not found again: the model changed meanwhile")


def row_bounds(
    session: Session, base: ModelSource, ranks_of: RanksOf
) -> Iterator[tuple[str, list[list[Bound]]]]:
    """Yields (tensor, for each row the bounds of its ranks) by magnitude of x_i - base.

    One pass over the inputs for tensors up to `CACHED_BYTES`, three to four for larger ones.

    Args:
        session: The rows.
        base: What differences are taken to.
        ranks_of: From a tensor's specification to the ranks.
    """
    session.reads += 1
    threads = threads_for(1 << 30, asked=session.context.threads)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for spec in session.specs.values():
            if not spec.is_floating:
                continue
            origin = _Tensor(base, spec.name, session.chunk_elements)
            origin.load()

            def bounds(
                row: ModelSource, *, origin: _Tensor = origin, spec: TensorSpec = spec
            ) -> list[Bound]:
                tensor = _Tensor(row, spec.name, session.chunk_elements)
                tensor.load()
                return bounds_of(
                    _Pairs(tensor, origin),
                    ranks_of(spec),
                    size=spec.size,
                    dtype=spec.kernel_dtype,
                    base_dtype=base.tensors[spec.name].kernel_dtype,
                    key=row.key,
                )

            # A base that is read again and again has one reader at a time.
            mapped = pool.map if origin.is_cached else map
            yield spec.name, list(mapped(bounds, session.sources))
            if session.context.progress is not None:
                session.context.progress(spec.name, spec.size, spec.size)


class RanksOf(Protocol):
    """How many entries of a tensor each bound takes."""

    def __call__(self, spec: TensorSpec, /) -> Sequence[int]:
        """Returns the ranks."""


class _Tensor:
    """A tensor of a model, kept in memory where it is small enough."""

    def __init__(self, source: ModelSource, name: str, step: int) -> None:
        self.source = source
        self.spec = source.tensors[name]
        self.step = step
        dtype = np.dtype(NUMPY_TYPES[self.spec.dtype])
        self.is_cached = self.spec.size * dtype.itemsize <= CACHED_BYTES
        self._values = np.empty(self.spec.size if self.is_cached else 0, dtype=dtype)

    def load(self) -> None:
        """Reads a tensor that is kept."""
        if self.is_cached:
            for start, stop in spans(self.spec, unit=1, size=self.step):
                self._values[start:stop] = self.source.read(self.spec.name, start, stop)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Returns elements [start, stop)."""
        if self.is_cached:
            return self._values[start:stop]
        return self.source.read(self.spec.name, start, stop)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yields the pieces: one where it is kept."""
        if self.is_cached:
            return iter([(0, self.spec.size)])
        return spans(self.spec, unit=1, size=self.step)


class _Pairs:
    """A row's tensor with the base's."""

    def __init__(self, row: _Tensor, base: _Tensor) -> None:
        self._row, self._base = row, base

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any], NDArray[Any] | None]]:
        coarse = self._base if self._row.is_cached else self._row
        for start, stop in coarse.spans():
            yield start, self._row.read(start, stop), self._base.read(start, stop)
