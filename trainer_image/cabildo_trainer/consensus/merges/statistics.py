"""Merges by statistics of the participants' data: Fisher weights and RegMean.

A participant's statistics are a model of tensors beside its own: for Fisher the diagonal of the
Fisher information under the tensors' own names; for RegMean the Gram matrix X^T X of a linear
layer's inputs under `<name of the weight>.gram`, (inputs, inputs). They are self-reported: no bound
against a faulty participant holds.

Here: both rules and their passes. Never here: collecting the statistics. Next: `merging.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from cabildo_kernels.fallback.columns import rounded
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_trainer.consensus.chunks import non_finite
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.errors import ImpossibleSetting, ManifestMismatch, MissingInput
from cabildo_trainer.consensus.merges.cholesky import (
    NotPositiveDefiniteError,
    add_product,
    cholesky,
    solve,
)
from cabildo_trainer.consensus.merges.weights import row_weights
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.recipes import PerTensor, Recipe, mean_of
from cabildo_trainer.consensus.rule import Rule
from cabildo_trainer.consensus.sources import to_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.chunks import Chunk
    from cabildo_trainer.consensus.context import Context
    from cabildo_trainer.consensus.passes import Session
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec

GRAM: Final = ".gram"
GRAM_REMEDY: Final = f"save X^T X of the layer's inputs under the name of its weight and {GRAM}"
_MATRIX: Final = 2


@dataclass(frozen=True, slots=True)
class FisherMean(Recipe):
    """sum w_i (F_i + floor) x_i / sum w_i (F_i + floor), in fp64 in row order, rounded once.

    Where the divisor is zero no model knows anything: there it is sum w_i x_i / sum w_i.

    Attributes:
        weights: One for each participant, in the order of keys.
        floor: Added to every Fisher entry.
    """

    kind: ClassVar[str] = "fisherMean"
    weights: tuple[float, ...]
    floor: float = 0.0

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Weighs every entry."""
        rows = chunk.rows_float32()
        with default_environment():
            return rounded(self._merged(chunk, rows), element_type=out_dtype)

    def _merged(self, chunk: Chunk, rows: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        over = np.zeros(chunk.size, dtype=np.float64)
        under, plain = np.zeros_like(over), np.zeros_like(over)
        for key, weight, row in zip(chunk.keys, self.weights, rows, strict=True):
            values = row.astype(np.float64) + 0.0
            fisher = weight * (_fisher(chunk, key) + self.floor)
            over += fisher * values
            under += fisher
            plain += weight * values
        plain /= ordered_sum(self.weights)
        return np.divide(over, under, out=plain, where=under > 0.0)

    def uses(self, row: int) -> bool:
        """Returns whether the row has a weight."""
        return self.weights[row] != 0.0


def _fisher(chunk: Chunk, key: str) -> NDArray[np.float64]:
    source = _statistics_of(chunk.context, key)
    spec = source.tensors.get(chunk.name)
    if spec is None or spec.shape != chunk.spec.shape or not spec.is_floating:
        raise ManifestMismatch(
            f"statistics of {key}: no Fisher diagonal for tensor {chunk.name} of shape"
            f" {chunk.spec.shape}",
            remedy="save the diagonals under the tensors' own names, with their shapes",
        )
    values = to_float32(chunk.read(source), dtype=spec.kernel_dtype).astype(np.float64)
    if not np.isfinite(values).all():
        raise non_finite((key,))
    if (values < 0.0).any():
        raise ManifestMismatch(
            f"statistics of {key}: tensor {chunk.name} has entries below zero, which no Fisher"
            " diagonal has",
            remedy="save means of squared gradients",
        )
    return values


def _statistics_of(context: Context, key: str) -> ModelSource:
    source = context.statistics.get(key)
    if source is None:
        raise MissingInput(f"no statistics of participant {key} were given")
    return source


@dataclass(frozen=True, slots=True)
class Fisher(Rule):
    """Every entry weighted by its Fisher information (Matena and Raffel, NeurIPS 2022, 2111.09832).

    Attributes:
        weights: By key, >= 0; empty for 1 each.
        floor: Added to every Fisher entry; 1e-6 in the paper's code.
    """

    name: ClassVar[str] = "fisher"
    weights: dict[str, float] = field(default_factory=dict)
    floor: float = 0.0

    @property
    def needs(self) -> frozenset[Need]:
        """The Fisher diagonals."""
        return frozenset({Need.STATISTICS})

    def decide(self, session: Session) -> Decision:
        """Takes everybody with a weight."""
        weights = row_weights(self.weights, keys=session.keys)
        if min(weights) < 0.0 or not ordered_sum(weights) > 0.0 or not self.floor >= 0.0:
            raise ImpossibleSetting(
                f"fisher: weights {weights} and floor {self.floor!r}: none may be below zero, and"
                " one weight must be above"
            )
        return Decision(
            recipe=FisherMean(weights=weights, floor=self.floor),
            accepted=tuple(weight > 0.0 for weight in weights),
            reasons=tuple("" if weight > 0.0 else "ZeroWeight" for weight in weights),
        )


@dataclass(frozen=True, slots=True)
class RegressionMean(Recipe):
    """The linear layer W that minimises sum_i |X_i (W - W_i)^T|^2 for its inputs' Gram matrices.

    W^T = (sum G_i + r I)^-1 (sum G_i W_i^T + r mean(W_i)^T), G_i = X_i^T X_i with its entries off
    the diagonal multiplied by `off_diagonal`, r = ridge * mean diagonal of sum G_i. The whole layer
    is in memory: rows of W_i (outputs, inputs), all G_i.

    Attributes:
        off_diagonal: Factor of the entries off the diagonal.
        ridge: How strongly the solution is held to the mean, relative to the diagonal.
    """

    kind: ClassVar[str] = "regressionMean"
    off_diagonal: float = 1.0
    ridge: float = 0.0

    def apply(self, chunk: Chunk, *, out_dtype: str) -> NDArray[Any]:
        """Solves for the layer."""
        rows = chunk.rows_float32()
        with default_environment():
            merged = np.ascontiguousarray(self._solved(chunk, rows).T).reshape(-1)
            return rounded(merged, element_type=out_dtype)

    def _solved(self, chunk: Chunk, rows: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Returns W^T."""
        width = chunk.spec.shape[-1]
        total = np.zeros((width, width), dtype=np.float64)
        right = np.zeros((width, chunk.size // width), dtype=np.float64)
        mean = np.zeros_like(right)
        for key, row in zip(chunk.keys, rows, strict=True):
            weight = row.reshape(-1, width).T.astype(np.float64)
            gram = self._gram(chunk, key, width)
            total += gram
            add_product(right, gram, weight)
            mean += weight
        shift = self.ridge * (ordered_sum(np.diagonal(total).tolist()) / width)
        total[np.diag_indices(width)] += shift
        right += shift * (mean / len(chunk.keys))
        try:
            return solve(cholesky(total), right)
        except NotPositiveDefiniteError as error:
            raise ImpossibleSetting(
                f"regMean: the Gram matrices of tensor {chunk.name} do not determine the layer"
                f" ({error})",
                remedy="give more data to the statistics, or set ridge above 0 (such as 1e-6)",
            ) from error

    def unit(self, spec: TensorSpec) -> int:
        """A layer is solved as a whole."""
        return spec.size

    def _gram(self, chunk: Chunk, key: str, width: int) -> NDArray[np.float64]:
        source, name = _statistics_of(chunk.context, key), chunk.name + GRAM
        spec = source.tensors.get(name)
        if spec is None or spec.shape != (width, width) or not spec.is_floating:
            raise ManifestMismatch(
                f"statistics of {key}: tensor {name} of shape {(width, width)} is needed, as the"
                " other participants have it",
                remedy=GRAM_REMEDY,
            )
        stored = source.read(name, 0, spec.size)
        gram = to_float32(stored, dtype=spec.kernel_dtype).reshape(width, width).astype(np.float64)
        if not np.isfinite(gram).all() or not np.array_equal(gram, gram.T):
            raise ManifestMismatch(
                f"statistics of {key}: tensor {name} is no Gram matrix: it has NaN or Inf, or is"
                " not symmetric",
                remedy=GRAM_REMEDY,
            )
        scaled = gram * self.off_diagonal
        scaled[np.diag_indices(width)] = np.diagonal(gram)
        return scaled


@dataclass(frozen=True, slots=True)
class RegMean(Rule):
    """Linear layers merged by regression, all else by the mean (Jin et al., ICLR 2023, 2212.09849).

    A layer is merged by regression where the first participant has a Gram matrix for it.

    Attributes:
        off_diagonal: Factor of the Gram matrices' entries off the diagonal; 0.9 in the paper.
        ridge: How strongly a layer is held to the mean; above 0 makes every layer solvable.
    """

    name: ClassVar[str] = "regMean"
    off_diagonal: float = 0.9
    ridge: float = 0.0

    @property
    def needs(self) -> frozenset[Need]:
        """The Gram matrices."""
        return frozenset({Need.STATISTICS})

    def decide(self, session: Session) -> Decision:
        """Takes everybody."""
        if not 0.0 <= self.off_diagonal <= 1.0 or not self.ridge >= 0.0:
            raise ImpossibleSetting(
                f"regMean: offDiagonal = {self.off_diagonal!r} in [0, 1] and ridge ="
                f" {self.ridge!r} >= 0 are needed"
            )
        known = _statistics_of(session.context, session.keys[0]).tensors
        layers = [
            spec.name
            for spec in session.specs.values()
            if spec.is_floating and len(spec.shape) == _MATRIX and spec.name + GRAM in known
        ]
        if not layers:
            raise MissingInput(
                f"statistics of {session.keys[0]} hold no tensor <weight>{GRAM} for any matrix"
            )
        solved: dict[str, Recipe] = {
            name: RegressionMean(off_diagonal=self.off_diagonal, ridge=self.ridge)
            for name in layers
        }
        return Decision(
            recipe=PerTensor(recipes=solved, default=mean_of(tuple(range(session.n)), n=session.n)),
            accepted=(True,) * session.n,
            diagnostics={"layersByRegression": float(len(layers))},
        )
