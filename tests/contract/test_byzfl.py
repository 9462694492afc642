"""byzfl's aggregators and ours give the same numbers, under byzfl's conventions.

Where byzfl stops early (one power step from a random vector in SMEA and CAF, three Weiszfeld steps)
the data is such that the early stop is exact, or its parameters are set so that it converges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import byzfl
import numpy as np
import pytest

from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.robust.centered_clipping import CenteredClipping
from cabildo_trainer.consensus.robust.columns import MeanAroundMedian, Median, TrimmedMean
from cabildo_trainer.consensus.robust.filtering import CovarianceFilter
from cabildo_trainer.consensus.robust.geometric_median import GeometricMedian
from cabildo_trainer.consensus.robust.krum import Krum, MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.robust.mixing import (
    AdaptiveClip,
    NearestNeighbourMixing,
    NormClip,
)
from cabildo_trainer.consensus.robust.subsets import MinimumDiameter, SmallestEigenvalue
from cabildo_trainer.consensus.robust.trusted import Monna
from cabildo_trainer.consensus.sinks import MemorySink
from contract import models as make

if TYPE_CHECKING:
    from cabildo_trainer.consensus.rule import Rule

N, F = 11, 3
NEIGHBOURS = N - F - 1
"""byzfl sums n - f - 1 distances where the paper sums n - f - 2."""

CONVENTIONS: dict[str, tuple[Rule, Any]] = {
    "Average": (WeightedMean(), byzfl.Average()),
    "Median": (Median(), byzfl.Median()),
    "TrMean": (TrimmedMean(), byzfl.TrMean(F)),
    "Meamed": (MeanAroundMedian(), byzfl.Meamed(F)),
    "Krum": (Krum(neighbours=NEIGHBOURS), byzfl.Krum(F)),
    "MultiKrum": (MultiKrum(neighbours=NEIGHBOURS), byzfl.MultiKrum(F)),
    "GeometricMedian": (GeometricMedian(), byzfl.GeometricMedian(nu=1e-9, T=300)),
    "MDA": (MinimumDiameter(), byzfl.MDA(F)),
    "MoNNA": (Monna(reference=make.key_of(4)), byzfl.MoNNA(F, idx=4)),
}


def ours(rule: Rule, rows: np.ndarray, *, start: np.ndarray | None = None) -> np.ndarray:
    f = 0 if isinstance(rule, WeightedMean) else F
    given = make.Scene(rows, rows[0], rows[0], rows[0])
    options = {} if start is None else {"previous": make.unflat("previous", start)}
    sink = MemorySink()
    context = make.context(given, f=f, needs=frozenset(), **options)
    merge(make.models(given), rule, context, sink=sink)
    return make.flat(sink.model())


@pytest.fixture(params=["shifted", "sign", "far", "honest"])
def rows(request: pytest.FixtureRequest) -> np.ndarray:
    return make.scene(N, F, seed=31, attack=request.param).rows


@pytest.mark.parametrize("name", CONVENTIONS)
def test_aggregators_agree(name: str, rows: np.ndarray) -> None:
    rule, theirs = CONVENTIONS[name]
    assert np.allclose(ours(rule, rows), theirs(rows.copy()), rtol=0, atol=2e-7)


def test_the_paper_and_byzfl_differ_in_the_number_of_neighbours() -> None:
    """One convention is not the other: there are models for which they pick differently."""
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(200):
        rows = make.on_grid(rng.normal(scale=0.1, size=(N, make.size())))
        theirs = byzfl.Krum(F)(rows.copy())
        different += not np.allclose(ours(Krum(), rows), theirs, atol=2e-7)
    assert different > 0


def test_centered_clipping_with_their_fixed_radius(rows: np.ndarray) -> None:
    theirs = byzfl.CenteredClipping(L=4, tau=0.3)
    rule = CenteredClipping(iterations=4, radius=0.3)
    wanted = theirs(rows.copy())
    assert np.allclose(ours(rule, rows, start=np.zeros(rows.shape[1])), wanted, atol=2e-7)


@pytest.mark.parametrize("seed", range(5))
def test_smea_agrees_where_one_power_step_is_exact(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows on one line, and byzfl's random first vector set to its direction."""
    rng = np.random.default_rng(seed)
    direction, middle = rng.normal(size=(2, make.size()))
    places = np.concatenate((rng.normal(size=N - F), rng.normal(loc=4.0, size=F)))
    rows = single_precision(0.01 * (middle + rng.permutation(places)[:, None] * direction))
    monkeypatch.setattr(np.random, "randn", lambda _size: direction)
    theirs = byzfl.SMEA(F)(rows.copy())
    assert np.allclose(ours(SmallestEigenvalue(), rows), theirs, rtol=0, atol=2e-7)


@pytest.mark.parametrize("seed", range(5))
def test_caf_agrees_where_power_steps_are_exact_and_the_melted_are_not_the_farthest(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cuts along two directions: a pair goes in the first, two pairs in the second."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(make.size(), 2)))
    places = np.zeros((N, 2))
    places[:2, 0], places[:2, 1] = (4.0, -4.0), 0.5
    places[2:6, 1] = 1.0, 1.0, -1.0, -1.0
    places[6:, 1] = -0.3, -0.1, 0.0, 0.1, 0.3
    middle = rng.normal(scale=0.1, size=make.size())
    rows = single_precision(middle + 0.1 * rng.permutation(places) @ basis.T)
    directions = iter(basis.T)
    monkeypatch.setattr(np.random, "randn", lambda _size: next(directions))
    theirs = byzfl.CAF(F)(rows.copy())
    assert np.allclose(ours(CovarianceFilter(), rows), theirs, rtol=0, atol=2e-7)
    assert not np.allclose(theirs, rows.mean(axis=0), rtol=0, atol=2e-7)


def test_caf_ends_where_byzfls_stands_still() -> None:
    """A melted outlier stays the farthest; byzfl then scales all other weights by almost one."""
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=0.01, size=(N, make.size()))
    rows[0] += 1e4
    rows = single_precision(rows)
    merged = ours(CovarianceFilter(), rows)
    assert np.linalg.norm(merged - rows[1:].mean(axis=0)) < np.linalg.norm(rows[1])


def single_precision(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows.astype(np.float32), dtype=np.float64)


@pytest.mark.parametrize("inner", ["TrMean", "GeometricMedian", "Meamed"])
def test_mixing_before_a_rule_agrees(inner: str, rows: np.ndarray) -> None:
    rule, theirs = CONVENTIONS[inner]
    wanted = theirs(byzfl.NNM(F)(rows.copy()))
    assert np.allclose(ours(NearestNeighbourMixing(rule=rule), rows), wanted, rtol=0, atol=2e-7)


def test_clipping_before_a_rule_agrees(rows: np.ndarray) -> None:
    bound = float(np.median(np.linalg.norm(rows, axis=1)))
    wanted = byzfl.TrMean(F)(byzfl.Clipping(bound)(rows.copy()))
    assert np.allclose(ours(NormClip(bound=bound), rows), wanted, rtol=0, atol=2e-7)


def test_adaptive_clipping_before_a_rule_agrees(rows: np.ndarray) -> None:
    wanted = byzfl.TrMean(F)(byzfl.ARC(F)(rows.copy()))
    assert np.allclose(ours(AdaptiveClip(), rows), wanted, rtol=0, atol=2e-7)


def test_their_default_geometric_median_is_the_mean_of_small_updates_and_ours_is_not() -> None:
    """Why the smoothing is scale-free: 3 of 11 models pull a fixed one as far as the mean."""
    rng = np.random.default_rng(3)
    d = make.size()
    rows = rng.normal(scale=0.01 / np.sqrt(d), size=(N, d))
    pull = rng.normal(size=d)
    rows[:F] = 0.09 * pull / np.linalg.norm(pull)
    rows = single_precision(rows)
    mean = rows.mean(axis=0)
    theirs = byzfl.GeometricMedian()(rows.copy())
    honest = rows[F:].mean(axis=0)
    assert np.linalg.norm(theirs - mean) < 0.01 * np.linalg.norm(mean - honest)
    moved = np.linalg.norm(ours(GeometricMedian(), rows) - honest)
    assert moved < 0.25 * np.linalg.norm(mean - honest)
