"""Descent on the simplex: against scipy's SLSQP, and what its gap certifies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.optimize import minimize

from cabildo_trainer.consensus.merges.simplex import (
    Method,
    Penalised,
    duality_gap,
    minimise,
    project,
    uniform,
)

if TYPE_CHECKING:
    from cabildo_trainer.consensus.merges.simplex import Weights


class LeastSquares:
    """|A w - b|^2."""

    def __init__(self, n: int, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.matrix = rng.normal(size=(n + 4, n))
        self.target = rng.normal(size=n + 4)

    def value(self, weights: Weights) -> float:
        rest = self.matrix @ np.array(weights) - self.target
        return float(rest @ rest)

    def gradient(self, weights: Weights) -> Weights:
        slopes = 2.0 * self.matrix.T @ (self.matrix @ np.array(weights) - self.target)
        return tuple(slopes.tolist())


class Wave:
    """Not convex: many stationary points."""

    def value(self, weights: Weights) -> float:
        return float(np.sum(np.sin(9.0 * np.array(weights))))

    def gradient(self, weights: Weights) -> Weights:
        return tuple((9.0 * np.cos(9.0 * np.array(weights))).tolist())


def slsqp(objective: Penalised, n: int) -> float:
    found = minimize(
        lambda w: objective.value(tuple(w)),
        np.full(n, 1.0 / n),
        jac=lambda w: np.array(objective.gradient(tuple(w))),
        bounds=[(0.0, 1.0)] * n,
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(len(w))}
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return float(found.fun)


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("n", [2, 5, 16])
@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_every_method_finds_the_minimum_that_slsqp_finds(
    method: Method, n: int, strength: float
) -> None:
    for seed in range(3):
        objective = Penalised(LeastSquares(n, seed=seed), centre=uniform(n), strength=strength)
        found = minimise(objective, start=uniform(n), method=method, iterations=3000)
        best = slsqp(objective, n)
        assert found.value <= best + 1e-6 * (1.0 + abs(best))
        assert min(found.weights) >= 0.0
        assert sum(found.weights) == pytest.approx(1.0, abs=1e-12)
        # For a convex objective the gap bounds what is left.
        assert found.value - found.gap <= best + 1e-9


@pytest.mark.parametrize("method", list(Method))
def test_where_nothing_is_convex_the_end_is_stationary_and_not_above_the_start(
    method: Method,
) -> None:
    start = (0.3, 0.25, 0.45)
    found = minimise(Wave(), start=start, method=method, iterations=3000)
    assert found.value <= Wave().value(start)
    assert found.gap == duality_gap(found.weights, Wave().gradient(found.weights))
    assert found.gap <= 1e-4


def test_the_gap_is_zero_exactly_where_no_vertex_is_better() -> None:
    assert duality_gap((0.0, 1.0, 0.0), (2.0, 1.0, 3.0)) == 0.0
    assert duality_gap((0.5, 0.5), (2.0, 1.0)) == 0.5


def test_no_iterations_leave_the_start_and_report_its_gap() -> None:
    objective = LeastSquares(4, seed=1)
    found = minimise(objective, start=uniform(4), method=Method.PROJECTED_GRADIENT, iterations=0)
    assert (found.weights, found.iterations, found.stopped) == (uniform(4), 0, "iterations")
    assert found.gap > 0.0


def test_mirror_descent_can_leave_a_vertex() -> None:
    objective = LeastSquares(3, seed=2)
    found = minimise(objective, start=(1.0, 0.0, 0.0), method=Method.MIRROR_DESCENT)
    assert found.value < objective.value((1.0, 0.0, 0.0))


def test_the_projection_is_the_nearest_point() -> None:
    rng = np.random.default_rng(0)
    assert project((0.2, 0.3, 0.5)) == pytest.approx((0.2, 0.3, 0.5))
    for _ in range(50):
        point = rng.normal(size=5) * 2.0
        near = np.array(project(point.tolist()))
        assert near.min() >= 0.0
        assert near.sum() == pytest.approx(1.0)
        for other in rng.dirichlet(np.ones(5), size=200):
            assert np.sum((near - point) ** 2) <= np.sum((other - point) ** 2) + 1e-12


def test_a_large_penalty_holds_the_weights_at_the_centre() -> None:
    centre = (0.7, 0.2, 0.1)
    objective = Penalised(LeastSquares(3, seed=4), centre=centre, strength=1e7)
    found = minimise(objective, start=uniform(3), method=Method.PROJECTED_GRADIENT)
    assert found.weights == pytest.approx(centre, abs=1e-4)
