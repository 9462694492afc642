"""CAF: weights melt along the direction of the largest spread, and the tightest mean is kept.

Here: one rule. Never here: eigenvectors; they are in the kernels. Next: `trusted.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

import cabildo_kernels as kernels
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.ordered import inner, matrix_vector, ordered_sum
from cabildo_trainer.consensus.recipes import WeightedSum
from cabildo_trainer.consensus.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session


def centred(gram: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns <x_i - m, x_j - m> for m = sum_k shares[k] x_k, shares adding up to one."""
    mixed = matrix_vector(gram, shares)
    return gram - mixed[:, None] - mixed[None, :] + inner(shares, mixed)


def spread(
    gram: NDArray[np.float64], shares: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Returns the covariance's top eigenvalue and every row's squared projection on its vector."""
    products = centred(gram, shares)
    roots = np.sqrt(shares)
    values, vectors = kernels.jacobi_eigen(roots[:, None] * products * roots[None, :], vectors=True)
    top = float(values[-1])
    if top <= 0.0:
        return 0.0, np.zeros(len(shares))
    projections = matrix_vector(products, roots * vectors[:, -1]) / math.sqrt(top)
    return top, projections * projections


@dataclass(frozen=True, slots=True)
class CovarianceFilter(Rule):
    """CAF: the covariance-bound agnostic filter.

    Allouah et al., "Towards trustworthy federated learning with untrusted participants", ICML 2025,
    arXiv 2505.01874. n >= 2f + 1. All weights start at 1. While they add up to more than n - 2f:
    take the weighted mean and the covariance's dominant eigenvector, then multiply each weight by
    1 - t_i / max t, t_i being the squared projection of x_i - mean; the maximum is over models that
    still have a weight (byzfl takes it over all, and may then stand still). The mean with the
    smallest eigenvalue is the result.
    """

    name: ClassVar[str] = "caf"

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def decide(self, session: Session) -> Decision:
        """Filters on the Gram matrix."""
        gram = session.gram()
        shares, smallest, steps = self._filter(gram.matrix, f=session.f)
        weights = tuple(shares.tolist())
        accepted = tuple(weight > 0.0 for weight in weights)
        return Decision(
            recipe=WeightedSum(weights=weights),
            accepted=accepted,
            reasons=tuple("" if taken else "FilteredOut" for taken in accepted),
            weights=weights,
            gram_digest=gram.digest,
            diagnostics={"topEigenvalue": smallest, "iterations": float(steps)},
        )

    @staticmethod
    def _filter(gram: NDArray[np.float64], *, f: int) -> tuple[NDArray[np.float64], float, int]:
        n = gram.shape[0]
        weights, best, smallest, steps = np.ones(n), np.full(n, 1.0 / n), math.inf, 0
        total = float(n)
        while total > n - 2 * f:
            steps += 1
            shares = weights / total
            top, projections = spread(gram, shares)
            if top < smallest:
                smallest, best = top, shares
            largest = max(float(value) for value in projections[weights > 0.0])
            if largest == 0.0:
                break
            weights = np.where(weights > 0.0, weights * (1.0 - projections / largest), 0.0)
            weights = np.maximum(weights, 0.0)
            total = ordered_sum(weights.tolist())
        return best, 0.0 if math.isinf(smallest) else smallest, steps
