"""The geometric median, computed to convergence inside the span of the models.

Here: Weiszfeld's iteration on squared distances. Never here: a pass over the models; the Gram
matrix holds all that is needed. Next: `centered_clipping.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.ordered import (
    inner,
    matrix_vector,
    median,
    ordered_sum,
    square_roots,
)
from cabildo_trainer.consensus.recipes import WeightedSum
from cabildo_trainer.consensus.robust.columns import odds
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session


@dataclass(frozen=True, slots=True)
class Weiszfeld:
    """Where the iteration ended.

    Attributes:
        weights: z = sum_i weights[i] x_i, they add up to one.
        radii: |x_i - z|.
        iterations: Steps taken.
        movement: |z_t - z_(t-1)| of the last step, over the scale.
    """

    weights: NDArray[np.float64]
    radii: tuple[float, ...]
    iterations: int
    movement: float


def radii_of(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
    """Returns |x_i - sum_j w_j x_j| from squared distances, for weights that add up to one."""
    mixed = matrix_vector(distances, weights)
    return square_roots((mixed - 0.5 * inner(weights, mixed)).tolist())


def scale_of(distances: NDArray[np.float64]) -> float:
    """Returns the least median distance of a row to all others: no minority can move it far."""
    return min(median(square_roots(line)) for line in distances.tolist())


def weiszfeld(
    distances: NDArray[np.float64], *, smoothing: float, tolerance: float, limit: int
) -> Weiszfeld:
    """Minimises the sum of distances (smoothed below nu = smoothing * scale).

    Args:
        distances: Squared distances, (n, n).
        smoothing: nu as a share of the scale.
        tolerance: The iteration ends when z moves less than this share of the scale.
        limit: Most steps.
    """
    n = distances.shape[0]
    scale = scale_of(distances)
    if scale == 0.0:
        return _majority(distances)
    weights = np.full(n, 1.0 / n)
    radii = radii_of(distances, weights)
    movement = 0.0
    for step in range(1, limit + 1):
        nu = smoothing * scale
        inverse = [1.0 / max(nu, radius) for radius in radii]
        total = ordered_sum(inverse)
        following = np.asarray([value / total for value in inverse])
        change = following - weights
        moved = -0.5 * inner(change, matrix_vector(distances, change))
        movement = math.sqrt(max(moved, 0.0)) / scale
        weights, radii = following, radii_of(distances, following)
        if movement <= tolerance:
            return Weiszfeld(weights, tuple(radii), step, movement)
    return Weiszfeld(weights, tuple(radii), limit, movement)


def _majority(distances: NDArray[np.float64]) -> Weiszfeld:
    """Half of the models or more are one and the same: that is the geometric median."""
    row = min(range(len(distances)), key=lambda row: median(distances[row].tolist()))
    equal = [1.0 if distance == 0.0 else 0.0 for distance in distances[row].tolist()]
    weights = np.asarray([value / ordered_sum(equal) for value in equal])
    return Weiszfeld(weights, tuple(square_roots(distances[row].tolist())), 0, 0.0)


@dataclass(frozen=True, slots=True)
class GeometricMedian(Rule):
    """argmin_z sum_i |z - x_i|, by smoothed Weiszfeld steps until z stands still.

    Pillutla et al., "Robust aggregation for federated learning" (RFA), arXiv 1912.13445.
    n >= 2f + 1. The smoothing nu is a share of the models' own distances: with a fixed nu, updates
    smaller than it would get the plain mean. The iterate stays in the span of the models, so all
    steps need one Gram matrix and no pass.

    Attributes:
        smoothing: nu as a share of the least median distance between models.
        tolerance: The largest last movement, as a share of the same.
        iterations: Most steps; the result says how many were taken.
    """

    name: ClassVar[str] = "geometricMedian"
    smoothing: float = 1e-6
    tolerance: float = 1e-10
    iterations: int = 10_000

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def requirement(self, n: int, f: int) -> None:
        """Also checks the parameters."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=0.0 < self.smoothing < 1.0
                and 0.0 < self.tolerance < 1.0
                and self.iterations >= 1,
                arithmetic="geometricMedian needs 0 < smoothing < 1, 0 < tolerance < 1 and"
                f" iterations >= 1: {self.smoothing}, {self.tolerance}, {self.iterations}",
                remedy="leave the parameters out to get their defaults",
            )
        )

    def decide(self, session: Session) -> Decision:
        """Iterates on the distances."""
        gram = session.gram()
        end = weiszfeld(
            gram.squared_distances(),
            smoothing=self.smoothing,
            tolerance=self.tolerance,
            limit=self.iterations,
        )
        weights = tuple(end.weights.tolist())
        return Decision(
            recipe=WeightedSum(weights=weights),
            accepted=(True,) * session.n,
            scores=end.radii,
            weights=weights,
            gram_digest=gram.digest,
            diagnostics={"iterations": float(end.iterations), "movement": end.movement},
        )

    def kappa(self, n: int, f: int) -> float:
        """Returns 4 (1 + q)^2 (arXiv 2302.01772, table 1)."""
        return 4.0 * (1.0 + odds(n, f)) ** 2
