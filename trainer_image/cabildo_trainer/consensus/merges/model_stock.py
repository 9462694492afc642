"""Model stock: how far from the base towards the mean, told by the angles between few models.

Here: the ratio from a Gram matrix, and the rule. Never here: tensors. Next:
`task_vector_recipes.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.merges.task_vector_recipes import TaskVectors
from cabildo_trainer.consensus.merges.tensor_grams import tensor_grams
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.recipes import PerTensor, Recipe
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session

_TWO: Final = 2


def mean_cosine(gram: NDArray[np.float64]) -> float:
    """Returns the mean cosine between all pairs of rows; zero rows count as orthogonal."""
    lengths = [math.sqrt(max(float(square), 0.0)) for square in gram.diagonal()]
    cosines = []
    for i, left in enumerate(lengths):
        for j in range(i):
            product = left * lengths[j]
            cosines.append(float(gram[i, j]) / product if product > 0.0 else 0.0)
    return ordered_sum(cosines) / len(cosines)


def interpolation_ratio(cosine: float, *, n: int) -> float:
    """Returns t = n cos / (1 + (n - 1) cos) (Jang et al., ECCV 2024, arXiv 2403.19522).

    Models that point apart on average (cos <= 0) have nothing in common: t = 0 is the base (where
    mergekit's `model_stock` takes the negative ratio and goes away from the mean).
    """
    return 0.0 if cosine <= 0.0 else n * cosine / (1.0 + (n - 1) * cosine)


@dataclass(frozen=True, slots=True)
class ModelStock(Rule):
    """(1 - t) base + t mean(x_i) for every tensor, t from the angles between the differences.

    With t of `interpolation_ratio` this is the point nearest the centre of all fine-tunings on the
    plane of base and models. Without parameters: no weight can be wrong.
    """

    name: ClassVar[str] = "modelStock"

    @property
    def needs(self) -> frozenset[Need]:
        """The base, which angles are measured at."""
        return frozenset({Need.BASE})

    @property
    def passes(self) -> int:
        """Angles, then the sum."""
        return 2

    def requirement(self, n: int, f: int) -> None:
        """Refuses a single model: one has no angle to another."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=n >= _TWO,
                arithmetic=f"modelStock needs n >= 2 models for an angle: n = {n}",
                remedy="add a model",
            )
        )

    def decide(self, session: Session) -> Decision:
        """Takes everybody."""
        n, ratios = session.n, []
        recipes: dict[str, Recipe] = {}
        for name, gram in tensor_grams(session, base=session.context.base):
            ratio = interpolation_ratio(mean_cosine(gram), n=n)
            ratios.append(ratio)
            recipes[name] = _towards_mean(ratio, n=n)
        return Decision(
            recipe=PerTensor(recipes=recipes, default=_towards_mean(0.0, n=n)),
            accepted=(True,) * n,
            diagnostics={
                "meanRatio": ordered_sum(ratios) / max(len(ratios), 1),
                "tensorsLeftAtBase": float(ratios.count(0.0)),
            },
        )


def _towards_mean(ratio: float, *, n: int) -> TaskVectors:
    return TaskVectors(weights=(1.0,) * n, normalize=True, scale=ratio)
