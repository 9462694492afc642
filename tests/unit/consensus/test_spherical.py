"""Weights on the sphere and of model stock, from small Gram matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.merges.model_stock import (
    ModelStock,
    interpolation_ratio,
    mean_cosine,
)
from cabildo_trainer.consensus.merges.spherical import (
    MultiSlerp,
    Slerp,
    slerp_weights,
    spherical_mean_weights,
)
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from cabildo_trainer.consensus.rule import Rule


def gram_of(*rows: Any) -> Any:
    stacked = np.array(rows, dtype=np.float64)
    return stacked @ stacked.T


def models(*rows: Any) -> list[MemoryModel]:
    return [
        MemoryModel(f"p{index}", {"w": np.array(row, dtype=np.float32)})
        for index, row in enumerate(rows)
    ]


def merged(rule: Any, *rows: Any, base: Any = None) -> Any:
    sink = MemorySink()
    origin = None if base is None else MemoryModel("base", {"w": np.array(base, dtype=np.float32)})
    merge(models(*rows), rule, Context(base=origin), sink=sink)
    return sink.tensors["w"]


def test_slerp_walks_the_arc_at_constant_speed_and_length() -> None:
    angles = []
    for t in np.linspace(0.0, 1.0, 9):
        point = merged(Slerp(t=float(t)), [2.0, 0.0], [0.0, 2.0])
        assert np.linalg.norm(point) == pytest.approx(2.0, rel=1e-6)
        angles.append(math.atan2(point[1], point[0]))
    np.testing.assert_allclose(np.diff(angles), math.pi / 16, rtol=1e-5)


def test_slerp_is_the_straight_line_where_there_is_no_one_arc() -> None:
    assert slerp_weights(gram_of([1.0, 0.0], [2.0, 0.0]), t=0.25, parallel=0.9995) == (0.75, 0.25)
    assert slerp_weights(gram_of([1.0, 0.0], [-1.0, 0.0]), t=0.5, parallel=0.9995) == (0.5, 0.5)
    assert slerp_weights(gram_of([0.0, 0.0], [1.0, 1.0]), t=0.5, parallel=0.9995) == (0.5, 0.5)


def test_slerp_counts_t_from_the_model_that_is_named_first() -> None:
    near = merged(Slerp(t=0.1), [1.0, 0.0], [0.0, 1.0])
    swapped = merged(Slerp(t=0.9, first="p1"), [1.0, 0.0], [0.0, 1.0])
    np.testing.assert_allclose(near, swapped, rtol=1e-6)
    for rule in (Slerp(t=1.5), Slerp(first="p7")):
        with pytest.raises(ImpossibleSetting):
            merged(rule, [1.0, 0.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Slerp(parallel=math.nan), "slerp.parallel = nan"),
        (Slerp(parallel=1.0), "slerp.parallel = 1.0"),
        (Slerp(parallel=-0.5), "slerp.parallel = -0.5"),
        (Slerp(t=math.nan), "slerp.t = nan"),
        (MultiSlerp(iterations=-3), "multiSlerp.iterations = -3"),
    ],
)
def test_settings_without_a_meaning_are_refused_before_a_model_is_read(
    rule: Rule, text: str
) -> None:
    with pytest.raises(ImpossibleSetting) as caught:
        rule.requirement(2, 0)
    assert text in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("count", [1, 3])
def test_slerp_takes_exactly_two_models(count: int) -> None:
    with pytest.raises(ImpossibleSetting, match=f"n = {count}"):
        merged(Slerp(), *([1.0, 0.0] for _ in range(count)))


def test_the_mean_of_two_models_on_the_sphere_is_slerps_middle() -> None:
    rows = [3.0, 0.5, -1.0], [3.0, -2.0, 1.0]
    unit = [np.array(row) / np.linalg.norm(row) for row in rows]
    middle = unit[0] + unit[1]
    length = sum(np.linalg.norm(row) for row in rows) / 2
    wanted = middle / np.linalg.norm(middle) * length
    np.testing.assert_allclose(merged(MultiSlerp(iterations=20), *rows), wanted, rtol=1e-6)


def test_the_converged_mean_has_no_tangent_left() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(5, 4)) + 2.0
    weights = (0.1, 0.2, 0.3, 0.15, 0.25)
    found = np.array(spherical_mean_weights(gram_of(*rows), weights, iterations=100)) @ rows
    mean = found / np.linalg.norm(found)
    step = np.zeros(4)
    for weight, row in zip(weights, rows, strict=True):
        unit = row / np.linalg.norm(row)
        angle = math.acos(unit @ mean)
        step += weight * angle / math.sin(angle) * (unit - (unit @ mean) * mean)
    assert np.linalg.norm(step) < 1e-10
    lengths = np.linalg.norm(rows, axis=1)
    assert np.linalg.norm(found) == pytest.approx(float(lengths @ np.array(weights)))


def test_zero_and_opposite_models_have_no_direction_to_average() -> None:
    zero = merged(MultiSlerp(iterations=5), [0.0, 0.0], [1.0, 1.0])
    np.testing.assert_allclose(zero, [0.5, 0.5], rtol=1e-6)
    opposite = merged(MultiSlerp(), [1.0, 0.0], [-1.0, 0.0])
    np.testing.assert_allclose(opposite, [0.0, 0.0], atol=1e-7)


def test_spherical_weights_must_be_convex_unless_normalised_on_request() -> None:
    rows = [1.0, 0.0], [0.0, 1.0]
    weights = {"p0": 3.0, "p1": 1.0}
    with pytest.raises(ImpossibleSetting, match=r"sum is 4\.0"):
        merged(MultiSlerp(weights=weights), *rows)
    asked = merged(MultiSlerp(weights=weights, normalize=True), *rows)
    given = merged(MultiSlerp(weights={"p0": 0.75, "p1": 0.25}), *rows)
    assert asked.tobytes() == given.tobytes()
    with pytest.raises(ImpossibleSetting, match="below zero"):
        merged(MultiSlerp(weights={"p0": 2.0, "p1": -1.0}), *rows)


def test_model_stock_goes_as_far_as_the_angles_say() -> None:
    assert interpolation_ratio(1.0, n=4) == 1.0
    assert interpolation_ratio(0.0, n=4) == 0.0
    assert interpolation_ratio(-0.2, n=4) == 0.0
    assert interpolation_ratio(0.5, n=2) == pytest.approx(2 / 3)
    assert mean_cosine(gram_of([1.0, 0.0], [1.0, 1.0], [0.0, 0.0])) == pytest.approx(
        math.sqrt(0.5) / 3
    )
    # Two differences at 60 degrees: two thirds of the way from the base to their mean.
    base = [10.0, 10.0]
    rows = [12.0, 10.0], [11.0, 10.0 + math.sqrt(3.0)]
    wanted = np.array(base) + 2 / 3 * (np.mean(rows, axis=0) - base)
    np.testing.assert_allclose(merged(ModelStock(), *rows, base=base), wanted, rtol=1e-6)


def test_model_stock_keeps_the_base_where_models_go_apart_and_says_so() -> None:
    sink = MemorySink()
    base = MemoryModel("base", {"w": np.array([1.0, 1.0], dtype=np.float32)})
    result = merge(models([2.0, 1.0], [0.0, 1.0]), ModelStock(), Context(base=base), sink=sink)
    assert sink.tensors["w"].tolist() == [1.0, 1.0]
    assert result.diagnostics["tensorsLeftAtBase"] == 1.0
    with pytest.raises(ImpossibleSetting, match="n = 1"):
        merged(ModelStock(), [1.0, 2.0], base=[0.0, 0.0])
