"""The weighted mean: the reference that bounds no fault at all.

Here: one rule. Never here: example counts that participants report about themselves. Next:
`columns.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.recipes import WeightedSum, mean_of
from cabildo_trainer.consensus.rule import Rule

if TYPE_CHECKING:
    from cabildo_trainer.consensus.passes import Session


@dataclass(frozen=True, slots=True)
class WeightedMean(Rule):
    """sum_i w_i x_i / sum_i w_i (McMahan et al., AISTATS 2017, arXiv 1602.05629); f must be 0.

    The weights are the aggregator's; nothing that a participant says about itself enters.

    Attributes:
        weights: By participant key; empty for equal weights. Keys without a weight are refused.
    """

    name: ClassVar[str] = "weightedMean"
    weights: dict[str, float] = field(default_factory=dict)

    def decide(self, session: Session) -> Decision:
        """Takes everybody."""
        everybody = (True,) * session.n
        if not self.weights:
            recipe = mean_of(tuple(range(session.n)), n=session.n)
            return Decision(recipe=recipe, accepted=everybody, weights=recipe.effective())
        missing = [key for key in session.keys if key not in self.weights]
        if missing:
            raise ImpossibleSetting(f"no weight for {', '.join(missing)}")
        weights = tuple(float(self.weights[key]) for key in session.keys)
        total = ordered_sum(weights)
        if min(weights) < 0.0 or not 0.0 < total < float("inf"):
            raise ImpossibleSetting(
                f"weights must be finite, none below zero, with a sum above zero: {weights}"
            )
        recipe = WeightedSum(weights=weights, divisor=total)
        return Decision(
            recipe=recipe,
            accepted=tuple(weight > 0.0 for weight in weights),
            reasons=tuple("" if weight > 0.0 else "ZeroWeight" for weight in weights),
            weights=recipe.effective(),
        )
