"""Rules that follow a gradient: the loss's unit and odd tensors decide nothing."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import EvaluatorFailed, ImpossibleSetting
from cabildo_trainer.consensus.merges.gradient_soups import LearnedSoup, SimplexWeights
from cabildo_trainer.consensus.merges.simplex import Method, minimise, project, uniform
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.merges.simplex import Weights

SCALES = (1e-3, 1.0, 1e6, 1e12, 1e13, 1e20, 1e30)
TARGET = (0.7, 0.2, 0.1)
RULES = [
    *(SimplexWeights(method=method.value, iterations=400) for method in Method),
    LearnedSoup(iterations=200),
    LearnedSoup(layers="tensor", iterations=200),
    LearnedSoup(layers="prefix", iterations=200),
]


class Distance:
    """scale * |w - target|^2 of the weights."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def value(self, weights: Weights) -> float:
        return self.scale * sum((a - b) ** 2 for a, b in zip(weights, TARGET, strict=True))

    def gradient(self, weights: Weights) -> Weights:
        return tuple(2.0 * self.scale * (a - b) for a, b in zip(weights, TARGET, strict=True))


class ModelDistance:
    """scale * |model - target|^2, the target a mixture of the models."""

    def __init__(self, target: dict[str, Any], *, scale: float = 1.0) -> None:
        self.target, self.scale = target, scale

    def _rest(self, model: Any, name: str) -> Any:
        spec = model.tensors[name]
        return model.read(name, 0, spec.size).astype(np.float64) - self.target[name].ravel()

    def loss(self, model: Any) -> float:
        return float(self.scale * sum((self._rest(model, n) ** 2).sum() for n in self.target))

    def gradient(self, model: Any) -> MemoryModel:
        return MemoryModel(
            "gradient",
            {
                name: (2.0 * self.scale * self._rest(model, name))
                .astype(np.float32)
                .reshape(wanted.shape)
                for name, wanted in self.target.items()
            },
        )


def models(**more: Any) -> list[MemoryModel]:
    rng = np.random.default_rng(3)
    return [
        MemoryModel(f"p{row}", {"a.w": rng.normal(size=(4, 3)).astype(np.float32), **more})
        for row in range(3)
    ]


def target_of(given: Sequence[MemoryModel]) -> dict[str, Any]:
    return {
        name: sum(
            share * model.array(name).astype(np.float64)
            for share, model in zip(TARGET, given, strict=True)
        )
        for name, spec in given[0].tensors.items()
        if spec.is_floating
    }


def run(rule: Any, given: Sequence[MemoryModel], *, scale: float = 1.0) -> tuple[MergeResult, Any]:
    loss, sink = ModelDistance(target_of(given), scale=scale), MemorySink()
    result = merge(given, rule, Context(evaluator=loss, gradient=loss), sink=sink)
    return result, sink.model()


def exact(point: Sequence[float]) -> list[float]:
    """The projection in exact arithmetic."""
    values = [Fraction(value) for value in point]
    total, shift = Fraction(0), Fraction(0)
    for rank, value in enumerate(sorted(values, reverse=True), start=1):
        total += value
        if value - (total - 1) / rank > 0:
            shift = (total - 1) / rank
    return [float(max(value - shift, Fraction(0))) for value in values]


@pytest.mark.parametrize(
    "point",
    [
        (1e20, 5e19),
        (-1e20, -2e20),
        (1e17, 1e17 + 64, 0.0),
        (1e15 + 0.25, 1e15, 1e15 - 0.5),
        (-1e308, 1e308),
        (1e308,) * 3,
        (-1e12, 0.25, 0.5),
    ],
)
def test_far_points_have_the_projection_of_exact_arithmetic(point: tuple[float, ...]) -> None:
    assert project(point) == pytest.approx(exact(point), abs=1e-12)


def test_points_of_every_size_have_the_projection_of_exact_arithmetic() -> None:
    numbers = random.Random(7)
    for power in range(-3, 20):
        for _ in range(20):
            shift = numbers.uniform(-1.0, 1.0) * 10.0**power
            point = [shift + numbers.uniform(-1.0, 1.0) for _ in range(6)]
            assert project(point) == pytest.approx(exact(point), abs=1e-12)


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("scale", SCALES)
def test_the_minimum_is_found_whatever_the_unit_of_the_loss(method: Method, scale: float) -> None:
    found = minimise(Distance(scale), start=uniform(3), method=method, iterations=400)
    assert found.iterations > 0
    assert found.weights == pytest.approx(TARGET, abs=2e-3)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_finds_the_mixture_whatever_the_unit_of_the_loss(rule: Any) -> None:
    given = models()
    for scale in SCALES:
        result, made = run(rule, given, scale=scale)
        assert result.diagnostics["iterations"] > 0.0, scale
        np.testing.assert_allclose(
            made.array("a.w"), target_of(given)["a.w"], atol=0.05, err_msg=f"{scale:g}"
        )


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", ["z.w", "z", "a.z"])
def test_a_tensor_without_elements_changes_nothing(rule: Any, name: str) -> None:
    plain, plain_model = run(rule, models())
    empty = np.zeros((0, 3), dtype=np.float32)
    result, made = run(rule, models(**{name: empty}))
    assert made.array("a.w").tobytes() == plain_model.array("a.w").tobytes()
    assert made.array(name).shape == (0, 3)
    assert result.diagnostics == plain.diagnostics


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    "arrays", [{}, {"steps": np.arange(4)}, {"z": np.zeros((0, 3), dtype=np.float32)}]
)
def test_models_without_a_floating_element_are_refused(rule: Any, arrays: dict[str, Any]) -> None:
    with pytest.raises(ImpossibleSetting, match=f"{rule.name} needs a floating") as caught:
        run(rule, [MemoryModel(f"p{row}", arrays) for row in range(3)])
    assert caught.value.remedy


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_gradient_of_integers_is_the_evaluators_mistake(rule: Any) -> None:
    class Integers(ModelDistance):
        def gradient(self, model: Any) -> MemoryModel:
            del model
            return MemoryModel("gradient", {"a.w": np.ones((4, 3), dtype=np.int64)})

    given = models()
    loss = Integers(target_of(given))
    context = Context(evaluator=loss, gradient=loss)
    with pytest.raises(EvaluatorFailed, match=r"'a\.w' .*I64"):
        merge(given, rule, context, sink=MemorySink())
