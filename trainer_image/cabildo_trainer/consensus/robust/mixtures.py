"""Sessions over mixtures of the models: what the rule inside a pre-aggregation sees.

A mixture y = W x + (1 - sum W) start is linear in the models once the start is subtracted, so its
inner products come from the one Gram matrix and its sums from sums of the models.

Here: the mixing, the session over it, and the way back to participants. Never here: which mixtures
are made; that is `mixing.py`. Next: the inner rule.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cabildo_trainer.consensus.chunks import trusted
from cabildo_trainer.consensus.ordered import congruence, matrix_vector
from cabildo_trainer.consensus.passes import Gram, Session, gram_digest
from cabildo_trainer.consensus.recipes import Mixed, PerTensor, Recipe, WeightedSum

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.decision import Decision
    from cabildo_trainer.consensus.recipes import Matrix
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec


@dataclass(frozen=True, slots=True)
class Mixing:
    """m mixtures of n rows.

    Attributes:
        matrix: (m, n) weights.
        starts: For each mixture the weight of the model that the round started from.
        owners: For each row the mixture that stands for it in scores and reasons.
        gram_digest: Of the matrix that the mixing was found from.
        diagnostics: Figures for the result.
    """

    matrix: Matrix
    starts: tuple[float, ...]
    owners: tuple[int, ...]
    gram_digest: str = ""
    diagnostics: Mapping[str, float | str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        matrix: Iterable[Iterable[float]],
        *,
        owners: Iterable[int],
        starts: Iterable[float] | None = None,
        gram_digest: str = "",
        diagnostics: Mapping[str, float | str] | None = None,
    ) -> Self:
        """Returns a mixing; without `starts` no mixture holds the start."""
        lines = tuple(tuple(float(weight) for weight in line) for line in matrix)
        return cls(
            matrix=lines,
            starts=(0.0,) * len(lines) if starts is None else tuple(starts),
            owners=tuple(owners),
            gram_digest=gram_digest,
            diagnostics=diagnostics or {},
        )

    @property
    def stands_for_rows(self) -> bool:
        """Whether mixture i stands for row i."""
        return self.owners == tuple(range(len(self.matrix)))

    def array(self) -> NDArray[np.float64]:
        """Returns the matrix."""
        return np.asarray(self.matrix, dtype=np.float64)

    def compose(self, recipe: Recipe) -> Recipe:
        """Returns a recipe over mixtures as one over the rows: exactly, where it is a sum."""
        if isinstance(recipe, PerTensor):
            return PerTensor(
                recipes={name: self.compose(item) for name, item in recipe.recipes.items()},
                default=self.compose(recipe.default),
            )
        if not isinstance(recipe, WeightedSum):
            return Mixed(matrix=self.matrix, start_weights=self.starts, inner=recipe)
        outer = np.asarray(recipe.weights, dtype=np.float64)
        weights = matrix_vector(self.array().T, outer)
        start = recipe.start_weight
        for weight, part in zip(recipe.weights, self.starts, strict=True):
            start += weight * part
        return WeightedSum(
            weights=tuple(weights.tolist()), start_weight=start, divisor=recipe.divisor
        )


class Mixture:
    """One mixture as a model: what a rule's own passes read.

    Args:
        session: The session whose rows are mixed.
        line: One weight for each row.
        start: Weight of the model that the round started from.
        key: The key of the mixture.
    """

    def __init__(
        self, session: Session, line: tuple[float, ...], *, start: float, key: str
    ) -> None:
        self.key = key
        self._session = session
        self._recipe = WeightedSum(weights=line, start_weight=start)
        self.tensors: Mapping[str, TensorSpec] = {
            name: replace(spec, dtype="F32") if spec.is_floating else spec
            for name, spec in session.specs.items()
        }

    @cached_property
    def digest(self) -> str:
        """A digest over what it is made of."""
        state = hashlib.sha256(repr((self._recipe.weights, self._recipe.start_weight)).encode())
        for row, source in enumerate(self._session.sources):
            if self._recipe.uses(row):
                state.update(source.digest.encode())
        return f"sha256:{state.hexdigest()}"

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Computes elements of the mixture, rounded to float32."""
        spec = self._session.specs[name]
        if not spec.is_floating:
            return self._session.sources[0].read(name, start, stop)
        chunk = self._session.chunk(spec, start=start, stop=stop)
        return self._recipe.apply(chunk, out_dtype="f32")


@dataclass(slots=True)
class MixedSession(Session):
    """A session whose rows are mixtures of another's.

    Attributes:
        parent: The session whose rows are mixed.
        mixing: How.
    """

    parent: Session = field(kw_only=True)
    mixing: Mixing = field(kw_only=True)

    @classmethod
    def of(cls, parent: Session, mixing: Mixing, *, f: int) -> Self:
        """Returns the session of the mixtures, f of which may be arbitrary."""
        sources: tuple[ModelSource, ...] = tuple(
            Mixture(
                parent,
                line,
                start=mixing.starts[index],
                key=parent.keys[index] if mixing.stands_for_rows else f"bucket-{index:02d}",
            )
            for index, line in enumerate(mixing.matrix)
        )
        return cls(sources=sources, f=f, context=parent.context, parent=parent, mixing=mixing)

    def gram(self, *, extra: tuple[ModelSource, ...] = ()) -> Gram:
        """Returns the Gram matrix of the mixtures, from that of the rows."""
        outer = self.parent.gram(extra=extra)
        weights = self.mixing.array()
        m, n, more = len(weights), self.parent.n, len(extra)
        widened = np.zeros((m + more, n + more), dtype=np.float64)
        widened[:m, :n] = weights
        widened[m:, n:] = np.eye(more)
        matrix = congruence(widened, outer.matrix)
        keys = (*self.keys, *(trusted(source) for source in extra))
        return Gram(matrix=matrix, digest=gram_digest(matrix, keys=keys), centred=outer.centred)

    def dots(self, vector: ModelSource) -> NDArray[np.float64]:
        """Returns the mixtures' inner products with a vector, from those of the rows."""
        return matrix_vector(self.mixing.array(), self.parent.dots(vector))

    @property
    def root(self) -> Session:
        """The session of the participants' own models."""
        return self.parent.root

    def lift(self, recipe: Recipe) -> Recipe:
        """Returns a recipe over the mixtures as one over the participants' models."""
        return self.parent.lift(self.mixing.compose(recipe))


def lifted_decision(decision: Decision, mixing: Mixing) -> Decision:
    """Returns a decision over mixtures as one over the rows that they are made of."""
    recipe = mixing.compose(decision.recipe)
    accepted = tuple(recipe.uses(row) for row in range(len(mixing.owners)))
    reasons = tuple(
        "" if taken else (decision.reasons[owner] if decision.reasons else "") or "NotSelected"
        for taken, owner in zip(accepted, mixing.owners, strict=True)
    )
    scores = decision.scores
    return replace(
        decision,
        recipe=recipe,
        accepted=accepted,
        reasons=reasons,
        scores=None if scores is None else tuple(scores[owner] for owner in mixing.owners),
        weights=recipe.effective() if isinstance(recipe, WeightedSum) else None,
        gram_digest=mixing.gram_digest or decision.gram_digest,
        diagnostics={**mixing.diagnostics, **decision.diagnostics},
    )
