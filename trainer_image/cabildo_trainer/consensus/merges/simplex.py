"""Minimisation over the probability simplex: how much of each model goes into a convex mixture.

Here: the projection, three descent methods and the Frank-Wolfe duality gap, on plain Python floats
(n <= 64) so that every machine walks the same path. The gap certifies the answer: for a convex
objective (linear models, mixtures of logits) value - gap is a lower bound of the minimum; for a
deep network a gap near zero only says "stationary on the simplex". Never here: models; an
objective is asked for values and gradients in the weights. Next: `soups.py` asks with models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from cabildo_trainer.consensus.elementary import exp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Weights = tuple[float, ...]

_MOST_HALVINGS: Final = 40
_FORGETTING: Final = 0.5
"""The curvature estimate is halved after each step, so that a steep start is not paid for ever."""
_INTERIOR: Final = 0.01
"""Share of the uniform mixture in mirror descent's start: a weight of zero never grows again."""
_LARGEST_POWER: Final = 500.0
_FAR: Final = 1024.0
"""Size of a point from which its projection is found relative to its largest entry."""
_STEEP: Final = 2.0**20
"""Spread of a gradient up to which the first step tries a curvature of 1: the halvings of a step
reach far beyond what curvature goes with that."""


class Method(StrEnum):
    """How the simplex is descended."""

    PROJECTED_GRADIENT = "projected-gradient"
    """Gradient step, then Euclidean projection (Duchi et al., ICML 2008)."""
    MIRROR_DESCENT = "mirror-descent"
    """Exponentiated gradient (Kivinen and Warmuth 1997; Beck and Teboulle 2003)."""
    FRANK_WOLFE = "frank-wolfe"
    """Pairwise Frank-Wolfe: mass moves from the worst model in use to the best one
    (Lacoste-Julien and Jaggi, NeurIPS 2015); never a projection, few models in use."""


class Objective(Protocol):
    """A differentiable function of the weights."""

    def value(self, weights: Weights) -> float:
        """Returns the objective."""

    def gradient(self, weights: Weights) -> Weights:
        """Returns its partial derivatives."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Where a descent ended.

    Attributes:
        weights: A point of the simplex.
        value: The objective there.
        gap: The Frank-Wolfe duality gap there, >= 0.
        iterations: Steps taken.
        evaluations: Values asked for.
        stopped: `gap`, `iterations` or `no decrease` (of the values' own precision).
    """

    weights: Weights
    value: float
    gap: float
    iterations: int
    evaluations: int
    stopped: str


@dataclass(frozen=True, slots=True)
class Penalised:
    """An objective plus strength * ||weights - centre||^2.

    Attributes:
        objective: The function without the penalty.
        centre: Weights that the penalty pulls to.
        strength: lambda >= 0.
    """

    objective: Objective
    centre: Weights
    strength: float

    def value(self, weights: Weights) -> float:
        """Returns the penalised objective."""
        distance = 0.0
        for weight, centre in zip(weights, self.centre, strict=True):
            distance += (weight - centre) * (weight - centre)
        return self.objective.value(weights) + self.strength * distance

    def gradient(self, weights: Weights) -> Weights:
        """Returns its partial derivatives."""
        return tuple(
            slope + 2.0 * self.strength * (weight - centre)
            for slope, weight, centre in zip(
                self.objective.gradient(weights), weights, self.centre, strict=True
            )
        )


def uniform(count: int) -> Weights:
    """Returns equal weights."""
    return (1.0 / count,) * count


def project(point: Sequence[float]) -> Weights:
    """Returns the nearest point of the simplex (Duchi et al., ICML 2008, by sorting)."""
    top = max(point)
    if abs(top) > _FAR:
        # The simplex's 1 would be lost beside the entries; adding to all of them moves nothing.
        point = [value - top for value in point]
    total, shift = 0.0, 0.0
    for rank, value in enumerate(sorted(point, reverse=True), start=1):
        total += value
        candidate = (total - 1.0) / rank
        if value - candidate > 0.0:
            shift = candidate
    return _normalised([max(value - shift, 0.0) for value in point])


def duality_gap(weights: Weights, gradient: Weights) -> float:
    """Returns max over the simplex of <gradient, weights - s> = <gradient, weights> - min gradient.

    Non-negative; zero exactly at the stationary points (Jaggi, ICML 2013).
    """
    return max(_dot(gradient, weights) - min(gradient), 0.0)


def minimise(
    objective: Objective,
    *,
    start: Weights,
    method: Method,
    iterations: int = 200,
    tolerance: float = 1e-9,
    noise: float = 0.0,
) -> Solution:
    """Descends from `start` until the gap is at most tolerance * (1 + |value|).

    Every step decreases the objective as much as its quadratic model promises; the curvature of
    that model is found by doubling and halving (Pedregosa et al., AISTATS 2020).

    Args:
        objective: What is minimised.
        start: A point of the simplex.
        method: How.
        iterations: Steps at most.
        tolerance: When it is done.
        noise: Relative error of the values. A decrease below it cannot be seen in them: there a
            step counts as good while the gradient at its end still points along it, which for a
            convex objective proves the decrease.
    """
    propose = _PROPOSALS[method]
    weights = _inward(start) if method is Method.MIRROR_DESCENT else start
    value, evaluations = objective.value(weights), 1
    gradient = objective.gradient(weights)
    curvature = _first_curvature(gradient)
    for step in range(iterations + 1):
        gap = duality_gap(weights, gradient)
        stopped = "gap" if gap <= tolerance * (1.0 + abs(value)) else "iterations"
        if stopped == "gap" or step == iterations:
            break
        blur = noise * (1.0 + abs(value))
        for _ in range(_MOST_HALVINGS):
            candidate = propose(weights, gradient, curvature)
            promised = _promise(weights, candidate, gradient, curvature)
            new_value = objective.value(candidate)
            evaluations += 1
            if new_value <= value + promised and new_value < value:
                new_gradient = objective.gradient(candidate)
                break
            if candidate != weights and -promised <= blur and new_value <= value + blur:
                new_gradient = objective.gradient(candidate)
                if _slope(weights, candidate, new_gradient) <= 0.0:
                    break
            curvature *= 2.0
        else:
            return Solution(weights, value, gap, step, evaluations, "no decrease")
        weights, value, gradient = candidate, new_value, new_gradient
        curvature *= _FORGETTING
    return Solution(weights, value, gap, step, evaluations, stopped)


def _first_curvature(gradient: Weights) -> float:
    """Returns the curvature to try first: 1, or a power of two above a steep gradient's spread.

    So the unit of the objective does not decide whether a step is found.
    """
    spread = max(gradient) - min(gradient)
    return 1.0 if spread <= _STEEP else math.ldexp(1.0, math.frexp(spread)[1])


def _slope(weights: Weights, candidate: Weights, gradient: Weights) -> float:
    """Returns <gradient, candidate - weights>."""
    slope = 0.0
    for old, new, derivative in zip(weights, candidate, gradient, strict=True):
        slope += derivative * (new - old)
    return slope


def _promise(weights: Weights, candidate: Weights, gradient: Weights, curvature: float) -> float:
    """Returns <gradient, d> + curvature/2 ||d||_1^2 of the step d: what it must gain at least.

    The 1-norm bounds the 2-norm, and it is the norm in which the entropy of mirror descent is
    strongly convex, so one rule serves the three methods.
    """
    norm = 0.0
    for old, new in zip(weights, candidate, strict=True):
        norm += abs(new - old)
    return _slope(weights, candidate, gradient) + 0.5 * curvature * norm * norm


def _gradient_step(weights: Weights, gradient: Weights, curvature: float) -> Weights:
    return project(
        [weight - slope / curvature for weight, slope in zip(weights, gradient, strict=True)]
    )


def _mirror_step(weights: Weights, gradient: Weights, curvature: float) -> Weights:
    lowest = min(gradient)
    return _normalised(
        [
            weight * exp(-min((slope - lowest) / curvature, _LARGEST_POWER))
            for weight, slope in zip(weights, gradient, strict=True)
        ]
    )


def _pairwise_step(weights: Weights, gradient: Weights, curvature: float) -> Weights:
    toward = min(range(len(weights)), key=lambda i: (gradient[i], i))
    away = max(
        (i for i in range(len(weights)) if weights[i] > 0.0), key=lambda i: (gradient[i], -i)
    )
    # The step moves `mass` from one vertex to another: its 1-norm is twice the mass.
    mass = min((gradient[away] - gradient[toward]) / (4.0 * curvature), weights[away])
    moved = list(weights)
    moved[toward] += mass
    moved[away] = 0.0 if mass == weights[away] else moved[away] - mass
    return _normalised(moved)


_PROPOSALS: Final[dict[Method, Callable[[Weights, Weights, float], Weights]]] = {
    Method.PROJECTED_GRADIENT: _gradient_step,
    Method.MIRROR_DESCENT: _mirror_step,
    Method.FRANK_WOLFE: _pairwise_step,
}


def _inward(weights: Weights) -> Weights:
    if min(weights) > 0.0:
        return weights
    share = _INTERIOR / len(weights)
    return _normalised([(1.0 - _INTERIOR) * weight + share for weight in weights])


def _normalised(values: Sequence[float]) -> Weights:
    total = 0.0
    for value in values:
        total += value
    return tuple(value / total for value in values)


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    total = 0.0
    for a, b in zip(left, right, strict=True):
        total += a * b
    return total
