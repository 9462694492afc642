"""What single robust rules do besides the contract: edges, parameters, what the record says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.robust.bulyan import Bulyan
from cabildo_trainer.consensus.robust.centered_clipping import CenteredClipping
from cabildo_trainer.consensus.robust.choice import Auto
from cabildo_trainer.consensus.robust.columns import MeanAroundMedian, Median, TrimmedMean
from cabildo_trainer.consensus.robust.filtering import CovarianceFilter
from cabildo_trainer.consensus.robust.geometric_median import GeometricMedian
from cabildo_trainer.consensus.robust.krum import Krum, MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.robust.mixing import (
    AdaptiveClip,
    Bucketing,
    NearestNeighbourMixing,
    NormClip,
)
from cabildo_trainer.consensus.robust.subsets import MinimumDiameter, SmallestEigenvalue
from cabildo_trainer.consensus.robust.trusted import FlTrust, Monna, Zeno
from cabildo_trainer.consensus.rules import rule_from_parameters
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.rule import Rule


def model(key: str, values: Any) -> MemoryModel:
    return MemoryModel(key, {"w": np.asarray(values, dtype=np.float32)})


def models(rows: Any) -> list[MemoryModel]:
    return [model(f"p{row:02d}", values) for row, values in enumerate(rows)]


def run(rows: Any, rule: Rule, **context: Any) -> tuple[np.ndarray, MergeResult]:
    sink = MemorySink()
    result = merge(models(rows), rule, Context(**context), sink=sink)
    return sink.tensors["w"].astype(np.float64), result


class Loss:
    """|w - target|, or a fixed loss by the first element."""

    def __init__(self, target: float) -> None:
        self.target = target

    def loss(self, model: Any) -> float:
        return float(np.abs(model.read("w", 0, 1)[0] - self.target))


EVERY_RULE: list[Rule] = [
    Median(),
    TrimmedMean(),
    MeanAroundMedian(),
    Krum(),
    MultiKrum(),
    Bulyan(),
    GeometricMedian(),
    CenteredClipping(),
    MinimumDiameter(),
    SmallestEigenvalue(),
    CovarianceFilter(),
    Monna(),
    NearestNeighbourMixing(),
    Bucketing(),
    NormClip(),
    AdaptiveClip(),
    Zeno(),
    Auto(),
]


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: rule.label)
def test_equal_models_give_that_model(rule: Rule) -> None:
    """No spread: scales, diameters and eigenvalues are all zero."""
    values = np.array([0.1, -2.5, 3e-5, 0.0], dtype=np.float32)
    output, _ = run(
        [values] * 9,
        rule,
        maximum_faulty=1,
        base=model("base", values),
        root_update=model("root", values),
        evaluator=Loss(0.1),
        seed=b"s",
    )
    assert np.allclose(output, values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: rule.label)
def test_f_models_at_any_distance_do_not_carry_the_result_away(rule: Rule) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(scale=0.1, size=(11, 30))
    rows[[1, 6]] = 1e6
    output, _ = run(
        rows,
        rule,
        maximum_faulty=2,
        base=model("base", np.zeros(30)),
        root_update=model("root", np.full(30, 0.01)),
        evaluator=Loss(0.0),
        seed=b"s",
    )
    assert np.linalg.norm(output) < 5.0


@pytest.mark.parametrize(("rule", "neighbours"), [(Krum(), 5), (Krum(neighbours=6), 6)])
def test_krum_scores_sum_the_papers_neighbours_unless_told_otherwise(
    rule: Rule, neighbours: int
) -> None:
    rows = np.random.default_rng(8).normal(size=(10, 6)).astype(np.float32).astype(np.float64)
    _, result = run(rows, rule, maximum_faulty=3)
    for row, item in enumerate(result.participants):
        distances = np.sort(np.sum((rows - rows[row]) ** 2, axis=1))
        assert item.score == pytest.approx(distances[1 : neighbours + 1].sum())


def test_krum_ties_go_by_digest() -> None:
    rows = [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]
    _, result = run(rows, Krum(neighbours=1))
    digests = [item.digest for item in result.participants]
    (chosen,) = [item for item in result.participants if item.accepted]
    assert chosen.digest == min(digests)
    assert {item.score for item in result.participants} == {1.0}


@pytest.mark.parametrize("rule", [Krum, MultiKrum])
def test_colluders_need_more_neighbours_than_they_are(rule: Any) -> None:
    rows = np.random.default_rng(3).normal(size=(9, 40))
    rows[[4, 7]] = 1e6
    with pytest.raises(ImpossibleSetting, match=r"neighbours = 1, n = 9, f = 2") as caught:
        run(rows, rule(neighbours=1), maximum_faulty=2)
    assert "leave neighbours out" in caught.value.remedy
    output, _ = run(rows, rule(neighbours=2), maximum_faulty=2)
    assert np.linalg.norm(output) < 20.0


def test_a_fixed_bound_is_told_with_how_many_it_clipped() -> None:
    rows = np.random.default_rng(3).normal(size=(9, 40))
    rows[[4, 7]] = 1e6
    known = {"maximum_faulty": 2, "previous": model("previous", np.zeros(40))}
    for bound, cut in ((100.0, 2.0), (1e30, 0.0)):
        _, result = run(rows, CenteredClipping(radius=bound), **known)
        assert result.diagnostics["fixedRadius"] == bound
        assert result.diagnostics["clippedByFixedRadius"] == cut
        _, result = run(rows, NormClip(bound=bound, rule=CenteredClipping(radius=bound)), **known)
        assert result.diagnostics["fixedBound"] == bound
        assert result.diagnostics["clippedByFixedBound"] == cut
        assert result.diagnostics["fixedRadius"] == bound
    for rule in (CenteredClipping(), NormClip(), AdaptiveClip()):
        _, result = run(rows, rule, **known)
        assert not {"fixedRadius", "fixedBound"} & set(result.diagnostics)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Krum(neighbours=0), "neighbours = 0"),
        (Krum(neighbours=9), "neighbours = 9"),
        (Krum(neighbours=1), "neighbours = 1, n = 9, f = 2"),
        (MultiKrum(neighbours=1), "f - 1 neighbours at distance 0"),
        (MultiKrum(select=0), "m = 0"),
        (MultiKrum(select=8), "m = 8"),
        (GeometricMedian(smoothing=0.0), "smoothing"),
        (GeometricMedian(iterations=0), "iterations"),
        (CenteredClipping(iterations=0), "iterations"),
        (CenteredClipping(radius=0.0), "radius"),
        (NormClip(bound=-1.0), "bound"),
        (Zeno(rho=-1.0), "rho"),
        (Bucketing(size=0), "size = 0"),
        (Bucketing(size=4), "ceil(9 / 4) = 3"),
        (NearestNeighbourMixing(rule=WeightedMean()), "weightedMean bounds no fault"),
        (NearestNeighbourMixing(rule=Bulyan()), "bulyan needs n >= 4f + 3"),
        (Bucketing(rule=Krum()), "krum needs n >= 2f + 3: n = 5, f = 2"),
        (Auto(candidates=()), "none named"),
        (Auto(candidates=(Bulyan(),)), "bulyan needs"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.label,
)
def test_parameters_that_cannot_be_are_refused(rule: Rule, text: str) -> None:
    with pytest.raises(ImpossibleSetting) as caught:
        rule.requirement(9, 2)
    assert text in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("krumm", {}, "no rule is called 'krumm'"),
        ("krum", {"neighbors": 3}, "krum has no parameter 'neighbors'"),
        ("krum", {"select": 3}, "krum has no parameter 'select'"),
        ("krum", {"neighbours": "many"}, "krum.neighbours = 'many'"),
        ("nnm", {"rule": 3}, "nnm.rule = 3 is no rule"),
        ("nnm", {"rule": {"name": "krum", "x": 1}}, "krum has no parameter 'x'"),
        ("auto", {"candidates": [{"neighbours": 1}]}, "is no rule"),
    ],
)
def test_unknown_names_and_values_are_refused(
    name: str, parameters: dict[str, Any], text: str
) -> None:
    with pytest.raises(ImpossibleSetting) as caught:
        rule_from_parameters(name, parameters)
    assert text in str(caught.value)


def test_rules_nest_by_name() -> None:
    rule = rule_from_parameters("arc", {"rule": {"name": "nnm", "rule": "multiKrum"}})
    assert rule == AdaptiveClip(rule=NearestNeighbourMixing(rule=MultiKrum()))
    assert rule.label == "arc(nnm(multiKrum))"
    weights = rule_from_parameters("weightedMean", {"weights": {"name": 0.25, "b": 0.75}})
    assert weights == WeightedMean(weights={"name": 0.25, "b": 0.75})


def test_the_geometric_median_of_collinear_models_is_the_middle_one() -> None:
    """byzfl's default stops at 3.79, 4.79, 5.79 here."""
    rows = np.arange(1.0, 8.0)[:, None] + np.arange(3.0)
    output, result = run(rows, GeometricMedian())
    assert output == pytest.approx([4.0, 5.0, 6.0], abs=1e-5)
    assert float(result.diagnostics["movement"]) <= 1e-10


def test_the_geometric_median_is_the_point_that_half_of_the_models_share() -> None:
    """A far model must not set the scale when the others have no distance to each other."""
    rows = np.zeros((7, 3))
    rows[4:] = [[1e9, 0.0, 0.0], [0.0, 1e9, 0.0], [3.0, 0.0, 0.0]]
    output, result = run(rows, GeometricMedian(), maximum_faulty=3)
    assert output.tolist() == [0.0, 0.0, 0.0]
    assert [item.weight for item in result.participants] == [0.25] * 4 + [0.0] * 3


def test_the_geometric_median_says_when_it_was_stopped() -> None:
    rng = np.random.default_rng(1)
    _, result = run(rng.normal(size=(7, 5)), GeometricMedian(iterations=2))
    assert result.diagnostics["iterations"] == 2.0
    assert float(result.diagnostics["movement"]) > 1e-10


def test_a_fixed_clipping_radius_bounds_the_step() -> None:
    rows = np.full((5, 4), 100.0)
    output, _ = run(
        rows, CenteredClipping(iterations=2, radius=0.5), previous=model("previous", np.zeros(4))
    )
    assert np.linalg.norm(output) == pytest.approx(1.0, rel=1e-6)


def test_no_update_along_the_root_update_leaves_the_start() -> None:
    start = np.array([1.0, 2.0])
    output, result = run(
        start + np.array([[-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        FlTrust(),
        maximum_faulty=1,
        base=model("base", start),
        root_update=model("root", start + np.array([1.0, 0.0])),
    )
    assert output.tolist() == start.tolist()
    assert not any(item.accepted for item in result.participants)
    assert result.participants[0].reason == "AgainstRootUpdate"


def test_fltrust_cuts_long_updates_to_the_root_updates_norm() -> None:
    output, _ = run(
        [[1000.0, 0.0], [0.5, 0.0]],
        FlTrust(),
        base=model("base", [0.0, 0.0]),
        root_update=model("root", [2.0, 0.0]),
    )
    assert output == pytest.approx([2.0, 0.0])


def test_zeno_names_losses_and_picks() -> None:
    _, result = run([[0.0], [9.0], [1.0]], Zeno(), maximum_faulty=1, evaluator=Loss(0.0))
    assert [(item.name, item.loss, item.picked) for item in result.candidates] == [
        ("p00", 0.0, True),
        ("p01", 9.0, False),
        ("p02", 1.0, True),
    ]
    assert [item.weight for item in result.participants] == [0.5, 0.0, 0.5]


def test_zeno_weighs_norms_against_losses() -> None:
    rows = [[0.1, 100.0], [0.2, 0.0], [0.3, 0.0]]
    context = {"maximum_faulty": 1, "evaluator": Loss(0.0), "base": model("base", [0.0, 0.0])}
    _, by_loss = run(rows, Zeno(), **context)
    _, by_both = run(rows, Zeno(rho=1.0), **context)
    assert [item.accepted for item in by_loss.participants] == [True, True, False]
    assert [item.accepted for item in by_both.participants] == [False, True, True]


def test_monna_trusts_a_participant_that_takes_part() -> None:
    rows = [[0.0], [10.0], [11.0], [12.0], [1.0]]
    output, _ = run(rows, Monna(reference="p02"), maximum_faulty=2)
    assert output == pytest.approx([11.0])
    with pytest.raises(MissingInput, match="'p09'"):
        run(rows, Monna(reference="p09"), maximum_faulty=2)


def test_auto_says_what_it_compared_and_why_not() -> None:
    rows = [[0.0], [0.1], [0.2], [0.3], [50.0]]
    output, result = run(rows, Auto(), maximum_faulty=2, evaluator=Loss(0.2))
    assert output == pytest.approx([0.2])
    names = [item.name for item in result.candidates]
    assert names == ["weightedMean", "trimmedMean", "nnm(trimmedMean)", "multiKrum", "zeno"]
    assert [item.picked for item in result.candidates] == [False, True, False, False, False]
    assert result.candidates[0].reason == "HigherLoss"
    assert result.candidates[3].loss is None
    assert "5 < 7" in str(result.candidates[3].reason)
    assert result.diagnostics["picked"] == "trimmedMean"


def test_auto_takes_the_first_of_equal_losses() -> None:
    _, result = run([[1.0]] * 5, Auto(), evaluator=Loss(0.0))
    assert [item.picked for item in result.candidates] == [True, False, False, False, False]


def test_auto_without_a_finite_loss_gives_no_result() -> None:
    class Broken:
        def loss(self, model: Any) -> float:
            return math.nan

    with pytest.raises(ImpossibleSetting, match="finite loss"):
        run([[1.0]] * 5, Auto(), evaluator=Broken())


def test_buckets_depend_on_the_seed_and_cover_everybody_once() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 3))
    digests = set()
    for seed in (b"1", b"2", b"3"):
        output, result = run(rows, Bucketing(size=3), maximum_faulty=0, seed=seed)
        digests.add(result.output_digest)
        matrix = np.array(result.recipe["matrix"])
        assert np.array_equal((matrix > 0).sum(axis=0), np.ones(9))
        assert output == pytest.approx(rows.mean(axis=0), abs=1e-6)
    assert len(digests) > 1


def test_clips_are_told() -> None:
    rows = [[1.0], [2.0], [3.0], [4.0], [100.0]]
    _, result = run(rows, NormClip(), maximum_faulty=1)
    assert (result.diagnostics["clipNorm"], result.diagnostics["clipped"]) == (3.0, 2.0)
    _, result = run(rows, AdaptiveClip(), maximum_faulty=1)
    assert (result.diagnostics["clipNorm"], result.diagnostics["clipped"]) == (4.0, 1.0)


def test_kappa_of_a_mixture_follows_its_rule() -> None:
    q = 3 / 4
    inner = 6 * q * (1 + q)
    assert TrimmedMean().kappa(10, 3) == pytest.approx(inner)
    assert NearestNeighbourMixing().kappa(10, 3) == pytest.approx(8 * 3 / 7 * (inner + 1))
    assert NearestNeighbourMixing(rule=CovarianceFilter()).kappa(10, 3) is None
    assert TrimmedMean(trim=4).kappa(10, 3) is None


def test_krums_constant_is_the_published_one_for_its_neighbours() -> None:
    assert Krum(neighbours=6).kappa(10, 3) == pytest.approx(6 * (1 + 3 / 4))
    assert Krum(neighbours=2).kappa(10, 3) is None
    assert Krum(neighbours=7).kappa(10, 3) is None
