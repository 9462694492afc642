"""Rules that search all subsets of n - f models: MDA and SMEA.

Here: two rules. Never here: the search itself; it is in the kernels. Next: `filtering.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

import cabildo_kernels as kernels
from cabildo_trainer.consensus.robust.selection import selection
from cabildo_trainer.consensus.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.decision import Decision
    from cabildo_trainer.consensus.passes import Session


def reordered(matrix: NDArray[np.float64], order: list[int]) -> NDArray[np.float64]:
    """Returns the matrix with rows and columns in another order."""
    return np.ascontiguousarray(matrix[np.ix_(order, order)])


@dataclass(frozen=True, slots=True)
class MinimumDiameter(Rule):
    """MDA: the mean of the n - f models whose largest distance to each other is smallest.

    El Mhamdi et al., "Genuinely distributed Byzantine machine learning", PODC 2020, arXiv
    1905.03853, after Rousseeuw (1985). n >= 2f + 1 and at most 10^6 subsets. Among equal diameters
    the first subset in the order of digests is taken.
    """

    name: ClassVar[str] = "mda"

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def decide(self, session: Session) -> Decision:
        """Searches."""
        gram = session.gram()
        order = session.by_digest()
        found = kernels.smallest_diameter_subset(
            reordered(gram.squared_distances(), order), size=session.n - session.f
        )
        return selection(session, [order[row] for row in found], gram_digest=gram.digest)


@dataclass(frozen=True, slots=True)
class SmallestEigenvalue(Rule):
    """SMEA: the mean of the n - f models whose covariance has the smallest top eigenvalue.

    Allouah et al., "On the privacy-robustness-utility trilemma in distributed learning", ICML 2023,
    arXiv 2302.04787. n >= 2f + 1 and at most 10^6 subsets. Eigenvalues are exact (Jacobi on the
    n - f square), where byzfl takes one power step. Among equal ones the first subset in the order
    of digests is taken.
    """

    name: ClassVar[str] = "smea"

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def decide(self, session: Session) -> Decision:
        """Searches."""
        gram = session.gram()
        order = session.by_digest()
        subsets, values = kernels.top_eigenvalues_of_subsets(
            reordered(gram.matrix, order), size=session.n - session.f
        )
        best = min(range(len(values)), key=lambda index: float(values[index]))
        return selection(
            session,
            [order[int(row)] for row in subsets[best]],
            gram_digest=gram.digest,
            diagnostics={"topEigenvalue": float(values[best])},
        )
