"""Merging on the sphere: SLERP of two models, multi-SLERP and the Karcher mean of many.

Every result is a linear combination of the models, so each tensor needs one Gram matrix and one
weighted sum; angles come from the matrix through our own acos and sin.

Here: the weights from a Gram matrix, and the two rules. Never here: tensors. Next: `recipes.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.elementary import PI, acos, cos, sin
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.merges.task_vector_recipes import TaskVectors
from cabildo_trainer.consensus.merges.tensor_grams import tensor_grams
from cabildo_trainer.consensus.merges.weights import convex_weights
from cabildo_trainer.consensus.ordered import inner, matrix_vector, ordered_sum
from cabildo_trainer.consensus.recipes import PerTensor, Recipe, WeightedSum
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_trainer.consensus.passes import Session

TWO: Final = 2
PARALLEL: Final = 0.9995
"""Above this |cosine| two tensors count as parallel, and SLERP is the straight line."""
_CONVERGED: Final = 1e-13
_OPPOSITE: Final = 1e-14
"""1 - cosine^2 below which two unit vectors of opposite sign count as antipodal: the rest is what
rounding leaves of zero in a Gram matrix (models in float32 that are antipodal come to 1e-15)."""


def slerp_weights(gram: NDArray[np.float64], *, t: float, parallel: float) -> tuple[float, float]:
    """Returns the weights of two vectors in their spherical interpolation (Shoemake 1985).

    sin((1 - t) w) / sin w and sin(t w) / sin w with w the angle between them; (1 - t, t) where
    |cos w| > parallel, a vector is zero, or both are antipodal (then no arc is the shortest).
    """
    norms = math.sqrt(gram[0, 0]) * math.sqrt(gram[1, 1])
    cosine = 1.0 if norms == 0.0 else max(-1.0, min(1.0, float(gram[0, 1]) / norms))
    if abs(cosine) > parallel or _is_opposite(cosine, slack=_OPPOSITE):
        return 1.0 - t, t
    angle = acos(cosine)
    divisor = sin(angle)
    return sin((1.0 - t) * angle) / divisor, sin(t * angle) / divisor


def spherical_mean_weights(
    gram: NDArray[np.float64], weights: tuple[float, ...], *, iterations: int
) -> tuple[float, ...]:
    """Returns the weights of vectors in their weighted mean on the sphere, scaled to their norm.

    The directions u_i = x_i / |x_i| are averaged by steps m <- exp_m(sum w_i log_m u_i) from the
    normalised straight mean (Karcher 1977; Buss and Fillmore 2001); the result has length
    sum w_i |x_i|. Zero vectors have no direction and take no part in it. A direction that is
    antipodal to m takes no part in that step: every way from m to it is equally short, so its log
    has no direction, and the sum of rounding errors is none either. In one dimension that leaves
    the sign of the straight mean.

    Args:
        gram: <x_i, x_j>.
        weights: >= 0, with sum 1.
        iterations: Steps at most; it stops earlier where a step no longer turns anything.
    """
    norms = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    length = ordered_sum(weight * norm for weight, norm in zip(weights, norms, strict=True))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0.0)
    units = gram * inverse[:, None] * inverse[None, :]  # <u_i, u_j>
    mean = _unit(np.asarray(weights) * (norms > 0.0), units)
    if mean is None:
        return tuple(float(weight) for weight in weights)
    for _ in range(iterations):
        step = _tangent_mean(mean, units, weights)
        angle = math.sqrt(max(inner(step, matrix_vector(units, step)), 0.0))
        if angle <= _CONVERGED:
            break
        turned = _unit(cos(angle) * mean + (sin(angle) / angle) * step, units)
        if turned is None:
            break
        mean = turned
    return tuple(float(value) for value in length * mean * inverse)


def _unit(
    coefficients: NDArray[np.float64], units: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Returns the coefficients of the combination's direction; None where it vanishes."""
    square = inner(coefficients, matrix_vector(units, coefficients))
    return coefficients / math.sqrt(square) if square > _CONVERGED else None


def _tangent_mean(
    mean: NDArray[np.float64], units: NDArray[np.float64], weights: tuple[float, ...]
) -> NDArray[np.float64]:
    """Returns sum w_i log_m(u_i) with log_m(u) = w / sin w (u - cos w m), w the angle to m.

    Directions antipodal to m are left out; see `spherical_mean_weights`.
    """
    cosines = matrix_vector(units, mean)
    # Where directions all but cancel, m has large coefficients, and errors grow with their square.
    size = 1.0 + ordered_sum(abs(value) for value in mean)
    slack = _OPPOSITE * size * size
    step = np.zeros_like(mean)
    for row, weight in enumerate(weights):
        if units[row, row] == 0.0:
            continue
        cosine = max(-1.0, min(1.0, float(cosines[row])))
        if _is_opposite(cosine, slack=slack):
            continue
        angle = acos(cosine)
        stretch = 1.0 if angle < _CONVERGED else angle / max(sin(min(angle, PI)), _CONVERGED)
        step[row] += weight * stretch
        step -= (weight * stretch * cosine) * mean
    return step


def _is_opposite(cosine: float, *, slack: float) -> bool:
    """Returns whether two unit vectors are antipodal as far as their cosine can tell."""
    return cosine < 0.0 and 1.0 - cosine * cosine < slack


@dataclass(frozen=True, slots=True)
class Slerp(Rule):
    """Spherical interpolation of exactly two models, tensor by tensor (Shoemake, SIGGRAPH 1985).

    Attributes:
        t: 0 is the model of the first key, 1 that of the second.
        first: Key that t = 0 stands for; empty for the first by key.
        parallel: |cosine| from which a tensor is interpolated on the straight line.
    """

    name: ClassVar[str] = "slerp"
    t: float = 0.5
    first: str = ""
    parallel: float = PARALLEL

    @property
    def passes(self) -> int:
        """Angles, then the sum."""
        return 2

    def requirement(self, n: int, f: int) -> None:
        """Refuses anything but two models: "SLERP" of more has no one meaning."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=n == TWO,
                arithmetic=f"slerp needs exactly two models: n = {n}",
                remedy="multiSlerp merges more",
            )
        )
        require(
            Check(
                holds=0.0 <= self.t <= 1.0,
                arithmetic=f"slerp.t = {self.t}: 0 <= t <= 1 is needed",
                remedy="set t to 0 for one model, 1 for the other, or between",
            )
        )
        # At 1 equal models would be divided by the sine of an angle of zero.
        require(
            Check(
                holds=0.0 <= self.parallel < 1.0,
                arithmetic=f"slerp.parallel = {self.parallel}: 0 <= parallel < 1 is needed",
                remedy=f"leave parallel out to take {PARALLEL}",
            )
        )

    def decide(self, session: Session) -> Decision:
        """Takes both."""
        if self.first and self.first not in session.keys:
            raise ImpossibleSetting(f"slerp.first = {self.first!r} is none of {session.keys}")
        swapped = bool(self.first) and session.keys.index(self.first) == 1
        t = 1.0 - self.t if swapped else self.t
        recipes: dict[str, Recipe] = {
            name: WeightedSum(weights=slerp_weights(gram, t=t, parallel=self.parallel))
            for name, gram in tensor_grams(session, base=None)
        }
        return Decision(
            recipe=PerTensor(recipes=recipes, default=WeightedSum(weights=(1.0 - t, t))),
            accepted=(True, True),
        )


@dataclass(frozen=True, slots=True)
class MultiSlerp(Rule):
    """The weighted mean on the sphere of any number of models, tensor by tensor.

    Directions are averaged (Buss and Fillmore, 2001); the length is the weighted mean of theirs.

    Attributes:
        weights: By key, with sum 1; empty for equal ones.
        normalize: Divide the weights by their sum.
        iterations: Steps in the tangent space at most: 0 is the normalised straight mean (what
            mergekit's `multislerp` comes to), many converge to the Karcher mean (its `karcher`).
        relative: Whether differences to the base are averaged, and not the models themselves.
    """

    name: ClassVar[str] = "multiSlerp"
    weights: dict[str, float] = field(default_factory=dict)
    normalize: bool = False
    iterations: int = 10
    relative: bool = False

    @property
    def needs(self) -> frozenset[Need]:
        """The base, where differences to it are averaged."""
        return frozenset({Need.BASE}) if self.relative else frozenset()

    @property
    def passes(self) -> int:
        """Angles, then the sum."""
        return 2

    def requirement(self, n: int, f: int) -> None:
        """Also checks the number of steps."""
        Rule.requirement(self, n, f)
        require(
            Check(
                holds=self.iterations >= 0,
                arithmetic=f"multiSlerp.iterations = {self.iterations}: 0 or more are needed",
                remedy="set iterations to 0 for the normalised straight mean, or to 10",
            )
        )

    def decide(self, session: Session) -> Decision:
        """Takes everybody."""
        weights = convex_weights(self.weights, keys=session.keys, normalize=self.normalize)
        base = session.context.base if self.relative else None
        recipes: dict[str, Recipe] = {}
        for name, gram in tensor_grams(session, base=base):
            found = spherical_mean_weights(gram, weights, iterations=self.iterations)
            recipes[name] = (
                WeightedSum(weights=found) if base is None else TaskVectors(weights=found)
            )
        return Decision(
            recipe=PerTensor(recipes=recipes, default=WeightedSum(weights=weights)),
            accepted=tuple(weight > 0.0 for weight in weights),
            reasons=tuple("" if weight > 0.0 else "ZeroWeight" for weight in weights),
            weights=weights,
        )
