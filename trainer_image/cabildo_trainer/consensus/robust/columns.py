"""Rules that treat each coordinate on its own: median, trimmed mean, mean around the median.

Here: three rules of one pass. Never here: distances between models. Next: `krum.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.recipes import (
    ColumnAroundMedian,
    ColumnMedian,
    ColumnRecipe,
    ColumnTrimmed,
)
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from cabildo_trainer.consensus.passes import Session


def odds(n: int, f: int) -> float:
    """Returns q = f / (n - 2f), the figure that the published bounds are written in."""
    return f / (n - 2 * f)


def from_columns(recipe: ColumnRecipe, *, n: int) -> Decision:
    """Returns the decision of a rule in which every participant may count somewhere."""
    return Decision(recipe=recipe, accepted=(True,) * n)


@dataclass(frozen=True, slots=True)
class Median(Rule):
    """The median of each coordinate; an even n takes the mean of the two middle values.

    Yin et al., "Byzantine-robust distributed learning", ICML 2018, arXiv 1803.01498. n >= 2f + 1.
    """

    name: ClassVar[str] = "median"

    def decide(self, session: Session) -> Decision:
        """Needs no pass of its own."""
        return from_columns(ColumnMedian(), n=session.n)

    def kappa(self, n: int, f: int) -> float:
        """Returns 4 (1 + q)^2 (arXiv 2302.01772, table 1)."""
        return 4.0 * (1.0 + odds(n, f)) ** 2


@dataclass(frozen=True, slots=True)
class TrimmedMean(Rule):
    """The mean of each coordinate without its f lowest and f highest values.

    Yin et al., ICML 2018, arXiv 1803.01498. n >= 2f + 1.

    Attributes:
        trim: Values dropped on each side; None for f. At least f, or the bound is gone.
    """

    name: ClassVar[str] = "trimmedMean"
    trim: int | None = None

    def requirement(self, n: int, f: int) -> None:
        """Also checks the trim."""
        Rule.requirement(self, n, f)
        if self.trim is not None:
            require(
                Check(
                    holds=f <= self.trim and 2 * self.trim < n,
                    arithmetic=f"trimmedMean needs f <= trim < n/2:"
                    f" f = {f}, trim = {self.trim}, n = {n}",
                    remedy="leave trim out to drop f values on each side",
                )
            )

    def decide(self, session: Session) -> Decision:
        """Needs no pass of its own."""
        trim = session.f if self.trim is None else self.trim
        return from_columns(ColumnTrimmed(trim=trim), n=session.n)

    def kappa(self, n: int, f: int) -> float | None:
        """Returns 6 q (1 + q) (arXiv 2302.01772, table 1), for trim = f."""
        if self.trim not in {None, f}:
            return None
        return 6.0 * odds(n, f) * (1.0 + odds(n, f))


@dataclass(frozen=True, slots=True)
class MeanAroundMedian(Rule):
    """MeaMed: the mean of the n - f values of each coordinate that are nearest its median.

    Xie et al., "Generalized Byzantine-tolerant SGD", 2018, arXiv 1802.10116. n >= 2f + 1.
    """

    name: ClassVar[str] = "meaMed"

    def decide(self, session: Session) -> Decision:
        """Needs no pass of its own."""
        return from_columns(ColumnAroundMedian(keep=session.n - session.f), n=session.n)
