"""Models that point to opposite sides: where the sphere has no one shortest way."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.merges.spherical import MultiSlerp, Slerp, slerp_weights
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel


def merged(rule: Any, *rows: Any) -> Any:
    sink = MemorySink()
    models = [
        MemoryModel(f"p{index:02d}", {"w": np.array(row, dtype=np.float32)})
        for index, row in enumerate(rows)
    ]
    merge(models, rule, Context(), sink=sink)
    return sink.tensors["w"].astype(np.float64)


@pytest.mark.parametrize(
    ("gates", "sign"),
    [
        ((1.0, 2.0, -0.5, 0.3), 1.0),
        ((1.600019, 0.20288244, -1.7321348), 1.0),
        ((-1.0548407, -1.2720782, 0.613993, -1.1967077, -0.32243815, -0.0067615402), -1.0),
        ((0.68302959, 0.16322803, 0.81066191, -1.2486148, 1.186176), 1.0),
    ],
)
def test_a_scalar_has_the_sign_of_most_and_the_mean_length(
    gates: tuple[float, ...], sign: float
) -> None:
    found = merged(MultiSlerp(), *([gate] for gate in gates))
    assert found[0] == pytest.approx(sign * np.mean(np.abs(gates)), rel=1e-6)


def test_scalars_of_any_number_of_models_have_the_sign_of_most() -> None:
    rng = np.random.default_rng(5)
    for count in range(2, 65):
        gates = rng.normal(size=count).astype(np.float32) * 10.0 ** rng.integers(-3, 4, size=count)
        most = np.sign(gates).sum()
        if most == 0.0:
            continue
        found = merged(MultiSlerp(), *([gate] for gate in gates))
        wanted = np.sign(most) * np.abs(gates.astype(np.float32)).mean(dtype=np.float64)
        assert found[0] == pytest.approx(wanted, rel=1e-6), gates


def test_an_opposite_model_among_scaled_copies_turns_nothing() -> None:
    direction = np.random.default_rng(1).normal(size=50).astype(np.float32)
    rows = [factor * direction for factor in (1.0, 4.0, -0.5, 0.25)]
    length = np.linalg.norm(rows, axis=1).mean()
    wanted = direction / np.linalg.norm(direction) * length
    np.testing.assert_allclose(merged(MultiSlerp(), *rows), wanted, rtol=1e-5)


def test_the_mean_of_an_opposite_pair_and_a_third_model_is_the_third() -> None:
    # The pair cancels: the straight mean points to the third, at a right angle to both.
    found = merged(MultiSlerp(), [3.0, 0.0], [-3.0, 0.0], [0.0, 3.0])
    np.testing.assert_allclose(found, [0.0, 3.0], atol=1e-6)


def test_slerp_never_divides_by_the_sine_of_half_a_turn() -> None:
    direction = np.random.default_rng(2).normal(size=50)
    rows = np.array([direction, -2.5 * direction])
    gram = rows @ rows.T
    assert slerp_weights(gram, t=0.25, parallel=math.nextafter(1.0, 0.0)) == (0.75, 0.25)
    assert merged(Slerp(t=0.25), [1.0], [-2.0])[0] == 0.25


def test_slerp_nears_the_straight_line_as_the_models_near_each_other() -> None:
    distances = []
    for angle in (1e-1, 1e-3, 1e-5, 1e-7, 0.0):
        gram = np.array([[1.0, math.cos(angle)], [math.cos(angle), 1.0]])
        weights = slerp_weights(gram, t=0.25, parallel=math.nextafter(1.0, 0.0))
        distances.append(max(abs(weights[0] - 0.75), abs(weights[1] - 0.25)))
    assert all(near <= far for far, near in pairwise(distances))
    assert distances[-1] <= 1e-15
