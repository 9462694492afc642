"""Krum and Multi-Krum: the models that are nearest to their nearest neighbours.

Here: the scores and the two rules. Never here: distances; they come from the one Gram matrix. Next:
`bulyan.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.robust.selection import selection
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.decision import Decision
    from cabildo_trainer.consensus.passes import Session


def krum_scores(
    distances: NDArray[np.float64], *, neighbours: int, among: Sequence[int]
) -> dict[int, float]:
    """Returns each row's sum of squared distances to its nearest neighbours, added from the least.

    Args:
        distances: Squared distances, (n, n).
        neighbours: How many neighbours count.
        among: The rows that are looked at.
    """
    scores = {}
    for row in among:
        others = sorted(float(distances[row, other]) for other in among if other != row)
        scores[row] = ordered_sum(others[:neighbours])
    return scores


@dataclass(frozen=True, slots=True)
class NeighbourScores(Rule):
    """What Krum and Multi-Krum share: a score for each model, and the m lowest are averaged.

    Attributes:
        neighbours: How many squared distances a score sums; None for n - f - 2. At least f: f
            equal faulty models have f - 1 neighbours at distance 0, and would win by them alone.
    """

    name: ClassVar[str] = "neighbourScores"
    neighbours: int | None = None

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def requirement(self, n: int, f: int) -> None:
        """Also checks neighbours and m."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=max(f, 1) <= self.neighbours_of(n, f) <= n - 1,
                arithmetic=f"{self.name} needs f <= neighbours <= n - 1, and one at least (f equal"
                f" faulty models have f - 1 neighbours at distance 0): neighbours ="
                f" {self.neighbours_of(n, f)}, n = {n}, f = {f}",
                remedy="leave neighbours out to sum over n - f - 2",
            )
        )
        require(
            Check(
                holds=1 <= self.select_of(n, f) <= n - f,
                arithmetic=f"{self.name} needs 1 <= m <= n - f:"
                f" m = {self.select_of(n, f)}, n = {n}, f = {f}",
                remedy="leave select out to average n - f",
            )
        )

    def neighbours_of(self, n: int, f: int) -> int:
        """Returns how many distances a score sums."""
        return n - f - 2 if self.neighbours is None else self.neighbours

    @abstractmethod
    def select_of(self, n: int, f: int) -> int:
        """Returns m."""

    def decide(self, session: Session) -> Decision:
        """Scores all rows and takes the m lowest."""
        gram = session.gram()
        neighbours = self.neighbours_of(session.n, session.f)
        table = krum_scores(gram.squared_distances(), neighbours=neighbours, among=range(session.n))
        scores = [table[row] for row in range(session.n)]
        rows = session.order(scores)[: self.select_of(session.n, session.f)]
        return selection(session, rows, scores=scores, gram_digest=gram.digest)


@dataclass(frozen=True, slots=True)
class Krum(NeighbourScores):
    """The one model with the lowest sum of squared distances to its nearest neighbours.

    Blanchard et al., "Machine learning with adversaries", NeurIPS 2017. n >= 2f + 3. Scores sum the
    n - f - 2 nearest others, as the paper does (byzfl sums n - f - 1). Equal scores go by digest,
    then key.
    """

    name: ClassVar[str] = "krum"

    def select_of(self, n: int, f: int) -> int:
        """Returns 1."""
        del n, f
        return 1

    def kappa(self, n: int, f: int) -> float | None:
        """Returns 2 (n - f) / (k - f + 1) (1 + 2k / (n - f - 1)) for k neighbours.

        For k = n - f - 1 that is 6 (1 + q), as published (arXiv 2302.01772, table 1); its proof
        holds for fewer: the chosen score is at most k / (n - f - 1) of an honest one's sum over all
        honest others, and at least k - f + 1 of the chosen model's near ones, itself included, are
        honest.
        """
        k = self.neighbours_of(n, f)
        if not f <= k <= n - f - 1:
            return None
        return 2.0 * (n - f) / (k - f + 1) * (1.0 + 2.0 * k / (n - f - 1))


@dataclass(frozen=True, slots=True)
class MultiKrum(NeighbourScores):
    """The mean of the m models with the lowest Krum scores.

    Blanchard et al., NeurIPS 2017. n >= 2f + 3. byzfl takes m = n - f, as we do by default.

    Attributes:
        select: m; None for n - f.
    """

    name: ClassVar[str] = "multiKrum"
    select: int | None = None

    def select_of(self, n: int, f: int) -> int:
        """Returns m."""
        return n - f if self.select is None else self.select
