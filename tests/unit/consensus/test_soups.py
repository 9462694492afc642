"""Soups on linear models: what the trusted loss decides, and what its gradient finds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.optimize import minimize

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.merges.gradient_soups import LearnedSoup, SimplexWeights
from cabildo_trainer.consensus.merges.soups import (
    GreedySoup,
    IncrementalSoup,
    UniformSoup,
    WeightedSoup,
)
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.rule import Rule

INPUTS = 12


class Regression:
    """Mean squared error of a linear model: convex in the weights of a mixture."""

    def __init__(self, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.inputs = rng.normal(size=(80, INPUTS))
        self.truth = rng.normal(size=INPUTS)
        self.targets = self.inputs @ self.truth + 0.3 + rng.normal(scale=0.1, size=80)
        self.evaluations = 0

    def _rest(self, model: Any) -> np.ndarray[Any, Any]:
        weight = model.read("layer.weight", 0, INPUTS).astype(np.float64)
        bias = float(model.read("layer.bias", 0, 1)[0])
        return self.inputs @ weight + bias - self.targets

    def loss(self, model: Any) -> float:
        self.evaluations += 1
        return float(np.mean(self._rest(model) ** 2))

    def gradient(self, model: Any) -> MemoryModel:
        rest = self._rest(model)
        return MemoryModel(
            "gradient",
            {
                "layer.weight": (2.0 * self.inputs.T @ rest / rest.size).astype(np.float32),
                "layer.bias": np.array([2.0 * rest.mean()], dtype=np.float32),
            },
        )


def fine_tuned(problem: Regression, n: int, *, seed: int) -> list[MemoryModel]:
    rng = np.random.default_rng(seed)
    return [
        MemoryModel(
            f"p{index:02d}",
            {
                "layer.weight": (
                    problem.truth + rng.normal(scale=rng.uniform(0.1, 1.5), size=INPUTS)
                ).astype(np.float32),
                "layer.bias": rng.normal(size=1).astype(np.float32),
            },
        )
        for index in range(n)
    ]


def run(rule: Rule, models: list[MemoryModel], problem: Regression) -> tuple[MergeResult, float]:
    sink = MemorySink()
    context = Context(evaluator=problem, gradient=problem)
    result = merge(models, rule, context, sink=sink)
    return result, problem.loss(sink.model())


def stacked(models: list[MemoryModel]) -> np.ndarray[Any, Any]:
    return np.array(
        [
            np.concatenate([model.array("layer.bias"), model.array("layer.weight")])
            for model in models
        ],
        dtype=np.float64,
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_greedy_soup_is_never_worse_than_the_best_model_on_the_trusted_data(seed: int) -> None:
    problem = Regression(seed=seed)
    models = fine_tuned(problem, 7, seed=seed)
    result, loss = run(GreedySoup(), models, problem)
    singles = [problem.loss(model) for model in models]
    assert loss <= min(singles)
    assert [item.score for item in result.participants] == singles
    assert result.candidates[0].loss == min(singles)
    picked = [item for item in result.candidates if item.picked]
    losses = [item.loss for item in picked]
    assert losses == sorted(losses, reverse=True)
    taken = [item for item in result.participants if item.accepted]
    assert all(item.weight == pytest.approx(1 / len(taken)) for item in taken)
    assert {item.reason for item in result.participants if not item.accepted} <= {"NoGain"}


def test_a_model_that_gains_nothing_is_left_out_even_where_it_costs_nothing() -> None:
    problem = Regression(seed=3)
    best = fine_tuned(problem, 1, seed=1)[0]
    twin = MemoryModel("twin", {name: best.array(name) for name in best.tensors})
    result, _ = run(GreedySoup(), [best, twin], problem)
    assert sum(item.accepted for item in result.participants) == 1


def test_an_incremental_soup_takes_the_order_of_arrival_and_evaluates_each_mean_once() -> None:
    problem = Regression(seed=5)
    models = fine_tuned(problem, 5, seed=5)
    order = ("p03", "p01", "p04", "p00", "p02")
    problem.evaluations = 0
    result, loss = run(IncrementalSoup(order=order), models, problem)
    assert problem.evaluations == 5 + 1
    assert [item.name.removeprefix("with ") for item in result.candidates] == list(order)
    assert result.candidates[0].picked
    assert loss == pytest.approx(min(item.loss for item in result.candidates if item.picked))


def test_an_order_that_misses_or_repeats_a_participant_is_refused() -> None:
    problem = Regression(seed=5)
    models = fine_tuned(problem, 3, seed=5)
    with pytest.raises(ImpossibleSetting, match="p02"):
        run(IncrementalSoup(order=("p00", "p01")), models, problem)
    with pytest.raises(ImpossibleSetting, match="twice"):
        run(IncrementalSoup(order=("p00", "p01", "p02", "p00")), models, problem)


def test_weights_are_used_as_given_and_normalised_only_when_asked() -> None:
    problem = Regression(seed=6)
    models = fine_tuned(problem, 2, seed=6)
    sums = {}
    for normalize in (False, True):
        sink = MemorySink()
        rule = WeightedSoup(weights={"p00": 0.1, "p01": 1.0}, normalize=normalize)
        result = merge(models, rule, Context(), sink=sink)
        sums[normalize] = sink.tensors["layer.weight"].astype(np.float64)
        assert result.diagnostics["sumOfWeights"] == pytest.approx(1.1)
        assert result.parameters["normalize"] is normalize
    np.testing.assert_allclose(sums[False], 1.1 * sums[True], rtol=1e-6)


@pytest.mark.parametrize(
    "weights", [{}, {"p00": 1.0}, {"p00": 1.0, "p01": float("nan")}, {"p00": 1.0, "p01": -1.0}]
)
def test_weights_that_make_no_sum_are_refused(weights: dict[str, float]) -> None:
    problem = Regression(seed=6)
    with pytest.raises(ImpossibleSetting, match="weight"):
        run(WeightedSoup(weights=weights, normalize=True), fine_tuned(problem, 2, seed=6), problem)


@pytest.mark.parametrize("method", ["projected-gradient", "mirror-descent", "frank-wolfe"])
@pytest.mark.parametrize("penalty", [0.0, 0.2])
def test_simplex_weights_reach_the_minimum_that_slsqp_finds(method: Any, penalty: float) -> None:
    problem = Regression(seed=7)
    models = fine_tuned(problem, 6, seed=7)
    rows = stacked(models)
    design = np.concatenate([np.ones((80, 1)), problem.inputs], axis=1)

    def value(weights: np.ndarray[Any, Any]) -> float:
        rest = design @ (weights @ rows) - problem.targets
        return float(np.mean(rest**2) + penalty * np.sum((weights - 1 / 6) ** 2))

    best = minimize(
        value,
        np.full(6, 1 / 6),
        bounds=[(0, 1)] * 6,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1}],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    # Mirror descent needs many small steps where weights go to zero.
    rule = SimplexWeights(method=method, penalty=penalty, iterations=1500)
    result, _ = run(rule, models, problem)
    weights = np.array([item.weight for item in result.participants])
    assert value(weights) <= best.fun + 1e-5
    assert result.diagnostics["dualityGap"] >= 0.0
    # Convex in the weights: the gap bounds the rest.
    assert value(weights) - result.diagnostics["dualityGap"] <= best.fun + 1e-6
    assert result.diagnostics["objective"] == pytest.approx(value(weights), rel=1e-5)


@pytest.mark.parametrize("layers", ["global", "tensor", "prefix"])
def test_a_learned_soup_is_better_than_the_uniform_one_it_starts_from(layers: Any) -> None:
    problem = Regression(seed=8)
    models = fine_tuned(problem, 6, seed=8)
    _, uniform = run(UniformSoup(), models, problem)
    result, loss = run(LearnedSoup(layers=layers, iterations=30), models, problem)
    assert loss < uniform
    assert result.diagnostics["layers"] == {"global": 1, "tensor": 2, "prefix": 1}[layers]


def test_a_learned_soups_step_is_the_gradient_of_the_loss_in_theta() -> None:
    problem = Regression(seed=10)
    models = fine_tuned(problem, 4, seed=10)
    rows = stacked(models)
    design = np.concatenate([np.ones((80, 1)), problem.inputs], axis=1)

    def value(theta: np.ndarray[Any, Any]) -> float:
        shares = np.exp(theta) / np.exp(theta).sum()
        return float(np.mean((design @ (shares @ rows) - problem.targets) ** 2))

    theta, rate = np.zeros(4), 0.01
    for steps in (1, 2):
        h = 1e-5
        slopes = [(value(theta + h * e) - value(theta - h * e)) / (2 * h) for e in np.eye(4)]
        # Successful steps double the rate.
        theta = theta - rate * 2 ** (steps - 1) * np.array(slopes)
        result, _ = run(LearnedSoup(iterations=steps, rate=rate), models, problem)
        weights = [item.weight for item in result.participants]
        np.testing.assert_allclose(weights, np.exp(theta) / np.exp(theta).sum(), rtol=1e-5)


def test_weights_for_each_tensor_reach_what_one_weight_a_model_cannot() -> None:
    problem = Regression(seed=9)
    exact = {
        "layer.weight": problem.truth.astype(np.float32),
        "layer.bias": np.array([0.3], dtype=np.float32),
    }
    far = {name: value + np.float32(2.0) for name, value in exact.items()}
    models = [
        MemoryModel("a", exact | {"layer.bias": far["layer.bias"]}),
        MemoryModel("b", far | {"layer.bias": exact["layer.bias"]}),
    ]
    _, one = run(LearnedSoup(iterations=60), models, problem)
    result, two = run(LearnedSoup(layers="tensor", iterations=60), models, problem)
    assert two < 0.2 * one
    assert result.participants[0].weight is None


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (SimplexWeights(penalty=math.nan), "simplexWeights.penalty = nan"),
        (SimplexWeights(penalty=math.inf), "simplexWeights.penalty = inf"),
        (SimplexWeights(iterations=-1), "simplexWeights.iterations = -1"),
        (SimplexWeights(tolerance=-1.0), "simplexWeights.tolerance = -1.0"),
        (LearnedSoup(rate=math.nan), "rate = nan"),
    ],
)
def test_settings_that_cannot_descend_are_refused_before_a_model_is_read(
    rule: Rule, text: str
) -> None:
    with pytest.raises(ImpossibleSetting) as caught:
        rule.requirement(2, 0)
    assert text in str(caught.value)
    assert caught.value.remedy


def test_settings_that_cannot_descend_are_refused() -> None:
    problem = Regression(seed=9)
    models = fine_tuned(problem, 2, seed=9)
    for rule in (
        SimplexWeights(penalty=-1.0),
        SimplexWeights(iterations=-1),
        SimplexWeights(centre={"p00": 0.9, "p01": 0.9}),
        LearnedSoup(rate=0.0),
        LearnedSoup(iterations=-1),
    ):
        with pytest.raises(ImpossibleSetting):
            run(rule, models, problem)
