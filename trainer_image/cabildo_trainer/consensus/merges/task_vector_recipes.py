"""The pass that adds selected, voted and weighted task vectors to the base.

A task vector is x_i - base, in float32, rounded once. What is added to the base is
scale * sum w_i t_i (divided by a sum of weights where `normalize` says so) in fp64, rounded once.

Here: recipes with fixed selections, with random drops, and with columns chosen by variance. Never
here: finding a selection (`selection.py`) or a rule (`task_vectors.py`). Next: `cabildo_kernels`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

import cabildo_kernels as kernels
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.task_vectors import EVERYTHING
from cabildo_trainer.consensus.errors import MissingInput
from cabildo_trainer.consensus.random import Draws
from cabildo_trainer.consensus.recipes import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.chunks import Chunk
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec

PART_ELEMENTS: Final = 1 << 16
"""Entries of a row whose factors are in memory at a time: what ranks them fits in a cache."""

Bound = tuple[int, int]
"""(bits, stop): the entries whose magnitude is above `bits`, and of those equal to it the ones with
an index below `stop`: exactly the k largest, ties by index."""


@dataclass(frozen=True, slots=True)
class TaskVectors(Recipe):
    """base + scale * combination of the task vectors.

    Attributes:
        weights: One for each participant, in the order of keys, as given.
        scale: What the combination is multiplied with (lambda).
        normalize: Whether it is divided by the sum of the weights: of all rows, or with a vote of
            those that agree with it in the entry (the disjoint mean of TIES).
        elect: `none` adds all; `sum` or `count` keep the entries of the sign that has the larger
            weighted mass, or number of rows; a draw elects plus.
        votes: Weights of the vote; empty for `weights`.
        keep: What is kept of each row; empty for everything.
        drop: What is dropped again of it; empty for nothing.
    """

    kind: ClassVar[str] = "taskVectors"
    weights: tuple[float, ...]
    scale: float = 1.0
    normalize: bool = False
    elect: str = "none"
    votes: tuple[float, ...] = ()
    keep: tuple[Bound, ...] = ()
    drop: tuple[Bound, ...] = ()

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Combines the chunk's task vectors."""
        return self._combined(held(chunk), base=_base(chunk), out_dtype=out_dtype)

    def _combined(self, chunk: Chunk, *, base: ModelSource, out_dtype: str) -> NDArray[Any]:
        try:
            with chunk.naming():
                return kernels.combine_task_vectors(
                    chunk.rows(),
                    chunk.read(base),
                    self.weights,
                    start=chunk.start,
                    votes=self.votes or None,
                    keep=self.keep or None,
                    drop=self.drop or None,
                    factors=self.factors(chunk),
                    columns=self.columns(chunk),
                    elect=self.elect,
                    normalize=self.normalize,
                    scale=self.scale,
                    dtype=chunk.dtype,
                    base_dtype=base.tensors[chunk.name].kernel_dtype,
                    out_dtype=out_dtype,
                    threads=chunk.context.threads,
                )
        except kernels.InvalidInput:
            chunk.base()  # names the base where it is what holds NaN or Inf
            raise

    def factors(self, chunk: Chunk) -> list[NDArray[np.float64]] | None:
        """Returns what each entry of each row is multiplied with; None for 1."""
        del chunk
        return None

    def columns(self, chunk: Chunk) -> NDArray[np.bool_] | None:
        """Returns the columns in which the base is changed; None for all."""
        del chunk
        return None


@dataclass(frozen=True, slots=True)
class Dropped(TaskVectors):
    """Task vectors whose entries survive with a probability.

    Factors are twice as large as float32 rows, and finding them takes more: they are made for a
    part of the chunk at a time.
    """

    kind: ClassVar[str] = "droppedTaskVectors"

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Combines the chunk's task vectors part by part."""
        base, chunk = _base(chunk), held(chunk)
        chunk.read(base)  # all of it, so that its parts are found in memory
        unit = self.unit(chunk.spec)
        step = unit * max(1, PART_ELEMENTS // unit)
        parts = [
            self._combined(
                chunk.part(start, min(start + step, chunk.stop)), base=base, out_dtype=out_dtype
            )
            for start in range(chunk.start, chunk.stop, step)
        ]
        return np.concatenate(parts)

    @abstractmethod
    def factors(self, chunk: Chunk) -> list[NDArray[np.float64]]:
        """Draws for every row."""


@dataclass(frozen=True, slots=True)
class RandomlyDropped(Dropped):
    """Task vectors whose entries survive with a probability, each drawn on its own (DARE).

    Attributes:
        density: Probability that an entry is kept.
        rescale: Whether the kept ones are divided by it, so that the expectation stays.
    """

    kind: ClassVar[str] = "randomlyDroppedTaskVectors"
    density: float = 1.0
    rescale: bool = True

    def factors(self, chunk: Chunk) -> list[NDArray[np.float64]]:
        """Draws for every row."""
        kept = 1.0 / self.density if self.rescale else 1.0
        return [
            np.where(draws(chunk, key).uniform(chunk.start, chunk.stop) < self.density, kept, 0.0)
            for key in chunk.keys
        ]


@dataclass(frozen=True, slots=True)
class RankDropped(Dropped):
    """Task vectors whose entries survive with a probability that rises with their rank (DELLA).

    Entries are ranked by magnitude within their row of the matrix (a vector is one row), ties by
    index. Over the ranks the probability goes evenly from density - window / 2 for the smallest to
    density + window / 2 for the largest.

    Rows are never cut, so one that is larger than a tile takes its tile's place: 4 bytes an entry
    for each model, twice with the one read ahead, and 8 for its factors, and 60 once for the
    ranking. With 8 models a vector of a million entries takes about 200 MB.

    Attributes:
        density: Mean probability that an entry is kept.
        window: Difference of the probabilities of the largest and the smallest entry.
        rescale: Whether each kept entry is divided by its own probability.
    """

    kind: ClassVar[str] = "rankDroppedTaskVectors"
    density: float = 1.0
    window: float = 0.0
    rescale: bool = True

    def unit(self, spec: TensorSpec) -> int:
        """Ranks are taken in whole rows."""
        return row_length(spec)

    def factors(self, chunk: Chunk) -> list[NDArray[np.float64]]:
        """Ranks and draws for every row."""
        base, rows = chunk.base(), chunk.rows_float32()
        with default_environment():
            return [
                self._factors_of(np.abs(row - base), chunk, key)
                for key, row in zip(chunk.keys, rows, strict=True)
            ]

    def _factors_of(
        self, sizes: NDArray[np.float32], chunk: Chunk, key: str
    ) -> NDArray[np.float64]:
        length = row_length(chunk.spec)
        # Magnitudes sort as their bits do. Behind them the place from the row's end: all keys
        # differ, and the earlier of two equal entries counts as the larger one, as elsewhere.
        places = np.arange(length - 1, -1, -1, dtype=np.uint64)
        keys = sizes.view(np.uint32).reshape(-1, length).astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= places
        keys.sort(axis=1)
        keys &= np.uint64(0xFFFF_FFFF)
        order = keys.view(np.int64)
        np.subtract(length - 1, order, out=order)
        lowest = self.density - self.window / 2.0
        step = self.window / max(length - 1, 1)
        by_rank = lowest + step * np.arange(length, dtype=np.float64)
        probability = np.empty(sizes.size, dtype=np.float64)
        np.put_along_axis(probability.reshape(-1, length), order, by_rank[None, :], axis=1)
        kept = draws(chunk, key).uniform(chunk.start, chunk.stop) < probability
        grown = 1.0 / probability if self.rescale else np.ones_like(probability)
        return np.where(kept, grown, 0.0)


@dataclass(frozen=True, slots=True)
class VarianceSelected(TaskVectors):
    """Task vectors in the columns where they differ most among the models (SCE).

    Attributes:
        chosen: The columns of largest variance (its float32 bits, ties by index).
    """

    kind: ClassVar[str] = "varianceSelectedTaskVectors"
    chosen: Bound = EVERYTHING

    def columns(self, chunk: Chunk) -> NDArray[np.bool_] | None:
        """Selects by the variance of the chunk's columns."""
        if self.chosen == EVERYTHING:
            return None
        return inside(column_variance(chunk), self.chosen, start=chunk.start)


def _base(chunk: Chunk) -> ModelSource:
    base = chunk.context.base
    if base is None:
        raise MissingInput("task vectors are differences to a base, and none was given")
    return base


def held(chunk: Chunk) -> Chunk:
    """Returns the chunk with its rows read: asking for them again reads nothing."""
    return chunk.with_rows(chunk.rows(), dtype=chunk.dtype, keys=chunk.keys)


def column_variance(chunk: Chunk) -> NDArray[np.float32]:
    """Returns the variance of the task vectors in each column: fp64 in row order, rounded once."""
    base, rows = chunk.base(), chunk.rows_float32()
    with default_environment():
        return _variance([(row - base).astype(np.float64) for row in rows])


def _variance(differences: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    mean = np.zeros_like(differences[0])
    for difference in differences:
        mean += difference
    mean /= len(differences)
    total = np.zeros_like(differences[0])
    for difference in differences:
        total += (difference - mean) * (difference - mean)
    return (total / len(differences)).astype(np.float32)


def inside(values: NDArray[np.float32], bound: Bound, *, start: int) -> NDArray[np.bool_]:
    """Returns which entries a bound takes; `start` is the tensor's index of the first."""
    bits, stop = bound
    size = values.view(np.uint32) & np.uint32(0x7FFF_FFFF)
    index = np.arange(start, start + values.size)
    chosen: NDArray[np.bool_] = (size > bits) | ((size == bits) & (index < stop))
    return chosen


def draws(chunk: Chunk, key: str) -> Draws:
    """Returns the stream of a participant's entries of the chunk's tensor."""
    if chunk.context.seed is None:
        raise MissingInput("random drops are drawn from the round's seed, and none was given")
    return Draws(chunk.context.seed, key, chunk.name)


def row_length(spec: TensorSpec) -> int:
    """Returns the length of a matrix's rows; a vector is one row."""
    if len(spec.shape) < 2:  # noqa: PLR2004 - a vector or a number
        return max(spec.size, 1)
    return max(spec.shape[-1], 1)
