"""Soups: means of models that were fine-tuned from one initialisation, and which to take in.

Here: uniform, weighted, greedy and incremental soups. Never here: soups whose weights are found by
a gradient (`gradient_soups.py`), or a search for permutations between models of different
initialisations, which do not mix. Next: `merging.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from cabildo_api.consensus_limits import MAXIMUM_PARTICIPANTS
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Candidate, Decision
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.merges.weights import row_weights
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.recipes import WeightedSum, mean_of, single
from cabildo_trainer.consensus.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_trainer.consensus.passes import Session

NO_GAIN: Final = "NoGain"
"""Why a model is not in a soup: with it the trusted loss was not lower."""


@dataclass(frozen=True, slots=True)
class UniformSoup(Rule):
    """The plain mean of all models (Wortsman et al., ICML 2022, arXiv 2203.05482)."""

    name: ClassVar[str] = "uniformSoup"

    def decide(self, session: Session) -> Decision:
        """Takes everybody."""
        recipe = mean_of(tuple(range(session.n)), n=session.n)
        return Decision(recipe=recipe, accepted=(True,) * session.n, weights=recipe.effective())


@dataclass(frozen=True, slots=True)
class WeightedSoup(Rule):
    """sum w_i x_i with the weights as given.

    Weights whose sum is not 1 scale the model: that is what is computed unless `normalize` asks for
    the division. The result records the sum.

    Attributes:
        weights: By participant key; every participant needs one.
        normalize: Whether the sum is divided by the sum of the weights.
    """

    name: ClassVar[str] = "weightedSoup"
    weights: dict[str, float] = field(default_factory=dict)
    normalize: bool = False

    def decide(self, session: Session) -> Decision:
        """Takes everybody with a weight."""
        if not self.weights:
            raise ImpossibleSetting(
                "weightedSoup.weights is empty", remedy="give every participant a weight"
            )
        weights = row_weights(self.weights, keys=session.keys)
        total = ordered_sum(weights)
        if self.normalize and total == 0.0:
            raise ImpossibleSetting("weightedSoup: weights with sum 0 cannot be normalised")
        recipe = WeightedSum(weights=weights, divisor=total if self.normalize else 1.0)
        return Decision(
            recipe=recipe,
            accepted=tuple(weight != 0.0 for weight in weights),
            reasons=tuple("" if weight != 0.0 else "ZeroWeight" for weight in weights),
            weights=recipe.effective(),
            diagnostics={"sumOfWeights": total},
        )


@dataclass(frozen=True, slots=True)
class GreedySoup(Rule):
    """Models by rising trusted loss, each taken in if the mean with it is strictly better.

    Wortsman et al., ICML 2022, arXiv 2203.05482, recipe 1. On the trusted data the result is never
    worse than the best single model, by construction; on other data nothing is promised.
    """

    name: ClassVar[str] = "greedySoup"

    @property
    def needs(self) -> frozenset[Need]:
        """A trusted loss."""
        return frozenset({Need.EVALUATOR})

    @property
    def passes(self) -> int:
        """Each model alone, the first in every mean that is tried, and the one that writes."""
        return MAXIMUM_PARTICIPANTS + 2

    def decide(self, session: Session) -> Decision:
        """Evaluates every model, then every mean."""
        losses = [
            session.loss(single(row, n=session.n), key=key) for row, key in enumerate(session.keys)
        ]
        order = session.order(losses)
        return _gated(session, order, losses=losses)


@dataclass(frozen=True, slots=True)
class IncrementalSoup(Rule):
    """Models in the order of their arrival, each taken in if the mean with it is strictly better.

    The greedy soup without its sort: no model is evaluated before it arrives, so the soup can grow
    while participants still train. The first one is always in.

    Attributes:
        order: Keys in the order of arrival; empty for the order of keys.
    """

    name: ClassVar[str] = "incrementalSoup"
    order: tuple[str, ...] = ()

    @property
    def named(self) -> frozenset[str]:
        """Those in the order."""
        return frozenset(self.order)

    @property
    def needs(self) -> frozenset[Need]:
        """A trusted loss."""
        return frozenset({Need.EVALUATOR})

    @property
    def passes(self) -> int:
        """The first model in every mean that is tried, and the one that writes."""
        return MAXIMUM_PARTICIPANTS + 1

    def decide(self, session: Session) -> Decision:
        """Evaluates every mean."""
        unknown = [key for key in session.keys if self.order and key not in self.order]
        if unknown or len(set(self.order)) != len(self.order):
            raise ImpossibleSetting(
                f"incrementalSoup.order names {', '.join(unknown) or 'a participant'}"
                f" {'never' if unknown else 'twice'}",
                remedy="list every participant once, or leave the order out",
            )
        arrived = [session.keys.index(key) for key in self.order if key in session.keys]
        return _gated(session, arrived or list(range(session.n)), losses=None)


def refuse_non_finite(loss: float) -> None:
    """Refuses a soup that the trusted loss says nothing of."""
    if not math.isfinite(loss):
        raise ImpossibleSetting(
            "the soup has no finite loss on the trusted data: nothing says what belongs in it",
            remedy="look at the trusted data and the evaluator",
        )


def _gated(session: Session, order: Sequence[int], *, losses: Sequence[float] | None) -> Decision:
    """Takes the first row, then each further one that strictly lowers the loss of the mean.

    Args:
        session: The rows.
        order: In which they are tried.
        losses: Of the rows alone; None where they are unknown.
    """
    n, keys = session.n, session.keys
    chosen = [order[0]]
    best = losses[order[0]] if losses else session.loss(single(order[0], n=n), key=keys[order[0]])
    tried = [Candidate(name=keys[order[0]], loss=best, picked=True)]
    for row in order[1:]:
        mixture = mean_of((*chosen, row), n=n)
        loss = session.loss(mixture, key=f"with {keys[row]}")
        better = loss < best
        tried.append(
            Candidate(
                name=f"with {keys[row]}", loss=loss, picked=better, reason="" if better else NO_GAIN
            )
        )
        if better:
            chosen.append(row)
            best = loss
    refuse_non_finite(best)
    recipe = mean_of(tuple(chosen), n=n)
    return Decision(
        recipe=recipe,
        accepted=tuple(row in chosen for row in range(n)),
        scores=None if losses is None else tuple(losses),
        reasons=tuple("" if row in chosen else NO_GAIN for row in range(n)),
        weights=recipe.effective(),
        candidates=tuple(tried),
        diagnostics={"loss": best},
    )
