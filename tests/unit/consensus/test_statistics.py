"""Fisher weights and RegMean: closed forms, the regression's optimum, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import (
    ImpossibleSetting,
    ManifestMismatch,
    MissingInput,
    NonFiniteInput,
)
from cabildo_trainer.consensus.merges.cholesky import (
    NotPositiveDefiniteError,
    add_product,
    cholesky,
    solve,
)
from cabildo_trainer.consensus.merges.statistics import Fisher, RegMean
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from cabildo_trainer.consensus.rule import Rule

OUTPUTS, INPUTS, ROWS = 6, 9, 40


class Layers:
    """Linear layers, each with the inputs it has seen."""

    def __init__(self, n: int, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.weights = [rng.normal(size=(OUTPUTS, INPUTS)).astype(np.float32) for _ in range(n)]
        self.biases = [rng.normal(size=OUTPUTS).astype(np.float32) for _ in range(n)]
        self.inputs = [
            rng.normal(size=(ROWS, INPUTS)) @ rng.normal(size=(INPUTS, INPUTS)) for _ in range(n)
        ]

    @property
    def models(self) -> list[MemoryModel]:
        return [
            MemoryModel(f"p{row}", {"fc.weight": weight, "fc.bias": bias})
            for row, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True))
        ]

    @property
    def grams(self) -> dict[str, MemoryModel]:
        return {
            f"p{row}": MemoryModel(f"p{row}", {"fc.weight.gram": self.gram(row)})
            for row in range(len(self.weights))
        }

    def gram(self, row: int) -> np.ndarray[Any, Any]:
        return (self.inputs[row].T @ self.inputs[row]).astype(np.float32)

    def cost(self, weight: np.ndarray[Any, Any]) -> float:
        """sum_i |X_i (W - W_i)^T|^2."""
        return sum(
            float(np.sum((inputs @ (weight - own).T) ** 2))
            for inputs, own in zip(self.inputs, self.weights, strict=True)
        )


def run(rule: Rule, models: list[MemoryModel], statistics: Any) -> MemorySink:
    sink = MemorySink()
    merge(models, rule, Context(statistics=statistics), sink=sink)
    return sink


def test_regmean_is_the_optimum_of_its_regression() -> None:
    layers = Layers(3)
    merged = run(RegMean(off_diagonal=1.0), layers.models, layers.grams).tensors["fc.weight"]
    stacked = np.concatenate(layers.inputs)
    targets = np.concatenate(
        [inputs @ own.T for inputs, own in zip(layers.inputs, layers.weights, strict=True)]
    )
    best = np.linalg.lstsq(stacked, targets, rcond=None)[0].T
    np.testing.assert_allclose(merged, best, rtol=1e-3, atol=1e-4)
    least = layers.cost(merged.astype(np.float64))
    rng = np.random.default_rng(1)
    for _ in range(50):
        moved = merged + rng.normal(scale=0.01, size=merged.shape)
        assert layers.cost(moved) > least
    mean = np.mean(layers.weights, axis=0)
    assert least < 0.9 * layers.cost(mean)


def test_regmean_averages_what_has_no_gram_matrix_and_returns_equal_layers_unchanged() -> None:
    layers = Layers(3)
    sink = run(RegMean(), layers.models, layers.grams)
    np.testing.assert_allclose(sink.tensors["fc.bias"], np.mean(layers.biases, axis=0), rtol=1e-6)
    layers.weights = [layers.weights[0]] * 3
    same = run(RegMean(), layers.models, layers.grams).tensors["fc.weight"]
    np.testing.assert_allclose(same, layers.weights[0], rtol=1e-5, atol=1e-6)


def test_without_off_diagonal_regmean_weighs_each_input_on_its_own() -> None:
    layers = Layers(2)
    merged = run(RegMean(off_diagonal=0.0), layers.models, layers.grams).tensors["fc.weight"]
    shares = np.array([np.diagonal(layers.gram(row)) for row in range(2)], dtype=np.float64)
    wanted = sum(shares[row] * layers.weights[row] for row in range(2)) / shares.sum(axis=0)
    np.testing.assert_allclose(merged, wanted, rtol=1e-5, atol=1e-6)


def test_a_layer_that_the_data_does_not_determine_needs_a_ridge() -> None:
    layers = Layers(2)
    layers.inputs = [inputs[:3] for inputs in layers.inputs]
    with pytest.raises(ImpossibleSetting, match=r"fc\.weight"):
        run(RegMean(off_diagonal=1.0), layers.models, layers.grams)
    held = run(RegMean(off_diagonal=1.0, ridge=1e6), layers.models, layers.grams)
    np.testing.assert_allclose(
        held.tensors["fc.weight"], np.mean(layers.weights, axis=0), atol=1e-3
    )
    some = run(RegMean(off_diagonal=1.0, ridge=1e-6), layers.models, layers.grams)
    assert layers.cost(some.tensors["fc.weight"]) < layers.cost(held.tensors["fc.weight"])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda grams: grams.pop("p1"), MissingInput),
        (lambda grams: grams.update(p1=MemoryModel("p1", {})), ManifestMismatch),
        (
            lambda grams: grams.update(
                p1=MemoryModel("p1", {"fc.weight.gram": np.ones((2, 2), dtype=np.float32)})
            ),
            ManifestMismatch,
        ),
        (
            lambda grams: grams.update(
                p1=MemoryModel(
                    "p1",
                    {"fc.weight.gram": np.triu(np.ones((INPUTS, INPUTS), dtype=np.float32))},
                )
            ),
            ManifestMismatch,
        ),
    ],
)
def test_statistics_that_do_not_fit_are_refused(change: Any, error: type[Exception]) -> None:
    layers = Layers(2)
    grams = layers.grams
    change(grams)
    with pytest.raises(error):
        run(RegMean(), layers.models, grams)


def test_regmean_without_any_gram_matrix_is_refused() -> None:
    layers = Layers(2)
    empty: Any = {key: MemoryModel(key, {}) for key in ("p0", "p1")}
    with pytest.raises(MissingInput, match="gram"):
        run(RegMean(), layers.models, empty)
    for rule in (RegMean(off_diagonal=1.5), RegMean(ridge=-1.0)):
        with pytest.raises(ImpossibleSetting):
            run(rule, layers.models, layers.grams)


def fisher_of(values: list[list[float]]) -> dict[str, MemoryModel]:
    return {
        f"p{row}": MemoryModel(f"p{row}", {"w": np.array(value, dtype=np.float32)})
        for row, value in enumerate(values)
    }


def test_fisher_weighs_each_entry_and_averages_where_nobody_knows() -> None:
    models = [
        MemoryModel("p0", {"w": np.array([1.0, 1.0, 1.0], dtype=np.float32)}),
        MemoryModel("p1", {"w": np.array([4.0, 4.0, 4.0], dtype=np.float32)}),
    ]
    told = fisher_of([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0]])
    assert run(Fisher(), models, told).tensors["w"].tolist() == [3.0, 1.0, 2.5]
    weighted = Fisher(weights={"p0": 4.0, "p1": 1.0})
    assert run(weighted, models, told).tensors["w"].tolist() == [2.0, 1.0, pytest.approx(1.6)]
    floored = run(Fisher(floor=1e9), models, told).tensors["w"]
    np.testing.assert_allclose(floored, 2.5, rtol=1e-6)


def test_fisher_refuses_what_is_no_fisher_diagonal() -> None:
    models = [MemoryModel(f"p{row}", {"w": np.ones(3, dtype=np.float32)}) for row in range(2)]
    with pytest.raises(ManifestMismatch, match="below zero"):
        run(Fisher(), models, fisher_of([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]]))
    with pytest.raises(ManifestMismatch, match="no Fisher diagonal"):
        run(Fisher(), models, fisher_of([[1.0, 1.0, 1.0], [1.0, 1.0]]))
    with pytest.raises(MissingInput, match="p1"):
        run(Fisher(), models, fisher_of([[1.0, 1.0, 1.0]]))
    with pytest.raises(NonFiniteInput) as caught:
        run(Fisher(), models, fisher_of([[1.0, 1.0, 1.0], [1.0, np.nan, 1.0]]))
    assert caught.value.participants == ("p1",)
    for rule in (Fisher(floor=-1.0), Fisher(weights={"p0": -1.0, "p1": 2.0})):
        with pytest.raises(ImpossibleSetting):
            run(rule, models, fisher_of([[1.0] * 3] * 2))


def test_the_factorisation_solves_and_names_the_pivot_that_fails() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(20, 12))
    matrix, right = root.T @ root, rng.normal(size=(12, 5))
    lower = cholesky(matrix)
    np.testing.assert_allclose(lower @ lower.T, matrix, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(solve(lower, right), np.linalg.solve(matrix, right), rtol=1e-9)
    total = np.ones((12, 5))
    add_product(total, matrix, right)
    np.testing.assert_allclose(total, 1.0 + matrix @ right, rtol=1e-12)
    with pytest.raises(NotPositiveDefiniteError) as caught:
        cholesky(np.array([[1.0, 2.0], [2.0, 4.0]]))
    assert caught.value.pivot == 1
