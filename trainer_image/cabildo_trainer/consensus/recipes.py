"""How the output is made from the inputs: frozen descriptions of ONE streaming pass.

A recipe is everything that a verifier needs besides the inputs: it is written into the result as
JSON and read back bit for bit.

Here: sums, column rules, mixtures, and one recipe for each tensor. Never here: how its numbers were
found; that is a rule's `decide`. Next: `passes.py` applies a recipe chunk by chunk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np

import cabildo_kernels as kernels
from cabildo_trainer.consensus.errors import ImpossibleSetting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.chunks import Chunk
    from cabildo_trainer.consensus.sources import TensorSpec

Matrix = tuple[tuple[float, ...], ...]


class Recipe(ABC):
    """One streaming pass. Subclasses are frozen dataclasses of numbers, names and recipes."""

    kind: ClassVar[str]
    """Its name in JSON."""
    registry: ClassVar[dict[str, type[Recipe]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Recipe.registry[cls.kind] = cls

    @abstractmethod
    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Returns the chunk's elements of the output, rounded once to `out_dtype`."""

    def unit(self, spec: TensorSpec) -> int:
        """Returns what chunks of a tensor start and end at multiples of (or at its end).

        1 is for superblocks, which sums over the grid need; a recipe with another unit makes none:
        it works element by element, or in the unit as a whole.
        """
        del spec
        return 1

    def uses(self, row: int) -> bool:
        """Returns whether the output depends on a row."""
        del row
        return True

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as JSON values."""
        values = {field.name: _to_json(getattr(self, field.name)) for field in _fields(self)}
        return {"kind": self.kind, **values}


def recipe_from_json(value: Mapping[str, Any]) -> Recipe:
    """Returns the recipe that `to_json` described.

    Raises:
        ImpossibleSetting: It describes none that this release knows.
    """
    kind = value.get("kind") if isinstance(value, Mapping) else None
    recipe = Recipe.registry.get(kind) if isinstance(kind, str) else None
    if recipe is None:
        raise ImpossibleSetting(
            f"no recipe is called {kind!r}",
            remedy="use a release of cabildo-trainer that knows the recipe",
        )
    hints = get_type_hints(recipe)
    return recipe(
        **{key: _from_json(item, hints.get(key)) for key, item in value.items() if key != "kind"}
    )


def _fields(recipe: Any) -> tuple[Any, ...]:
    return fields(recipe)


def _to_json(value: Any) -> Any:
    if isinstance(value, Recipe):
        return value.to_json()
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    return value


def _from_json(value: Any, hint: Any) -> Any:
    """Returns the value of a field of a declared type.

    The type says what is a recipe, not the value: a tensor may be called like a recipe's member.
    """
    if isinstance(hint, type) and issubclass(hint, Recipe):
        return recipe_from_json(value)
    if get_origin(hint) is dict:
        _, inner = get_args(hint)
        return {key: _from_json(item, inner) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_from_json(item, None) for item in value)
    return value


def widened(chunk: Chunk) -> Chunk:
    """Returns the chunk with the round's first model as one more row, in float32."""
    rows = [*chunk.rows_float32(), chunk.origin()]
    return chunk.with_rows(rows, dtype="f32", keys=(*chunk.keys, "start"))


@dataclass(frozen=True, slots=True)
class WeightedSum(Recipe):
    """(sum_i weights[i] x_i + start_weight * start) / divisor, in fp64, rounded once.

    Rows of weight zero are not read.

    Attributes:
        weights: One for each participant, in the order of keys.
        start_weight: Weight of the model that the round started from (`Context.start`).
        divisor: An exact division at the end; equal weights are written as 1 and n.
    """

    kind: ClassVar[str] = "weightedSum"
    weights: tuple[float, ...]
    start_weight: float = 0.0
    divisor: float = 1.0

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Sums the rows."""
        used = [index for index in range(len(self.weights)) if self.uses(index)]
        rows, keys = chunk.rows(used), [chunk.keys[index] for index in used]
        weights = [self.weights[index] for index in used]
        dtypes = [chunk.dtype] * len(used)
        if self.start_weight != 0.0 or not used:
            rows.append(chunk.origin() if self.start_weight != 0.0 else _zeros(chunk))
            keys.append("start")
            weights.append(self.start_weight)
            dtypes.append("f32")
        with chunk.naming(keys):
            return kernels.weighted_sum(
                rows,
                np.asarray(weights, dtype=np.float64),
                divisor=self.divisor,
                dtype=dtypes,
                out_dtype=out_dtype,
                threads=chunk.context.threads,
            )

    def uses(self, row: int) -> bool:
        """Returns whether the row has a weight."""
        return self.weights[row] != 0.0

    def effective(self) -> tuple[float, ...]:
        """Returns the weights after the division."""
        return tuple(weight / self.divisor for weight in self.weights)


def _zeros(chunk: Chunk) -> NDArray[np.float32]:
    return np.zeros(chunk.size, dtype=np.float32)


def mean_of(rows: tuple[int, ...], *, n: int) -> WeightedSum:
    """Returns the recipe of the plain mean of some rows: ones, and one exact division."""
    chosen = set(rows)
    weights = tuple(1.0 if index in chosen else 0.0 for index in range(n))
    return WeightedSum(weights=weights, divisor=float(len(chosen)))


def single(row: int, *, n: int) -> WeightedSum:
    """Returns the recipe of one row as it is."""
    return mean_of((row,), n=n)


@dataclass(frozen=True, slots=True)
class ColumnRecipe(Recipe):
    """A rule for each coordinate on its own, over all rows or some.

    Attributes:
        rows: Numbers of the rows that take part; None for all.
    """

    kind: ClassVar[str] = "column"
    rows: tuple[int, ...] | None = None

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Computes the columns."""
        keys = chunk.keys if self.rows is None else [chunk.keys[index] for index in self.rows]
        with chunk.naming(keys):
            return self.columns(
                chunk.rows(self.rows),
                dtype=chunk.dtype,
                out_dtype=out_dtype,
                threads=chunk.context.threads,
            )

    @abstractmethod
    def columns(self, rows: list[NDArray[Any]], **options: Any) -> NDArray[Any]:
        """Calls the kernel."""

    def uses(self, row: int) -> bool:
        """Returns whether the row takes part."""
        return self.rows is None or row in self.rows


@dataclass(frozen=True, slots=True)
class ColumnMedian(ColumnRecipe):
    """The median of each coordinate."""

    kind: ClassVar[str] = "columnMedian"

    def columns(self, rows: list[NDArray[Any]], **options: Any) -> NDArray[Any]:
        """Calls the kernel."""
        return kernels.median(rows, **options)


@dataclass(frozen=True, slots=True)
class ColumnTrimmed(ColumnRecipe):
    """The mean of each coordinate without the `trim` lowest and highest values."""

    kind: ClassVar[str] = "columnTrimmed"
    trim: int = 0

    def columns(self, rows: list[NDArray[Any]], **options: Any) -> NDArray[Any]:
        """Calls the kernel."""
        return kernels.trimmed_mean(rows, trim=self.trim, **options)


@dataclass(frozen=True, slots=True)
class ColumnAroundMedian(ColumnRecipe):
    """The mean of the `keep` values of each coordinate that are nearest its median."""

    kind: ClassVar[str] = "columnAroundMedian"
    keep: int = 1

    def columns(self, rows: list[NDArray[Any]], **options: Any) -> NDArray[Any]:
        """Calls the kernel."""
        return kernels.mean_around_median(rows, keep=self.keep, **options)


@dataclass(frozen=True, slots=True)
class Mixed(Recipe):
    """Another recipe on mixtures of the rows, each rounded once to float32.

    Attributes:
        matrix: One line for each mixture, one weight for each participant.
        start_weights: For each mixture the weight of the model that the round started from.
        inner: What is done with the mixtures.
    """

    kind: ClassVar[str] = "mixed"
    matrix: Matrix
    start_weights: tuple[float, ...]
    inner: Recipe

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Mixes, then goes on."""
        weights = np.asarray(self.matrix, dtype=np.float64)
        given, keys, dtypes = chunk.rows(), chunk.keys, [chunk.dtype] * len(chunk.keys)
        if any(weight != 0.0 for weight in self.start_weights):
            column = np.asarray(self.start_weights, dtype=np.float64)[:, None]
            weights = np.concatenate((weights, column), axis=1)
            given, keys, dtypes = [*given, chunk.origin()], (*keys, "start"), [*dtypes, "f32"]
        with chunk.naming(keys):
            mixed = kernels.mix(given, weights, dtype=dtypes, threads=chunk.context.threads)
        names = tuple(f"mixture-{index}" for index in range(len(self.matrix)))
        return self.inner.apply(
            chunk.with_rows(list(mixed), dtype="f32", keys=names), out_dtype=out_dtype
        )

    def unit(self, spec: TensorSpec) -> int:
        """Returns the inner recipe's unit."""
        return self.inner.unit(spec)

    def uses(self, row: int) -> bool:
        """Returns whether a mixture that counts holds the row."""
        return any(
            line[row] != 0.0 and self.inner.uses(index) for index, line in enumerate(self.matrix)
        )


@dataclass(frozen=True, slots=True)
class PerTensor(Recipe):
    """A recipe for each tensor by name, and one for all others."""

    kind: ClassVar[str] = "perTensor"
    recipes: dict[str, Recipe]
    default: Recipe

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Goes on with the tensor's own recipe."""
        return self.for_tensor(chunk.name).apply(chunk, out_dtype=out_dtype)

    def unit(self, spec: TensorSpec) -> int:
        """Returns the unit of the tensor's recipe."""
        return self.for_tensor(spec.name).unit(spec)

    def for_tensor(self, name: str) -> Recipe:
        """Returns the recipe of one tensor."""
        return self.recipes.get(name, self.default)

    def uses(self, row: int) -> bool:
        """Returns whether any tensor depends on the row."""
        return self.default.uses(row) or any(item.uses(row) for item in self.recipes.values())
