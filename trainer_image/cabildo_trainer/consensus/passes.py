"""What a rule decides from: passes over the inputs, in the one order of the grid.

Tensors go in byte order of name, chunks from the first element on, always whole superblocks (or
whole units of a recipe that names one), so the chunk size never changes a bit.

Here: the session, its Gram matrix, and the pass that applies a recipe. Never here: a rule, or the
exclusion of participants. Next: `merging.py`.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import cabildo_kernels as kernels
from cabildo_trainer.consensus.chunks import Chunk, trusted
from cabildo_trainer.consensus.errors import (
    ConsensusError,
    EvaluatorFailed,
    ImpossibleSetting,
    MissingInput,
)
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.context import Context, Evaluator
    from cabildo_trainer.consensus.recipes import Recipe
    from cabildo_trainer.consensus.sinks import ModelSink, WorkingSink
    from cabildo_trainer.consensus.sources import ModelSource

SUPERBLOCKS_A_CHUNK: Final = 8
"""About 0.8 MB of float32 a row: large enough to stream, small enough for 64 rows in memory."""
BYTES_IN_FLIGHT: Final = 32 * 2**20
"""All rows of a chunk together stay below this."""
OUTPUT_DTYPES: Final = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
INFINITIES: Final = {
    "f32": (0x7F80_0000, 0xFF80_0000, "<i4", "<u4"),
    "f16": (0x7C00, 0xFC00, "<i2", "<u2"),
    "bf16": (0x7F80, 0xFF80, "<i2", "<u2"),
}
"""Bits of plus and minus infinity, with the integers of their size: NaN has higher bits yet."""


@dataclass(frozen=True, slots=True)
class Gram:
    """Inner products of the rows, in fp64.

    Attributes:
        matrix: (n, n), or (n + extras, n + extras).
        digest: `sha256:<hex>` over grid version, keys and the matrix, little endian.
        centred: Whether the model that the round started from was subtracted first.
    """

    matrix: NDArray[np.float64]
    digest: str
    centred: bool

    def squared_distances(self) -> NDArray[np.float64]:
        """Returns |x_i - x_j|^2, never below zero, zero on the diagonal."""
        return kernels.squared_distances(self.matrix)

    def squared_norms(self) -> NDArray[np.float64]:
        """Returns |x_i - centre|^2."""
        return np.diagonal(self.matrix).copy()


@dataclass(slots=True)
class Session:
    """The inputs of one decision, sorted by participant key.

    Attributes:
        sources: The models that take part.
        f: How many of them may still be arbitrary.
        context: The merge's context.
        reads: Passes over the inputs so far.
    """

    sources: tuple[ModelSource, ...]
    f: int
    context: Context
    reads: int = 0
    _grams: dict[tuple[int | None, tuple[int, ...]], Gram] = field(default_factory=dict)
    _keep: list[ModelSource] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.sources)

    @property
    def keys(self) -> tuple[str, ...]:
        """Participant keys of the rows."""
        return tuple(source.key for source in self.sources)

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """All tensors, in byte order of name."""
        tensors = self.sources[0].tensors
        return {name: tensors[name] for name in sorted(tensors, key=str.encode)}

    def chunks(self, recipe: Recipe | None = None) -> Iterator[Chunk]:
        """Yields every chunk of every floating tensor, in the order of the grid."""
        self.reads += 1
        for spec in self.specs.values():
            if spec.is_floating:
                unit = 1 if recipe is None else recipe.unit(spec)
                for start, stop in spans(spec, unit=unit, size=self.chunk_elements):
                    yield self.chunk(spec, start=start, stop=stop)
                    if self.context.progress is not None:
                        self.context.progress(spec.name, stop, spec.size)

    def chunk(self, spec: TensorSpec, *, start: int, stop: int) -> Chunk:
        """Returns elements [start, stop) of a tensor across the rows."""

        def read_row(index: int) -> NDArray[Any]:
            return self.sources[index].read(spec.name, start, stop)

        return Chunk(
            spec=spec,
            start=start,
            stop=stop,
            keys=self.keys,
            dtype=spec.kernel_dtype,
            read_row=read_row,
            context=self.context,
        )

    @property
    def chunk_elements(self) -> int:
        """Elements that are read at a time and row: whole superblocks."""
        if self.context.chunk_elements:
            return self.context.chunk_elements
        fitting = BYTES_IN_FLIGHT // (4 * (self.n + 2) * kernels.SUPERBLOCK)
        return kernels.SUPERBLOCK * max(1, min(SUPERBLOCKS_A_CHUNK, fitting))

    def gram(self, *, extra: tuple[ModelSource, ...] = ()) -> Gram:
        """Returns the Gram matrix, centred on `Context.start` where there is one; one pass.

        It is never centred on a participant's row nor on the mean: either can be an attacker's.

        Args:
            extra: Trusted models that are added as further rows, such as the root update.
        """
        base = self.context.start
        cached = (None if base is None else id(base), tuple(id(source) for source in extra))
        if cached not in self._grams:
            self._keep += [*extra, *([] if base is None else [base])]
            self._grams[cached] = self._gram(base, extra=extra)
        return self._grams[cached]

    def _gram(self, base: ModelSource | None, *, extra: tuple[ModelSource, ...]) -> Gram:
        keys = (*self.keys, *(trusted(source) for source in extra))
        total: NDArray[np.float64] | None = None
        for chunk in self.chunks():
            dtypes = [chunk.dtype] * self.n
            dtypes += [source.tensors[chunk.name].kernel_dtype for source in extra]
            with chunk.naming(keys):
                total = kernels.gram(
                    [*chunk.rows(), *(chunk.read(source) for source in extra)],
                    base=None if base is None else chunk.read_float32(base),
                    initial=total,
                    dtype=dtypes,
                    threads=self.context.threads,
                )
        if total is None:
            total = np.zeros((len(keys), len(keys)), dtype=np.float64)
        return Gram(matrix=total, digest=gram_digest(total, keys=keys), centred=base is not None)

    def dots(self, vector: ModelSource) -> NDArray[np.float64]:
        """Returns <x_i - start, vector> for every row (start as for `gram`); one pass."""
        base = self.context.start
        total: NDArray[np.float64] | None = None
        for chunk in self.chunks():
            with chunk.naming():
                total = kernels.dots(
                    chunk.rows(),
                    chunk.read_float32(vector),
                    base=None if base is None else chunk.read_float32(base),
                    initial=total,
                    dtype=[chunk.dtype] * self.n,
                    threads=self.context.threads,
                )
        return np.zeros(self.n, dtype=np.float64) if total is None else total

    def order(self, scores: Sequence[float]) -> list[int]:
        """Returns row numbers by rising score; equal scores go by digest, then by key."""
        ranked = sorted(range(self.n), key=lambda row: scores[row])
        if len({float(scores[row]) for row in ranked}) == self.n:
            return ranked
        return sorted(
            ranked, key=lambda row: (scores[row], self.sources[row].digest, self.keys[row])
        )

    def by_digest(self) -> list[int]:
        """Returns row numbers by digest, then key: the order in which ties are searched."""
        return sorted(range(self.n), key=lambda row: (self.sources[row].digest, self.keys[row]))

    def lowest(self, scores: Mapping[int, float]) -> int:
        """Returns the row with the lowest of some rows' scores; ties by digest, then key."""
        least = min(scores.values())
        rows = [row for row, score in scores.items() if score == least]
        if len(rows) == 1:
            return rows[0]
        return min(rows, key=lambda row: (self.sources[row].digest, self.keys[row]))

    @property
    def root(self) -> Session:
        """The session of the participants' own models."""
        return self

    def lift(self, recipe: Recipe) -> Recipe:
        """Returns a recipe over this session's rows as one over the participants' models."""
        return recipe

    def materialise(self, recipe: Recipe, *, key: str = "candidate") -> ModelSource:
        """Returns the model that a recipe makes, in the context's workspace; one pass."""
        workspace = self.context.workspace
        sink: WorkingSink = MemorySink(key=key) if workspace is None else workspace(key)
        apply(self, recipe, sink=sink)
        return sink.model()

    def loss(self, recipe: Recipe, *, key: str = "candidate") -> float:
        """Returns the trusted loss of the model that a recipe makes, as `loss_of` does."""
        return self.loss_of(self.materialise(recipe, key=key))

    def loss_of(self, model: ModelSource) -> float:
        """Returns the trusted loss of a model; what is not finite counts as infinite.

        Raises:
            EvaluatorFailed: The evaluator raised an error, or gave no number.
        """
        with _evaluating(self.evaluator, what="loss"):
            loss = float(self.evaluator.loss(model))
        return loss if math.isfinite(loss) else math.inf

    def gradient_at(self, model: ModelSource) -> ModelSource:
        """Returns the gradient of the trusted loss at a model.

        Raises:
            EvaluatorFailed: It raised an error, or is of another form than the models.
        """
        gradient = self.context.gradient
        if gradient is None:
            raise MissingInput("the rule follows a gradient, and none was given")
        with _evaluating(gradient, what="gradient"):
            slope = gradient.gradient(model)
            for name, spec in self.specs.items():
                if not spec.is_floating:
                    continue
                found = slope.tensors[name]
                if tuple(found.shape) != tuple(spec.shape):
                    raise ValueError(
                        f"tensor {name!r} has shape {list(found.shape)},"
                        f" the models' {list(spec.shape)}"
                    )
                if not found.is_floating:
                    raise ValueError(
                        f"tensor {name!r} has element type {found.dtype}, and a gradient's is F32"
                    )
        return slope

    @property
    def evaluator(self) -> Evaluator:
        """The trusted loss."""
        if self.context.evaluator is None:
            raise MissingInput("the rule needs a loss on trusted data, and no evaluator was given")
        return self.context.evaluator


def gram_digest(matrix: NDArray[np.float64], *, keys: Sequence[str]) -> str:
    """Returns the digest that verifiers compare before any weight is computed."""
    state = hashlib.sha256(kernels.GRID_VERSION.encode())
    for key in keys:
        state.update(len(key.encode()).to_bytes(8, "big") + key.encode())
    state.update(np.ascontiguousarray(matrix, dtype="<f8").tobytes())
    return f"sha256:{state.hexdigest()}"


def spans(spec: TensorSpec, *, unit: int, size: int) -> Iterator[tuple[int, int]]:
    """Yields [start, stop) of a tensor's chunks: whole superblocks, or else whole units.

    Only sums over the grid need superblocks, and a recipe with a unit above 1 makes none. Chunks
    of both would be as large as the tensor wherever a row's length has few factors in common with
    a superblock.
    """
    part = unit if unit > 1 else kernels.SUPERBLOCK
    step = part * max(1, size // part)
    for start in range(0, spec.size, step):
        yield start, min(start + step, spec.size)


def apply(
    session: Session, recipe: Recipe, *, sink: ModelSink, output_dtype: str | None = None
) -> None:
    """Runs the one pass of a recipe and writes every tensor into the sink, which stays open.

    Args:
        session: The inputs; the recipe is one over its rows.
        recipe: What is computed.
        sink: Where it goes.
        output_dtype: Element type of all floating tensors; None keeps each tensor's own.

    Raises:
        ImpossibleSetting: The result leaves the range of its element type.
    """
    session, recipe = session.root, session.lift(recipe)
    output = {
        name: TensorSpec(name=name, dtype=output_dtype or spec.dtype, shape=spec.shape)
        if spec.is_floating
        else spec
        for name, spec in session.specs.items()
    }
    sink.begin(output)
    for chunk in session.chunks(recipe):
        out_dtype = OUTPUT_DTYPES[output[chunk.name].dtype]
        # No name for the tile here: the sink has it, and it is gone once it is written.
        sink.write(chunk.name, chunk.start, _computed(recipe, chunk, out_dtype=out_dtype))
    for spec in session.specs.values():
        if not spec.is_floating:
            for start, stop in spans(spec, unit=1, size=session.chunk_elements):
                sink.write(spec.name, start, carried(session, spec, start=start, stop=stop))


def _computed(recipe: Recipe, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
    """Returns a tile of the output, in which nothing is NaN or infinite."""
    try:
        values = recipe.apply(chunk, out_dtype=out_dtype)
    except kernels.InvalidInput as error:
        raise ImpossibleSetting(
            f"the merge of tensor {chunk.name} cannot be computed: {error}",
            remedy="use smaller weights or scales",
        ) from error
    if not all_finite(values, dtype=out_dtype):
        raise ImpossibleSetting(
            f"the merge leaves the range of {out_dtype} in tensor {chunk.name}: NaN or Inf,"
            " though every model is finite",
            remedy="use smaller weights or scales, or an output type of a wider range (BF16, F32)",
        )
    return values


def all_finite(values: NDArray[Any], *, dtype: str) -> bool:
    """Returns whether no element is NaN or infinite; `dtype` is the kernels' name.

    The bits are compared as integers, signed for what is above zero and unsigned for what is below:
    fast for every type, and without a copy of the tile.
    """
    above, below, signed, unsigned = INFINITIES[dtype]
    if not values.size:
        return True
    return int(values.view(signed).max()) < above and int(values.view(unsigned).max()) < below


@contextmanager
def _evaluating(evaluator: object, *, what: str) -> Iterator[None]:
    """Turns whatever the user's code raises into an error of the tree that names the code."""
    try:
        yield
    except ConsensusError:
        raise
    except Exception as error:
        kind = type(evaluator)
        raise EvaluatorFailed(
            f"{what} of the evaluator {kind.__module__}:{kind.__qualname__} failed:"
            f" {type(error).__name__}: {error}",
            remedy="mend the evaluator, or its data; nothing was written",
        ) from error


def carried(session: Session, spec: TensorSpec, *, start: int, stop: int) -> NDArray[Any]:
    """Returns elements of an integer tensor under the policy; `agree` has compared them."""
    if session.context.integers != "max":
        return session.sources[0].read(spec.name, start, stop).copy()
    rows = [source.read(spec.name, start, stop) for source in session.sources]
    largest: NDArray[Any] = np.maximum.reduce(rows)
    return largest
