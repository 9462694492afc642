"""One chunk of one tensor across all participants: what a recipe's pass works on.

Here: reading the rows of a chunk, and saying which participant holds NaN or Inf. Never here: the
order of chunks; that is `passes.py`. Next: `recipes.py`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import cabildo_kernels as kernels
from cabildo_trainer.consensus.errors import MissingInput, NonFiniteInput
from cabildo_trainer.consensus.sources import to_float32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.context import Context
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec


@dataclass(frozen=True, slots=True)
class Chunk:
    """Elements [start, stop) of a floating tensor.

    `start` is a multiple of a superblock, or of the unit of a recipe that names one.

    Attributes:
        spec: The tensor.
        start: First element.
        stop: One past the last element.
        keys: Participant keys of the rows, in the order of all arithmetic.
        dtype: The rows' element type, as the kernels call it: f32, f16 or bf16.
        read_row: Reads one row by its number.
        context: The merge's context.
    """

    spec: TensorSpec
    start: int
    stop: int
    keys: tuple[str, ...]
    dtype: str
    read_row: Callable[[int], NDArray[Any]]
    context: Context

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.spec.name

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start

    def rows(self, indices: Sequence[int] | None = None) -> list[NDArray[Any]]:
        """Returns the rows (those with these numbers) as stored: float32, float16 or bf16 bits."""
        wanted = range(len(self.keys)) if indices is None else indices
        return [self.read_row(index) for index in wanted]

    def rows_float32(self, indices: Sequence[int] | None = None) -> list[NDArray[np.float32]]:
        """Returns the rows widened to float32, all of them finite."""
        wanted = tuple(range(len(self.keys)) if indices is None else indices)
        rows = [to_float32(row, dtype=self.dtype) for row in self.rows(wanted)]
        bad = tuple(
            self.keys[index]
            for index, row in zip(wanted, rows, strict=True)
            if not np.isfinite(row).all()
        )
        if bad:
            raise non_finite(bad)
        return rows

    def read(self, source: ModelSource) -> NDArray[Any]:
        """Returns the same elements of another model, as stored."""
        return source.read(self.name, self.start, self.stop)

    def read_float32(
        self, source: ModelSource, *, holder: str | None = None
    ) -> NDArray[np.float32]:
        """Returns the same elements of another model as float32, all of them finite.

        Args:
            source: The model.
            holder: Who is named when they are not finite: a participant's key, when the model is
                that participant's doing; by default the model itself, as trusted.
        """
        dtype = source.tensors[self.name].kernel_dtype
        values = to_float32(self.read(source), dtype=dtype)
        if not np.isfinite(values).all():
            raise non_finite((holder or trusted(source),))
        return values

    def base(self) -> NDArray[np.float32]:
        """Returns the same elements of the base."""
        if self.context.base is None:
            raise MissingInput("the recipe adds to a base, and none was given")
        return self.read_float32(self.context.base)

    def origin(self) -> NDArray[np.float32]:
        """Returns the same elements of the model that the round started from."""
        if self.context.start is None:
            raise MissingInput("the recipe adds to the round's first model, and none was given")
        return self.read_float32(self.context.start)

    def with_rows(
        self, rows: Sequence[NDArray[Any]], *, dtype: str, keys: tuple[str, ...]
    ) -> Chunk:
        """Returns the chunk with other rows, such as mixtures of the participants'."""
        given = tuple(rows)
        return replace(self, keys=keys, dtype=dtype, read_row=given.__getitem__)

    def part(self, start: int, stop: int) -> Chunk:
        """Returns elements [start, stop) of the tensor, which the chunk holds, as a chunk."""

        def read_row(index: int) -> NDArray[Any]:
            return self.read_row(index)[start - self.start : stop - self.start]

        return replace(self, start=start, stop=stop, read_row=read_row)

    @contextmanager
    def naming(self, keys: Sequence[str] | None = None) -> Iterator[None]:
        """Turns the kernels' row numbers into participants' keys."""
        try:
            yield
        except kernels.NonFiniteInput as error:
            names = self.keys if keys is None else keys
            raise non_finite(tuple(names[row] for row in error.rows)) from error


def trusted(source: ModelSource) -> str:
    """Returns how a model that is no participant's is named: no participant's key looks so."""
    return f"trusted:{source.key}"


def non_finite(participants: tuple[str, ...]) -> NonFiniteInput:
    """Returns the error that names who holds NaN or Inf."""
    return NonFiniteInput(
        f"NaN or Inf in the model of {', '.join(participants)}", participants=participants
    )
