"""Centered clipping: steps from the last result, each model's pull cut to one radius.

Here: one rule. Never here: the last result itself; it is `Context.start`. Next: `subsets.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.ordered import (
    inner,
    matrix_vector,
    median,
    ordered_sum,
    square_roots,
)
from cabildo_trainer.consensus.recipes import WeightedSum
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session


@dataclass(frozen=True, slots=True)
class CenteredClipping(Rule):
    """v <- v + (1/n) sum_i (x_i - v) min(1, tau / |x_i - v|), from the last result on.

    Karimireddy et al., "Learning from history for Byzantine robust optimization", ICML 2021,
    arXiv 2012.10333 (the theory wants f/n below about 0.1; limits of it: arXiv 2208.09894).
    n >= 2f + 1. A fixed tau is the plain mean for small updates and no step for large ones, so tau
    is by default the median of |x_i - v|, taken anew at each step. A fixed one bounds nothing by
    itself: above all distances the rule is the mean, and nobody refuses it. The result says so:
    `fixedRadius`, and `clippedByFixedRadius` models that the last step cut.

    Attributes:
        iterations: Steps.
        radius: tau; None for the median distance.
    """

    name: ClassVar[str] = "centeredClipping"
    iterations: int = 3
    radius: float | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """The last result, or the base in the first round."""
        return frozenset({Need.PREVIOUS})

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def requirement(self, n: int, f: int) -> None:
        """Also checks the parameters."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=self.iterations >= 1
                and (self.radius is None or 0.0 < self.radius < float("inf")),
                arithmetic="centeredClipping needs iterations >= 1 and radius > 0:"
                f" {self.iterations}, {self.radius}",
                remedy="leave the radius out to take the median distance",
            )
        )

    def decide(self, session: Session) -> Decision:
        """Steps inside the span of the models and the last result."""
        gram = session.gram()
        weights, tau, cut = np.zeros(session.n), 0.0, 0
        for _ in range(self.iterations):
            radii = self._radii(gram.matrix, weights)
            tau = median(radii) if self.radius is None else self.radius
            pulls = np.asarray([1.0 if radius <= tau else tau / radius for radius in radii])
            cut = sum(radius > tau for radius in radii)
            share = ordered_sum(pulls.tolist()) / session.n
            weights = weights * (1.0 - share) + pulls / session.n
        radii = self._radii(gram.matrix, weights)
        chosen = tuple(weights.tolist())
        diagnostics: dict[str, float | str] = {"radius": tau}
        if self.radius is not None:
            diagnostics |= {"fixedRadius": tau, "clippedByFixedRadius": float(cut)}
        return Decision(
            recipe=WeightedSum(weights=chosen, start_weight=1.0 - ordered_sum(chosen)),
            accepted=(True,) * session.n,
            scores=tuple(radii),
            weights=chosen,
            gram_digest=gram.digest,
            diagnostics=diagnostics,
        )

    @staticmethod
    def _radii(gram: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
        """|x_i - v| for v = start + sum_j w_j (x_j - start)."""
        mixed = matrix_vector(gram, weights)
        own = np.diagonal(gram)
        return square_roots((own - 2.0 * mixed + inner(weights, mixed)).tolist())
