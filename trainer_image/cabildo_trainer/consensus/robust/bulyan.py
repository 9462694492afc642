"""Bulyan: Krum picks, then a column rule on the picked.

Here: one rule. Never here: Krum's scores. Next: `geometric_median.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.recipes import ColumnAroundMedian
from cabildo_trainer.consensus.robust.krum import krum_scores
from cabildo_trainer.consensus.robust.selection import NOT_SELECTED
from cabildo_trainer.consensus.rule import Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session


@dataclass(frozen=True, slots=True)
class Bulyan(Rule):
    """n - 2f Krum picks, then for each coordinate the mean of the n - 4f nearest the median.

    El Mhamdi et al., "The hidden vulnerability of distributed learning in Byzantium", ICML 2018,
    arXiv 1802.07927. n >= 4f + 3. A picked model leaves the set, and the scores of those left are
    computed anew with r - f - 2 neighbours of the r that are left (at least one). Equal scores go
    by digest, then key.
    """

    name: ClassVar[str] = "bulyan"

    @property
    def passes(self) -> int:
        """Gram matrix and columns."""
        return 2

    def decide(self, session: Session) -> Decision:
        """Picks, then leaves the rest to the columns."""
        gram = session.gram()
        theta = session.n - 2 * session.f
        picked = self._picks(session, gram.squared_distances(), theta=theta)
        rows = tuple(sorted(picked))
        accepted = tuple(row in picked for row in range(session.n))
        return Decision(
            recipe=ColumnAroundMedian(rows=rows, keep=theta - 2 * session.f),
            accepted=accepted,
            reasons=tuple("" if taken else NOT_SELECTED for taken in accepted),
            gram_digest=gram.digest,
        )

    @staticmethod
    def _picks(session: Session, distances: NDArray[np.float64], *, theta: int) -> set[int]:
        left = list(range(session.n))
        picked: set[int] = set()
        while len(picked) < theta:
            neighbours = max(1, len(left) - session.f - 2)
            scores = krum_scores(distances, neighbours=neighbours, among=left)
            best = session.lowest(scores)
            picked.add(best)
            left.remove(best)
        return picked
