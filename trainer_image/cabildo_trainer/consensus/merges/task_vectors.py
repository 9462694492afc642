"""Merges of task vectors: arithmetic, TIES, DARE, DELLA, breadcrumbs.

All add scale * sum w_i t_i to the base, t_i = x_i - base in float32; they differ in which entries
of t_i count. Weights and scale are used as given. `normalize` divides by the sum of the weights
(of those that agree, where there is a vote) and is part of the result's parameters; it is on by
default only in TIES and DELLA, whose papers define the disjoint mean.

mergekit 0.1.5's recipes map one to one (compared by running it, those that draw entry by entry only
with everything kept, else by how much they keep): task_arithmetic; ties; dare_linear and dare_ties
(`dare` with elect none and sum); della_linear and della (elect none and sum, window = 2 epsilon);
breadcrumbs and breadcrumbs_ties; its lambda is our scale. Differences: our arithmetic
is float32 and fp64 whatever the models are, ties go by index, an impossible density is refused, and
kept random entries are divided by their probability as in the papers, where mergekit restores the
tensor's L1 norm.

Here: the rules. Never here: the pass (`task_vector_recipes.py`) or selection (`selection.py`).
Next: `merging.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.errors import ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.merges.selection import row_bounds
from cabildo_trainer.consensus.merges.task_vector_recipes import (
    RandomlyDropped,
    RankDropped,
    TaskVectors,
)
from cabildo_trainer.consensus.merges.weights import row_weights
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.recipes import PerTensor, Recipe
from cabildo_trainer.consensus.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_trainer.consensus.merges.task_vector_recipes import Bound
    from cabildo_trainer.consensus.passes import Session
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec

Election = Literal["none", "sum", "count"]


@dataclass(frozen=True, slots=True)
class TaskVectorRule(Rule):
    """What all merges of task vectors share.

    Attributes:
        weights: By key, as given; empty for 1 each.
        scale: lambda: what the merged task vector is multiplied with.
        normalize: Whether it is divided by the sum of the weights.
    """

    weights: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0
    normalize: bool = False

    @property
    def needs(self) -> frozenset[Need]:
        """The base."""
        return frozenset({Need.BASE})

    def decide(self, session: Session) -> Decision:
        """Takes everybody with a weight."""
        weights = row_weights(self.weights, keys=session.keys)
        self._check_normalised(weights)
        return Decision(
            recipe=self.recipe(session, weights),
            accepted=tuple(weight != 0.0 for weight in weights),
            reasons=tuple("" if weight != 0.0 else "ZeroWeight" for weight in weights),
            weights=weights,
        )

    def _check_normalised(self, weights: tuple[float, ...]) -> None:
        """Refuses a division by a sum of weights that is zero in every entry."""
        voted = getattr(self, "elect", "none") != "none"
        # After a vote rows of one sign are summed, so weights of both signs have sums of their own.
        sums = [abs(weight) for weight in weights] if voted else weights
        if self.normalize and ordered_sum(sums) == 0.0:
            raise ImpossibleSetting(
                f"{self.name}.weights = {weights}: weights with sum 0 cannot be normalised",
                remedy="set normalize: false, or give weights with another sum",
            )

    @abstractmethod
    def recipe(self, session: Session, weights: tuple[float, ...]) -> Recipe:
        """Returns the pass for these weights."""


@dataclass(frozen=True, slots=True)
class TaskArithmetic(TaskVectorRule):
    """base + scale * sum w_i (x_i - base) (Ilharco et al., ICLR 2023, arXiv 2212.04089)."""

    name: ClassVar[str] = "taskArithmetic"

    def recipe(self, session: Session, weights: tuple[float, ...]) -> Recipe:
        """Returns the plain sum."""
        del session
        return TaskVectors(weights=weights, scale=self.scale, normalize=self.normalize)


@dataclass(frozen=True, slots=True)
class Ties(TaskVectorRule):
    """Trim, elect sign, disjoint mean (Yadav et al., NeurIPS 2023, arXiv 2306.01708).

    Each task vector keeps, tensor by tensor, the floor(density * size) entries of largest
    magnitude (one at least), ties by index. In each entry the sign of the larger weighted mass is
    elected, and the weighted mean is taken of the entries that have it.

    Attributes:
        density: Share that is kept, 0 < density <= 1.
        elect: `sum` by weighted mass, as in the paper; `count` by number of rows.
        normalize: True is the disjoint mean of the paper, False the disjoint sum.
    """

    name: ClassVar[str] = "ties"
    normalize: bool = True
    density: float = 0.2
    elect: Election = "sum"

    @property
    def passes(self) -> int:
        """Selection, then the sum; two more selections for tensors beyond the cache."""
        return 2

    def recipe(self, session: Session, weights: tuple[float, ...]) -> Recipe:
        """Selects in every row of every tensor."""
        check_share("ties.density", self.density)

        def with_bounds(keep: tuple[Bound, ...]) -> TaskVectors:
            return TaskVectors(
                weights=weights,
                scale=self.scale,
                normalize=self.normalize,
                elect=self.elect,
                keep=keep,
            )

        found = row_bounds(session, _base(session), lambda spec: [kept_of(spec, self.density)])
        return PerTensor(
            recipes={name: with_bounds(tuple(row[0] for row in rows)) for name, rows in found},
            default=with_bounds(()),
        )


@dataclass(frozen=True, slots=True)
class Dare(TaskVectorRule):
    """Drop at random and rescale (Yu et al., ICML 2024, arXiv 2311.03099).

    Every entry of every task vector is kept with probability `density`, drawn from the round's
    seed, participant, tensor and element, and divided by it.

    Attributes:
        density: Probability of being kept, 0 < density <= 1.
        rescale: Whether kept entries are divided by it.
        elect: `none` adds all (DARE with task arithmetic); `sum` and `count` vote as TIES does.
    """

    name: ClassVar[str] = "dare"
    density: float = 0.5
    rescale: bool = True
    elect: Election = "none"

    @property
    def needs(self) -> frozenset[Need]:
        """The base and the seed."""
        return frozenset({Need.BASE, Need.SEED})

    def recipe(self, session: Session, weights: tuple[float, ...]) -> Recipe:
        """Returns the drops' recipe; they are drawn while it runs."""
        del session
        check_share("dare.density", self.density)
        return RandomlyDropped(
            weights=weights,
            scale=self.scale,
            normalize=self.normalize,
            elect=self.elect,
            density=self.density,
            rescale=self.rescale,
        )


@dataclass(frozen=True, slots=True)
class Della(TaskVectorRule):
    """Drop at random by magnitude, elect, fuse (Deep et al., 2024, arXiv 2406.11617, MagPrune).

    An entry is kept with a probability that rises evenly with its rank within its row of the
    matrix, from density - window / 2 to density + window / 2, and is divided by it.

    Attributes:
        density: Mean probability of being kept.
        window: Its range over the ranks (the paper's epsilon).
        rescale: Whether kept entries are divided by their probability.
        elect: As in `Ties`; `none` adds all.
        normalize: True is the disjoint mean.
    """

    name: ClassVar[str] = "della"
    normalize: bool = True
    density: float = 0.5
    window: float = 0.2
    rescale: bool = True
    elect: Election = "sum"

    @property
    def needs(self) -> frozenset[Need]:
        """The base and the seed."""
        return frozenset({Need.BASE, Need.SEED})

    def recipe(self, session: Session, weights: tuple[float, ...]) -> Recipe:
        """Returns the drops' recipe; they are drawn while it runs."""
        del session
        low, high = self.density - self.window / 2.0, self.density + self.window / 2.0
        if self.window < 0.0 or not 0.0 < low <= high <= 1.0:
            raise ImpossibleSetting(
                f"della: density -+ window / 2 = {low!r} .. {high!r}: probabilities in (0, 1] are"
                " needed",
                remedy="lower the window, or move the density away from 0 and 1",
            )
        return RankDropped(
            weights=weights,
            scale=self.scale,
            normalize=self.normalize,
            elect=self.elect,
            density=self.density,
            window=self.window,
            rescale=self.rescale,
        )


@dataclass(frozen=True, slots=True)
class Breadcrumbs(TaskVectorRule):
    """Without outliers and without crumbs (Davari and Belilovsky, ECCV 2024, arXiv 2312.06795).

    Tensor by tensor the floor(gamma * size) largest entries are dropped, the next
    floor(density * size) kept, and the rest dropped; ties by index.

    Attributes:
        density: Share that is kept.
        gamma: Share of the largest that is dropped.
        elect: `none` adds all; `sum` and `count` vote as TIES does.
    """

    name: ClassVar[str] = "breadcrumbs"
    density: float = 0.9
    gamma: float = 0.01
    elect: Election = "none"

    @property
    def passes(self) -> int:
        """Selection, then the sum; more selections for tensors beyond the cache."""
        return 2

    def recipe(self, session: Session, weights: tuple[float, ...]) -> Recipe:
        """Selects in every row of every tensor."""
        check_share("breadcrumbs.density", self.density)
        if not 0.0 <= self.gamma < 1.0 or self.density + self.gamma > 1.0:
            raise ImpossibleSetting(
                f"breadcrumbs: density + gamma = {self.density + self.gamma!r}: gamma >= 0 and a"
                " sum of at most 1 are needed",
                remedy=f"lower the density to {1.0 - self.gamma:g}, or gamma",
            )

        def ranks(spec: TensorSpec) -> Sequence[int]:
            outliers = int(self.gamma * spec.size)
            return [outliers, outliers + kept_of(spec, self.density)]

        def with_bounds(rows: Sequence[Sequence[Bound]]) -> TaskVectors:
            return TaskVectors(
                weights=weights,
                scale=self.scale,
                normalize=self.normalize,
                elect=self.elect,
                drop=tuple(row[0] for row in rows),
                keep=tuple(row[1] for row in rows),
            )

        found = row_bounds(session, _base(session), ranks)
        return PerTensor(
            recipes={name: with_bounds(rows) for name, rows in found}, default=with_bounds([])
        )


def kept_of(spec: TensorSpec, density: float) -> int:
    """Returns floor(density * size), at least 1: no tensor is lost to rounding."""
    return max(1, int(density * spec.size))


def check_share(name: str, value: float) -> None:
    """Refuses a share outside (0, 1]."""
    if not 0.0 < value <= 1.0:
        raise ImpossibleSetting(f"{name} = {value!r}: a share in (0, 1] is needed")


def _base(session: Session) -> ModelSource:
    if session.context.base is None:
        raise MissingInput("task vectors are differences to a base, and none was given")
    return session.context.base
