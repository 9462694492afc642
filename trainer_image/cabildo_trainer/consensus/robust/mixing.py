"""Pre-aggregation: models are mixed or clipped first, then any other rule works on the mixtures.

Mixtures are linear in the models, so their Gram matrix is W G W^T and a weighted sum of them is a
weighted sum of the models: no pass is added. Column rules mix each chunk as it streams by.

Here: NNM, bucketing, norm clip and ARC, each around an inner rule. Never here: the session that the
inner rule sees; that is `mixtures.py`. Next: the inner rule.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from cabildo_api.consensus_limits import Check, bucketing_limit, limit_of
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.errors import MissingInput
from cabildo_trainer.consensus.ordered import median
from cabildo_trainer.consensus.random import Draws
from cabildo_trainer.consensus.robust.columns import TrimmedMean
from cabildo_trainer.consensus.robust.mixtures import MixedSession, Mixing, lifted_decision
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from cabildo_trainer.consensus.decision import Decision
    from cabildo_trainer.consensus.passes import Session


@dataclass(frozen=True, slots=True)
class PreAggregation(Rule):
    """A step before a rule.

    Attributes:
        rule: The rule on the mixtures.
    """

    name: ClassVar[str] = "preAggregation"
    rule: Rule = TrimmedMean()  # noqa: RUF009 - frozen, without state

    @property
    def needs(self) -> frozenset[Need]:
        """What the inner rule needs."""
        return self.rule.needs

    @property
    def passes(self) -> int:
        """The Gram matrix, and the inner rule's (which may use the same matrix)."""
        return 1 + self.rule.passes

    @property
    def trusted_rows(self) -> int:
        """Its own or the inner rule's: a sum over mixtures is made as one over the models."""
        return max(limit_of(self.name).trusted_rows, self.rule.trusted_rows)

    @property
    def label(self) -> str:
        """Such as `nnm(trimmedMean)`."""
        return f"{self.name}({self.rule.label})"

    def requirement(self, n: int, f: int) -> None:
        """Checks its own limit, then the inner rule's on the mixtures."""
        Rule.requirement(self, n, f)
        self.rule.requirement(*self.mixtures(n, f))

    def mixtures(self, n: int, f: int) -> tuple[int, int]:
        """Returns how many mixtures there are, and how many of them faults can reach."""
        return n, f

    @abstractmethod
    def mix(self, session: Session) -> Mixing:
        """Returns the mixtures of the session's rows."""

    def decide(self, session: Session) -> Decision:
        """Mixes, lets the inner rule decide, and says it in terms of the participants."""
        mixing = self.mix(session)
        _, f = self.mixtures(session.n, session.f)
        mixed = MixedSession.of(session, mixing, f=f)
        return lifted_decision(self.rule.decide(mixed), mixing)


@dataclass(frozen=True, slots=True)
class NearestNeighbourMixing(PreAggregation):
    """NNM: each model becomes the mean of the n - f models nearest to it, itself among them.

    Allouah et al., "Fixing by mixing", AISTATS 2023, arXiv 2302.01772. n >= 2f + 1. Equal distances
    go by digest, then key.
    """

    name: ClassVar[str] = "nnm"

    def mix(self, session: Session) -> Mixing:
        """Finds the neighbours."""
        gram = session.gram()
        distances = gram.squared_distances()
        size = session.n - session.f
        share = 1.0 / size
        matrix = []
        for row in range(session.n):
            line = distances[row].tolist()
            line[row] = -1.0
            near = set(session.order(line)[:size])
            matrix.append(tuple(share if other in near else 0.0 for other in range(session.n)))
        return Mixing.of(matrix, owners=range(session.n), gram_digest=gram.digest)

    def kappa(self, n: int, f: int) -> float | None:
        """Returns 8 f / (n - f) (kappa of the rule + 1) (arXiv 2302.01772, lemma 1)."""
        inner = self.rule.kappa(n, f)
        return None if inner is None else 8.0 * f / (n - f) * (inner + 1.0)


@dataclass(frozen=True, slots=True)
class Bucketing(PreAggregation):
    """The models are shuffled by the round's seed, and each `size` of them are averaged.

    Karimireddy et al., "Byzantine-robust learning on heterogeneous datasets via bucketing", ICLR
    2022, arXiv 2006.09365. f models reach at most f buckets: ceil(n / size) > 2f.

    Attributes:
        size: Models in a bucket; the last one may hold fewer.
    """

    name: ClassVar[str] = "bucketing"
    size: int = 2

    @property
    def named(self) -> frozenset[str]:
        """None: what the inner rule names are buckets."""
        return frozenset()

    @property
    def needs(self) -> frozenset[Need]:
        """The seed, and what the inner rule needs."""
        return self.rule.needs | {Need.SEED}

    @property
    def passes(self) -> int:
        """The inner rule's: the shuffle looks at no model."""
        return self.rule.passes

    def requirement(self, n: int, f: int) -> None:
        """Also checks the number of buckets."""
        require(bucketing_limit(n=n, f=f, size=self.size))
        PreAggregation.requirement(self, n, f)

    def mixtures(self, n: int, f: int) -> tuple[int, int]:
        """Returns the number of buckets; f stays."""
        return -(-n // self.size), f

    def mix(self, session: Session) -> Mixing:
        """Shuffles."""
        seed = session.context.seed
        if seed is None:
            raise MissingInput("bucketing needs the round's seed")
        draws = [float(Draws(seed, key, "bucketing").uniform(0, 1)[0]) for key in session.keys]
        order = session.order(draws)
        matrix, owners = [], [0] * session.n
        for bucket, first in enumerate(range(0, session.n, self.size)):
            members = order[first : first + self.size]
            share = 1.0 / len(members)
            matrix.append(tuple(share if row in members else 0.0 for row in range(session.n)))
            for row in members:
                owners[row] = bucket
        return Mixing.of(matrix, owners=owners)


@dataclass(frozen=True, slots=True)
class NormClip(PreAggregation):
    """Every update longer than a bound is cut to it: g_i min(1, c / |g_i|), g_i = x_i - start.

    Without a previous model or base the inputs themselves are the updates. Bounds what one model
    can do to the mean; n >= 2f + 1 for the default bound, which is the median norm. A bound that is
    given bounds nothing by itself: above all norms it cuts nobody, and nobody refuses it. The
    result says so: `fixedBound`, and `clippedByFixedBound` models that it cut.

    Attributes:
        bound: c; None for the median of the norms.
    """

    name: ClassVar[str] = "normClip"
    bound: float | None = None

    def requirement(self, n: int, f: int) -> None:
        """Also checks the bound."""
        require(
            Check(
                holds=self.bound is None or 0.0 < self.bound < math.inf,
                arithmetic=f"normClip needs a bound above zero: {self.bound}",
                remedy="leave the bound out to take the median norm",
            )
        )
        PreAggregation.requirement(self, n, f)

    def mix(self, session: Session) -> Mixing:
        """Measures the updates."""
        norms = norms_of(session)
        if self.bound is None:
            return clipping(session, norms, bound=median(norms))
        mixing = clipping(session, norms, bound=self.bound)
        figures = {
            "fixedBound": self.bound,
            "clippedByFixedBound": mixing.diagnostics["clipped"],
        }
        return replace(mixing, diagnostics={**mixing.diagnostics, **figures})


@dataclass(frozen=True, slots=True)
class AdaptiveClip(PreAggregation):
    """ARC: the k = floor(2 (f/n) (n - f)) longest updates are cut to the norm of the next one.

    Allouah et al., "Adaptive gradient clipping for robust federated learning", ICLR 2025, arXiv
    2405.14432. Updates as in norm clip. n >= 2f + 1.
    """

    name: ClassVar[str] = "arc"

    def mix(self, session: Session) -> Mixing:
        """Measures the updates."""
        norms = norms_of(session)
        n, f = session.n, session.f
        clipped = 2 * f * (n - f) // n
        return clipping(session, norms, bound=sorted(norms)[n - clipped - 1])


def norms_of(session: Session) -> list[float]:
    """Returns the norms of the updates."""
    return [math.sqrt(max(float(value), 0.0)) for value in session.gram().squared_norms()]


def clipping(session: Session, norms: list[float], *, bound: float) -> Mixing:
    """Returns the rows with every update cut to the bound."""
    factors = [1.0 if norm <= bound else bound / norm for norm in norms]
    matrix = [
        tuple(factor if row == other else 0.0 for other in range(session.n))
        for row, factor in enumerate(factors)
    ]
    starts = [0.0] * session.n
    if session.context.start is not None:
        starts = [1.0 - factor for factor in factors]
    return Mixing.of(
        matrix,
        owners=range(session.n),
        starts=starts,
        gram_digest=session.gram().digest,
        diagnostics={"clipNorm": bound, "clipped": float(sum(factor < 1.0 for factor in factors))},
    )
