"""SCE: columns chosen by variance, models weighed by their share of the squares, minorities erased.

Here: the rule, its two statistics. Never here: the pass (`task_vector_recipes.py`). Next:
`merging.py`. mergekit's `sce` has select_topk for our density.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import cabildo_kernels as kernels
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.task_vectors import EVERYTHING
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.merges.selection import bounds_of
from cabildo_trainer.consensus.merges.task_vector_recipes import (
    VarianceSelected,
    column_variance,
    held,
    inside,
)
from cabildo_trainer.consensus.merges.task_vectors import check_share, kept_of
from cabildo_trainer.consensus.ordered import ordered_sum
from cabildo_trainer.consensus.passes import spans
from cabildo_trainer.consensus.recipes import PerTensor, Recipe
from cabildo_trainer.consensus.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.merges.task_vector_recipes import Bound
    from cabildo_trainer.consensus.passes import Session
    from cabildo_trainer.consensus.sources import TensorSpec


@dataclass(frozen=True, slots=True)
class Sce(Rule):
    """Select, calculate, erase (Wan et al., FuseChat, arXiv 2408.07990).

    Tensor by tensor: the floor(density * size) columns of largest variance are selected; a model's
    weight is its share of the squares of all selected entries; entries against the sign of the
    larger sum are erased, and the weighted mean of the others is added to the base.

    Attributes:
        density: Share of the columns that is selected, 0 < density <= 1.
        scale: What the merged task vector is multiplied with.
    """

    name: ClassVar[str] = "sce"
    density: float = 1.0
    scale: float = 1.0

    @property
    def needs(self) -> frozenset[Need]:
        """The base."""
        return frozenset({Need.BASE})

    @property
    def passes(self) -> int:
        """Weights and sum; with a selection three to four more for the variance."""
        return 2 if self.density == 1.0 else 5

    def decide(self, session: Session) -> Decision:
        """Takes everybody."""
        check_share("sce.density", self.density)
        recipes: dict[str, Recipe] = {}
        for spec in session.specs.values():
            if spec.is_floating:
                chosen = self._chosen(session, spec)
                weights = _energy_shares(session, spec, chosen)
                recipes[spec.name] = self._recipe(weights, chosen)
        equal = (1.0 / session.n,) * session.n
        return Decision(
            recipe=PerTensor(recipes=recipes, default=self._recipe(equal, EVERYTHING)),
            accepted=(True,) * session.n,
        )

    def _recipe(self, weights: tuple[float, ...], chosen: Bound) -> VarianceSelected:
        return VarianceSelected(
            weights=weights,
            votes=(1.0,) * len(weights),
            scale=self.scale,
            normalize=True,
            elect="sum",
            chosen=chosen,
        )

    def _chosen(self, session: Session, spec: TensorSpec) -> Bound:
        if self.density == 1.0:
            return EVERYTHING
        bounds = bounds_of(
            _Variances(session, spec),
            [kept_of(spec, self.density)],
            size=spec.size,
            dtype="f32",
            base_dtype="f32",
            key="the variance",
        )
        return bounds[0]


class _Variances:
    """The columns' variance of one tensor, in pieces."""

    def __init__(self, session: Session, spec: TensorSpec) -> None:
        self._session, self._spec = session, spec

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any], None]]:
        for start, stop in spans(self._spec, unit=1, size=self._session.chunk_elements):
            chunk = self._session.chunk(self._spec, start=start, stop=stop)
            yield start, column_variance(chunk), None


def _energy_shares(session: Session, spec: TensorSpec, chosen: Bound) -> tuple[float, ...]:
    """Returns each row's share of the squared selected differences; equal where all are zero."""
    total: NDArray[np.float64] | None = None
    for start, stop in spans(spec, unit=1, size=session.chunk_elements):
        chunk = held(session.chunk(spec, start=start, stop=stop))
        base, given = chunk.base(), chunk.rows_float32()
        with default_environment():
            rows = [row - base for row in given]
        if chosen != EVERYTHING:
            mask = inside(column_variance(chunk), chosen, start=start)
            rows = [np.where(mask, row, np.float32(0.0)) for row in rows]
        with chunk.naming():
            total = kernels.gram(rows, initial=total, threads=session.context.threads)
    energies = [] if total is None else [float(value) for value in np.diagonal(total)]
    whole = ordered_sum(energies)
    if whole == 0.0:
        return (1.0 / session.n,) * session.n
    return tuple(energy / whole for energy in energies)
