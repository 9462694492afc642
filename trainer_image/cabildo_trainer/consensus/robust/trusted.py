"""Rules that lean on something the aggregator trusts: a root update, a loss, one participant.

Here: FLTrust, Zeno and MoNNA. Never here: where the trusted data comes from. Next: `choice.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cabildo_api.consensus_limits import Check, limit_of
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Candidate, Decision
from cabildo_trainer.consensus.errors import MissingInput
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.recipes import WeightedSum, single
from cabildo_trainer.consensus.robust.selection import NOT_SELECTED, selection
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session


@dataclass(frozen=True, slots=True)
class FlTrust(Rule):
    """Updates weighted by max(0, cos(update, root update)), each cut to the root update's norm.

    Cao et al., "FLTrust", NDSS 2021, arXiv 2012.13995: sum_i TS_i (|g0| / |g_i|) g_i / sum_i TS_i
    with g_i = x_i - start, g0 = root - start. Any f < n. When no update points along the root
    update, the result is the start.
    """

    name: ClassVar[str] = "flTrust"

    @property
    def needs(self) -> frozenset[Need]:
        """The start, and a root update from it."""
        return frozenset({Need.PREVIOUS, Need.ROOT_UPDATE})

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def decide(self, session: Session) -> Decision:
        """Scores by the cosine."""
        root = session.context.root_update
        if root is None:
            raise MissingInput("flTrust needs a root update")
        gram = session.gram(extra=(root,))
        n = session.n
        norms = [math.sqrt(max(float(gram.matrix[row, row]), 0.0)) for row in range(n + 1)]
        trust = []
        for row in range(n):
            product = norms[row] * norms[n]
            trust.append(max(float(gram.matrix[row, n]) / product, 0.0) if product else 0.0)
        total = ordered_sum(trust)
        weights = tuple(
            trust[row] / total * (norms[n] / norms[row]) if trust[row] > 0.0 else 0.0
            for row in range(n)
        )
        accepted = tuple(weight > 0.0 for weight in weights)
        return Decision(
            recipe=WeightedSum(weights=weights, start_weight=1.0 - ordered_sum(weights)),
            accepted=accepted,
            scores=tuple(1.0 - value for value in trust),
            reasons=tuple("" if taken else "AgainstRootUpdate" for taken in accepted),
            weights=weights,
            gram_digest=gram.digest,
            diagnostics={"rootNorm": norms[n]},
        )


@dataclass(frozen=True, slots=True)
class Zeno(Rule):
    """The mean of the n - f models that a trusted loss likes best.

    Xie et al., "Zeno", ICML 2019, arXiv 1805.10032: score_i = loss(start) - loss(x_i)
    - rho |x_i - start|^2, the highest stay. f < n. Equal scores go by digest, then key.

    Attributes:
        rho: Penalty on an update's squared norm, in the loss's unit; 0 leaves norms out.
    """

    name: ClassVar[str] = "zeno"
    rho: float = 0.0

    @property
    def needs(self) -> frozenset[Need]:
        """A trusted loss; the start too when norms count."""
        if self.rho == 0.0:
            return frozenset({Need.EVALUATOR})
        return frozenset({Need.EVALUATOR, Need.PREVIOUS})

    @property
    def passes(self) -> int:
        """Every model once for its loss, perhaps the Gram matrix, and the sum."""
        return 2 if self.rho == 0.0 else 3

    def requirement(self, n: int, f: int) -> None:
        """Also checks rho."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=0.0 <= self.rho < math.inf,
                arithmetic=f"zeno needs a finite rho >= 0: rho = {self.rho}",
                remedy="set rho to 0 to leave norms out, or to a positive penalty",
            )
        )

    def decide(self, session: Session) -> Decision:
        """Evaluates every model."""
        losses = [
            session.loss(single(row, n=session.n), key=key) for row, key in enumerate(session.keys)
        ]
        norms: NDArray[np.float64] | list[float] = [0.0] * session.n
        digest = ""
        if self.rho != 0.0:
            gram = session.gram()
            norms, digest = gram.squared_norms(), gram.digest
        costs = [loss + self.rho * float(norm) for loss, norm in zip(losses, norms, strict=True)]
        rows = session.order(costs)[: session.n - session.f]
        finite = sum(math.isfinite(cost) for cost in costs)
        require(
            Check(
                holds=finite >= len(rows),
                arithmetic=f"zeno takes n - f = {session.n} - {session.f} = {len(rows)} models, and"
                f" {finite} have a finite loss on the trusted data",
                remedy="look at the trusted data and the evaluator",
            )
        )
        decision = selection(session, rows, scores=costs, gram_digest=digest)
        candidates = tuple(
            Candidate(
                name=key,
                loss=losses[row],
                picked=decision.accepted[row],
                reason="" if decision.accepted[row] else NOT_SELECTED,
            )
            for row, key in enumerate(session.keys)
        )
        return Decision(
            recipe=decision.recipe,
            accepted=decision.accepted,
            scores=decision.scores,
            reasons=decision.reasons,
            weights=decision.weights,
            candidates=candidates,
            gram_digest=digest,
        )


@dataclass(frozen=True, slots=True)
class Monna(Rule):
    """The mean of the n - f models that are nearest to one that is trusted.

    Farhadkhani et al., "Robust collaborative learning with linear gradient overhead" (MoNNA), ICML
    2023, arXiv 2209.10931: there each node trusts itself. n >= 2f + 1. Equal distances go by
    digest, then key.

    Attributes:
        reference: Key of the trusted participant; empty for the root update.
    """

    name: ClassVar[str] = "monna"
    reference: str = ""

    @property
    def needs(self) -> frozenset[Need]:
        """The root update, where no participant is trusted."""
        return frozenset() if self.reference else frozenset({Need.ROOT_UPDATE})

    @property
    def trusted_rows(self) -> int:
        """The root update, where no participant is trusted."""
        return 0 if self.reference else limit_of(self.name).trusted_rows

    @property
    def passes(self) -> int:
        """Gram matrix and sum."""
        return 2

    def decide(self, session: Session) -> Decision:
        """Takes the nearest."""
        root = session.context.root_update
        if self.reference and self.reference not in session.keys:
            raise MissingInput(
                f"monna trusts participant {self.reference!r}, which does not take part",
                remedy="trust another participant, or give a root update",
            )
        if self.reference or root is None:
            gram = session.gram()
            pivot = session.keys.index(self.reference)
        else:
            gram = session.gram(extra=(root,))
            pivot = session.n
        distances = gram.squared_distances()[pivot].tolist()[: session.n]
        rows = session.order(distances)[: session.n - session.f]
        return selection(session, rows, scores=distances, gram_digest=gram.digest)
