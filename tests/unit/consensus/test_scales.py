"""Merges whose numbers are extreme: one element, opposite signs, losses of any size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import EvaluatorFailed, ImpossibleSetting
from cabildo_trainer.consensus.merges.gradient_soups import LearnedSoup, SimplexWeights
from cabildo_trainer.consensus.merges.simplex import Method, minimise, project
from cabildo_trainer.consensus.merges.spherical import MultiSlerp
from cabildo_trainer.consensus.merging import merge, replay
from cabildo_trainer.consensus.recipes import recipe_from_json
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel


def scalars(*values: float) -> list[MemoryModel]:
    return [
        MemoryModel(f"p{row}", {"gate": np.array([value], dtype=np.float32)})
        for row, value in enumerate(values)
    ]


@pytest.mark.parametrize("values", [(1.0, 2.0, -0.5, 0.3), (1.6, 0.203, -1.732), (-3.0, -1.0, 2.0)])
def test_one_element_has_the_sign_of_most_and_the_mean_length(values: tuple[float, ...]) -> None:
    sink = MemorySink()
    merge(scalars(*values), MultiSlerp(), Context(), sink=sink)
    sign = np.sign(np.sign(values).sum())
    expected = sign * np.abs(values).mean()
    np.testing.assert_allclose(sink.tensors["gate"], [expected], rtol=1e-6)


@pytest.mark.parametrize("name", ["kind", "default", "recipes"])
def test_a_merge_with_any_name_of_a_tensor_is_made_again_from_its_record(name: str) -> None:
    draw = np.random.default_rng(1)
    models = [
        MemoryModel(f"p{row}", {name: draw.normal(size=6).astype(np.float32)}) for row in range(3)
    ]
    sink, again = MemorySink(), MemorySink()
    result = merge(models, MultiSlerp(), Context(), sink=sink)
    recipe = recipe_from_json(json.loads(json.dumps(result.recipe)))
    digest = replay(models, recipe, Context(), keys=["p0", "p1", "p2"], sink=again)
    assert digest == result.output_digest


@pytest.mark.parametrize(
    ("point", "nearest"),
    [((1e20, 5e19), (1.0, 0.0)), ((-1e20, -2e20), (1.0, 0.0)), ((1e17, 1e17), (0.5, 0.5))],
)
def test_the_nearest_point_of_the_simplex_is_found_from_anywhere(
    point: tuple[float, ...], nearest: tuple[float, ...]
) -> None:
    assert project(point) == nearest


BOTTOM = (0.7, 0.2, 0.1)


class Bowl:
    """scale * |w - BOTTOM|^2."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def value(self, weights: Any) -> float:
        return self.scale * float(sum((a - b) ** 2 for a, b in zip(weights, BOTTOM, strict=True)))

    def gradient(self, weights: Any) -> Any:
        return tuple(2 * self.scale * (a - b) for a, b in zip(weights, BOTTOM, strict=True))


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e13, 1e18])
def test_the_scale_of_a_loss_does_not_stop_the_descent(method: Method, scale: float) -> None:
    found = minimise(Bowl(scale), start=(1 / 3,) * 3, method=method)
    np.testing.assert_allclose(found.weights, BOTTOM, atol=1e-3)


class Loss:
    """scale * |w - target|^2, and its gradient."""

    def __init__(self, scale: float, target: Any, dtype: Any = np.float32) -> None:
        self.scale, self.target, self.dtype = scale, np.asarray(target), dtype

    def loss(self, model: Any) -> float:
        values = model.read("w", 0, len(self.target)).astype(np.float64)
        return float(self.scale * ((values - self.target) ** 2).sum())

    def gradient(self, model: Any) -> MemoryModel:
        tensors = {
            name: np.zeros(spec.shape, dtype=self.dtype) for name, spec in model.tensors.items()
        }
        values = model.read("w", 0, len(self.target)).astype(np.float64)
        tensors["w"] = (2 * self.scale * (values - self.target)).astype(self.dtype)
        return MemoryModel("gradient", tensors)


def corners() -> list[MemoryModel]:
    empty = np.zeros((0, 2), dtype=np.float32)
    return [
        MemoryModel(key, {"w": np.array(row, dtype=np.float32), "layer.empty": empty})
        for key, row in (("a", [1.0, 0.0]), ("b", [0.0, 1.0]))
    ]


@pytest.mark.parametrize("layers", ["global", "tensor", "prefix"])
@pytest.mark.parametrize("scale", [1.0, 1e13])
def test_a_learned_soup_learns_at_any_scale_of_the_loss(layers: Any, scale: float) -> None:
    loss = Loss(scale, [0.9, 0.1])
    sink = MemorySink()
    context = Context(evaluator=loss, gradient=loss)
    merge(corners(), LearnedSoup(layers=layers), context, sink=sink)
    np.testing.assert_allclose(sink.tensors["w"], [0.9, 0.1], atol=0.05)


@pytest.mark.parametrize("rule", [SimplexWeights(), LearnedSoup()])
def test_models_without_floating_elements_have_no_loss_to_follow(rule: Any) -> None:
    models = [MemoryModel(key, {"w": np.arange(2)}) for key in "ab"]
    loss = Loss(1.0, [0, 0])
    with pytest.raises(ImpossibleSetting, match="floating tensor with an element"):
        merge(models, rule, Context(evaluator=loss, gradient=loss), sink=MemorySink())


def test_a_gradient_of_integers_is_refused_by_the_tensors_name() -> None:
    loss = Loss(1.0, [0.9, 0.1], dtype=np.int64)
    context = Context(evaluator=loss, gradient=loss)
    with pytest.raises(EvaluatorFailed, match="I64"):
        merge(corners(), SimplexWeights(), context, sink=MemorySink())
