"""The one entry: who takes part, what is refused, and what the record says."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import (
    EvaluatorFailed,
    ImpossibleSetting,
    ManifestMismatch,
    MissingInput,
    NonFiniteInput,
)
from cabildo_trainer.consensus.merges.gradient_soups import LearnedSoup, SimplexWeights
from cabildo_trainer.consensus.merges.soups import GreedySoup, IncrementalSoup, WeightedSoup
from cabildo_trainer.consensus.merging import merge, replay
from cabildo_trainer.consensus.passes import all_finite
from cabildo_trainer.consensus.recipes import recipe_from_json
from cabildo_trainer.consensus.robust.centered_clipping import CenteredClipping
from cabildo_trainer.consensus.robust.choice import Auto
from cabildo_trainer.consensus.robust.columns import Median, TrimmedMean
from cabildo_trainer.consensus.robust.krum import Krum, MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.robust.mixing import Bucketing
from cabildo_trainer.consensus.robust.selection import selection
from cabildo_trainer.consensus.robust.trusted import FlTrust, Zeno
from cabildo_trainer.consensus.rule import Rule
from cabildo_trainer.consensus.rules import rule_from_parameters
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel, to_float32

if TYPE_CHECKING:
    from cabildo_trainer.consensus.decision import Decision
    from cabildo_trainer.consensus.passes import Session


class Loss:
    """The loss that a table has for the first element; what it raises for others is its own."""

    def __init__(self, losses: dict[float, float]) -> None:
        self.losses = losses

    def loss(self, model: Any) -> float:
        return self.losses[float(model.read("w", 0, 1)[0])]


def model(key: str, values: Any, **more: Any) -> MemoryModel:
    return MemoryModel(key, {"w": np.asarray(values, dtype=np.float32), **more})


def several(n: int, *, d: int = 4) -> list[MemoryModel]:
    rng = np.random.default_rng(n)
    return [model(f"p{row}", rng.normal(size=d)) for row in range(n)]


def test_a_key_given_twice_is_refused() -> None:
    twice = [model("a", [1]), model("b", [2]), model("a", [3])]
    with pytest.raises(ImpossibleSetting, match="participant a is given more than once"):
        merge(twice, Median(), Context(), sink=MemorySink())


def test_the_record_names_everybody_by_key() -> None:
    inputs = several(7)
    context = Context(
        maximum_faulty=2, faulty={"p1": "Replay", "z": "BadSignature"}, absent=frozenset({"y"})
    )
    result = merge(inputs[::-1], Median(), context, sink=MemorySink())
    assert [item.key for item in result.participants] == [
        "p0", "p1", "p2", "p3", "p4", "p5", "p6", "y", "z",
    ]  # fmt: skip
    reasons = {item.key: item.reason for item in result.participants if item.reason}
    assert reasons == {"p1": "Replay", "y": "Absent", "z": "BadSignature"}
    assert (result.n, result.f_declared, result.f_effective) == (9, 2, 0)
    assert result.participants[1].digest == inputs[1].digest
    assert result.participants[7].digest is None


def test_absence_lowers_n_and_not_f() -> None:
    context = Context(maximum_faulty=2, absent=frozenset({"p5", "p6"}))
    result = merge(several(7), Median(), context, sink=MemorySink())
    assert (result.n, result.f_effective) == (7, 2)
    context = Context(maximum_faulty=2, absent=frozenset({"p4", "p5", "p6"}))
    with pytest.raises(ImpossibleSetting, match="4 < 5"):
        merge(several(7), Median(), context, sink=MemorySink())


def test_more_proven_faults_than_declared_end_the_merge() -> None:
    context = Context(maximum_faulty=1, faulty={"p0": "Replay", "p1": "Equivocation"})
    with pytest.raises(ImpossibleSetting, match="2 participants are proven faulty"):
        merge(several(7), Median(), context, sink=MemorySink())


def test_a_rule_that_bounds_no_fault_is_refused_when_faults_are_declared() -> None:
    with pytest.raises(ImpossibleSetting, match="weightedMean bounds no fault"):
        merge(several(5), WeightedMean(), Context(maximum_faulty=1), sink=MemorySink())


def test_needs_are_named() -> None:
    with pytest.raises(MissingInput, match="centeredClipping needs previous"):
        merge(several(5), CenteredClipping(), Context(), sink=MemorySink())


@pytest.mark.parametrize("role", ["base", "previous"])
def test_a_trusted_model_with_nan_is_no_participants_fault(role: str) -> None:
    trusted: dict[str, Any] = {role: model(role, [0, np.nan, 0, 0])}
    context = Context(maximum_faulty=2, **trusted)
    with pytest.raises(NonFiniteInput) as caught:
        merge(several(7), MultiKrum(), context, sink=MemorySink())
    assert caught.value.participants == (f"trusted:{role}",)


def test_a_participant_called_like_a_trusted_model_is_still_a_participant() -> None:
    inputs = [*several(6), model("base", [0, np.inf, 0, 0])]
    context = Context(maximum_faulty=1, base=model("base", [0, 0, 0, 0]))
    result = merge(inputs, MultiKrum(), context, sink=MemorySink())
    assert result.participants[0].reason == "NonFinite"


def test_a_difference_to_the_base_that_overflows_is_non_finite() -> None:
    inputs = [*several(6), model("q", [3e38, 0, 0, 0])]
    context = Context(maximum_faulty=1, base=model("base", [-3e38, 0, 0, 0]))
    result = merge(inputs, MultiKrum(), context, sink=MemorySink())
    assert result.participants[-1].reason == "NonFinite"


def test_with_a_base_a_model_of_another_form_is_proven_faulty() -> None:
    inputs = [*several(6), model("q", np.zeros(5)), MemoryModel("r", {"v": np.zeros(4, "f4")})]
    context = Context(maximum_faulty=2, base=model("base", np.zeros(4)))
    result = merge(inputs, Median(), context, sink=MemorySink())
    assert [item.reason for item in result.participants[-2:]] == ["ManifestMismatch"] * 2
    assert result.f_effective == 0
    context = Context(maximum_faulty=1, base=model("base", np.zeros(4)))
    with pytest.raises(ManifestMismatch):
        merge(inputs, Median(), context, sink=MemorySink())


def test_a_trusted_model_tells_even_when_most_participants_are_of_another_form() -> None:
    good = several(2)
    bad = [model(f"q{row}", np.zeros(5)) for row in range(3)]
    context = Context(
        maximum_faulty=3, base=model("base", np.zeros(4)), root_update=model("root", np.ones(4))
    )
    result = merge([*bad, *good], FlTrust(), context, sink=MemorySink())
    assert [item.key for item in result.participants if item.reason == "ManifestMismatch"] == [
        "q0",
        "q1",
        "q2",
    ]


def test_without_a_trusted_model_the_form_of_the_majority_is_right() -> None:
    """The odd one comes first by key, and is still the odd one."""
    inputs = [*several(6), model("a", np.zeros(5))]
    result = merge(inputs, Median(), Context(maximum_faulty=2), sink=MemorySink())
    assert result.participants[0].reason == "ManifestMismatch"
    assert result.f_effective == 1


def test_without_faults_to_spare_the_first_difference_ends_the_merge() -> None:
    inputs = [*several(6), model("q", np.zeros(5))]
    with pytest.raises(ManifestMismatch, match="w"):
        merge(inputs, Median(), Context(), sink=MemorySink())


def test_two_forms_that_faults_alone_cannot_explain_end_the_merge() -> None:
    inputs = [*several(6), *(model(f"q{row}", np.zeros(5)) for row in range(3))]
    with pytest.raises(ManifestMismatch):
        merge(inputs, Median(), Context(maximum_faulty=2), sink=MemorySink())


def test_a_previous_model_tells_who_is_of_another_form() -> None:
    inputs = [model("a", np.zeros(5)), *several(6)]
    context = Context(maximum_faulty=1, previous=model("previous", np.zeros(4)))
    result = merge(inputs, Median(), context, sink=MemorySink())
    assert result.participants[0].reason == "ManifestMismatch"


def test_a_previous_model_of_another_form_is_refused() -> None:
    context = Context(previous=model("previous", np.zeros(5)), base=model("base", np.zeros(4)))
    with pytest.raises(ManifestMismatch, match="previous"):
        merge(several(5), Median(), context, sink=MemorySink())


def test_integer_tensors_are_carried_or_follow_the_policy() -> None:
    steps = [np.array([3, 9]), np.array([5, 1])]
    inputs = [model(f"p{row}", [row], steps=steps[row]) for row in range(2)]
    with pytest.raises(ManifestMismatch, match="steps"):
        merge(inputs, WeightedMean(), Context(), sink=MemorySink())
    for policy, wanted in (("first", [3, 9]), ("max", [5, 9])):
        sink = MemorySink()
        merge(inputs, WeightedMean(), Context(integers=policy), sink=sink)
        assert sink.tensors["steps"].tolist() == wanted


def test_the_output_has_the_inputs_element_types_rounded_once() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 999)).astype(np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    halves = values.astype(np.float16)
    inputs = [
        MemoryModel(f"p{row}", {"b": bits[row], "h": halves[row]}, bf16=frozenset({"b"}))
        for row in range(3)
    ]
    sink = MemorySink()
    merge(inputs, WeightedMean(), Context(), sink=sink)
    exact = np.mean(halves.astype(np.float64), axis=0)
    assert np.array_equal(sink.tensors["h"], exact.astype(np.float16))
    exact = np.mean([to_float32(row, dtype="bf16").astype(np.float64) for row in bits], axis=0)
    chosen = to_float32(sink.tensors["b"], dtype="bf16").astype(np.float64)
    below, above = (
        to_float32((sink.tensors["b"] + step).astype(np.uint16), dtype="bf16").astype(np.float64)
        for step in (np.uint16(0xFFFF), np.uint16(1))
    )
    error = np.abs(chosen - exact)
    assert np.all(error <= np.abs(below - exact))
    assert np.all(error <= np.abs(above - exact))
    assert sink.model().tensors["b"].dtype == "BF16"


def test_another_output_type_can_be_asked_for() -> None:
    inputs = [MemoryModel(f"p{row}", {"h": np.full(3, row, np.float16)}) for row in range(2)]
    sink = MemorySink()
    merge(inputs, WeightedMean(), Context(), sink=sink, output_dtype="F32")
    assert sink.tensors["h"].dtype == np.float32
    assert sink.tensors["h"].tolist() == [0.5, 0.5, 0.5]


def test_an_exclusion_throws_away_what_was_written() -> None:
    """The NaN sits in the last tensor, so the first one is written before it is found."""
    inputs = [
        MemoryModel(f"p{row}", {"a": np.full(3, row, "f4"), "z": np.full(2, row, "f4")})
        for row in range(5)
    ]
    inputs[4] = MemoryModel("p4", {"a": np.full(3, 4, "f4"), "z": np.array([0, np.nan], "f4")})
    sink = MemorySink()
    merge(inputs, Median(), Context(maximum_faulty=1), sink=sink)
    assert sink.tensors["a"].tolist() == [1.5, 1.5, 1.5]


def test_progress_is_told_by_tensor() -> None:
    told: list[tuple[str, int, int]] = []
    context = Context(progress=lambda *step: told.append(step))
    merge(several(3), Median(), context, sink=MemorySink())
    assert told == [("w", 4, 4)]


def test_a_repetition_needs_everybody_who_took_part() -> None:
    inputs = several(5)
    result = merge(inputs, Median(), Context(), sink=MemorySink())
    recipe = recipe_from_json(result.recipe)
    keys = [item.key for item in result.participants]
    with pytest.raises(MissingInput, match="p4"):
        replay(inputs[:4], recipe, Context(), keys=keys, sink=MemorySink())


def test_a_recipe_of_another_release_is_refused_by_name() -> None:
    with pytest.raises(ImpossibleSetting, match="'later'"):
        recipe_from_json({"kind": "later"})


class UnreadableModel(MemoryModel):
    """Counts how often it is read."""

    reads = 0

    def read(self, name: str, start: int, stop: int) -> Any:
        self.reads += 1
        return super().read(name, start, stop)


def test_the_last_pass_of_krum_reads_the_chosen_model_only() -> None:
    rng = np.random.default_rng(2)
    inputs = [
        UnreadableModel(f"p{row}", {"w": rng.normal(size=9).astype("f4")}) for row in range(7)
    ]
    result = merge(inputs, Krum(), Context(maximum_faulty=2), sink=MemorySink())
    reads = {item.key: item.reads for item in inputs}
    (chosen,) = [item.key for item in result.participants if item.accepted]
    (others,) = {number for key, number in reads.items() if key != chosen}
    assert reads[chosen] == others + 1


def test_weights_are_the_aggregators_and_complete() -> None:
    inputs = several(2)
    sink = MemorySink()
    merge(inputs, WeightedMean(weights={"p0": 3.0, "p1": 1.0}), Context(), sink=sink)
    exact = 0.75 * inputs[0].array("w").astype(float) + 0.25 * inputs[1].array("w").astype(float)
    assert np.allclose(sink.tensors["w"], exact, rtol=1e-6)
    with pytest.raises(ImpossibleSetting, match="no weight for p1"):
        merge(inputs, WeightedMean(weights={"p0": 1.0}), Context(), sink=MemorySink())
    for bad in ({"p0": -1.0, "p1": 2.0}, {"p0": 0.0, "p1": 0.0}, {"p0": np.inf, "p1": 1.0}):
        with pytest.raises(ImpossibleSetting, match="weights must be"):
            merge(inputs, WeightedMean(weights=bad), Context(), sink=MemorySink())


def test_a_weight_of_zero_is_told() -> None:
    rule = WeightedMean(weights={"p0": 1.0, "p1": 0.0})
    result = merge(several(2), rule, Context(), sink=MemorySink())
    assert [item.accepted for item in result.participants] == [True, False]
    assert result.participants[1].reason == "ZeroWeight"


@pytest.mark.parametrize(("trim", "fits"), [(2, True), (3, True), (1, False), (4, False)])
def test_a_trim_is_at_least_f_and_leaves_something(trim: int, fits: bool) -> None:
    rule, context = TrimmedMean(trim=trim), Context(maximum_faulty=2)
    if fits:
        merge(several(8), rule, context, sink=MemorySink())
        return
    with pytest.raises(ImpossibleSetting, match=f"trim = {trim}"):
        merge(several(8), rule, context, sink=MemorySink())


def test_an_element_type_that_no_rule_knows_is_refused() -> None:
    with pytest.raises(ManifestMismatch, match="float64"):
        MemoryModel("p", {"w": np.zeros(3)})


@pytest.mark.parametrize("output_dtype", ["F32", "F16", "BF16"])
def test_a_result_beyond_the_range_of_its_type_is_refused_and_named(output_dtype: str) -> None:
    rule = WeightedSoup(weights={"a": 3e38, "b": 3e38})
    inputs = [model("a", [0, 2]), model("b", [1, 2])]
    with pytest.raises(ImpossibleSetting, match=r"leaves the range of .* in tensor w") as caught:
        merge(inputs, rule, Context(), sink=MemorySink(), output_dtype=output_dtype)
    assert "BF16" in caught.value.remedy


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_all_finite_sees_every_kind_of_element(dtype: str) -> None:
    patterns = {
        "f32": (np.uint32, 0x7F7FFFFF, 0x7F800000, 0xFFC00001),
        "f16": (np.uint16, 0x7BFF, 0x7C00, 0xFE01),
        "bf16": (np.uint16, 0x7F7F, 0x7F80, 0xFFC1),
    }
    kind, largest, infinite, nan = patterns[dtype]
    sign = 1 << (8 * np.dtype(kind).itemsize - 1)
    stored = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}[dtype]

    def seen(bits: list[int]) -> bool:
        return all_finite(np.array(bits, dtype=kind).view(stored), dtype=dtype)

    assert seen([])
    assert seen([0, 1, largest, largest | sign])
    for wild in (infinite, infinite | sign, nan):
        assert not seen([0, wild, 0])


def test_weights_beyond_what_the_kernels_take_are_refused() -> None:
    rule = WeightedSoup(weights={"a": 1e250, "b": 1.0})
    with pytest.raises(ImpossibleSetting, match=r"tensor w cannot be computed: .*1e\+200"):
        merge([model("a", [0]), model("b", [1])], rule, Context(), sink=MemorySink())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan"])
def test_parameters_that_are_not_finite_are_refused(value: float | str) -> None:
    with pytest.raises(ImpossibleSetting, match=r"taskArithmetic\.scale = .* is not finite"):
        rule_from_parameters("taskArithmetic", {"scale": value})
    with pytest.raises(ImpossibleSetting, match=r"weightedSoup\.weights = .* is not finite"):
        rule_from_parameters("weightedSoup", {"weights": {"a": 1.0, "b": value}})
    nested = {"candidates": ["median", {"name": "zeno", "rho": value}]}
    with pytest.raises(ImpossibleSetting, match="is not finite"):
        rule_from_parameters("auto", nested)


def test_a_list_of_rules_must_be_one() -> None:
    for value in (5, "median", {"name": "median"}):
        with pytest.raises(ImpossibleSetting, match=r"auto\.candidates = .* is no list"):
            rule_from_parameters("auto", {"candidates": value})


def test_weights_of_nobody_are_refused_and_those_of_the_excluded_are_not() -> None:
    weights = {"p0": 1.0, "p1": 1.0, "late": 1.0, "liar": 1.0}
    context = Context(absent=frozenset({"late"}))
    with pytest.raises(ImpossibleSetting, match="weightedMean names 'liar'"):
        merge(several(2), WeightedMean(weights=weights), context, sink=MemorySink())
    del weights["liar"]
    result = merge(several(2), WeightedMean(weights=weights), context, sink=MemorySink())
    assert [item.weight for item in result.participants] == [None, 0.5, 0.5]
    inner = Auto(candidates=(WeightedMean(weights={**weights, "typo": 5.0}), Median()))
    context = Context(evaluator=Loss({}))
    with pytest.raises(ImpossibleSetting, match="auto names 'late', 'typo'"):
        merge(several(2), inner, context, sink=MemorySink())
    soup = IncrementalSoup(order=("p0", "p1", "p9"))
    with pytest.raises(ImpossibleSetting, match="incrementalSoup names 'p9'"):
        merge(several(2), soup, context, sink=MemorySink())
    assert Bucketing(rule=WeightedMean(weights={"bucket-00": 1.0})).named == frozenset()


@pytest.mark.parametrize("key", ["", "k" * 254, "\udcff"])
def test_a_key_that_the_record_cannot_hold_is_refused_before_anything_is_read(key: str) -> None:
    class Unread(MemoryModel):
        def read(self, name: str, start: int, stop: int) -> Any:
            raise AssertionError(f"{name} was read")

    inputs = [Unread(name, {"w": np.zeros(3, "f4")}) for name in ("a", "b")]
    odd = Unread(key, {"w": np.zeros(3, "f4")})
    with pytest.raises(ImpossibleSetting, match=r"the key .*of a participant"):
        merge([*inputs, odd], Median(), Context(), sink=MemorySink())
    for context in (
        Context(maximum_faulty=1, faulty={key: "Replay"}),
        Context(absent=frozenset({key})),
        Context(maximum_faulty=1, faulty={"z": "\udcff"}),
    ):
        with pytest.raises(ImpossibleSetting, match=r"of a participant|faulty participant"):
            merge(inputs, Median(), context, sink=MemorySink())


def test_the_longest_key_is_recorded() -> None:
    inputs = [model("k" * 253, [1]), model("b", [2])]
    assert merge(inputs, Median(), Context(), sink=MemorySink()).participants[1].key == "k" * 253


class Raising:
    def loss(self, model: Any) -> float:
        raise ValueError("no data")

    def gradient(self, model: Any) -> MemoryModel:
        raise ValueError("no slope")


@pytest.mark.parametrize("rule", [Zeno(), GreedySoup(), IncrementalSoup(), Auto(), LearnedSoup()])
def test_an_evaluator_that_raises_is_named_with_the_cause(rule: Rule) -> None:
    context = Context(evaluator=Raising(), gradient=Raising())
    with pytest.raises(EvaluatorFailed, match="Raising failed: ValueError: no data") as caught:
        merge(several(3), rule, context, sink=MemorySink())
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_gradient_that_raises_or_has_another_form_is_named() -> None:
    class Flat(Loss):
        def loss(self, model: Any) -> float:
            return 1.0

        def gradient(self, model: Any) -> MemoryModel:
            return MemoryModel("gradient", {"w": np.zeros(3, "f4")})

    context = Context(evaluator=Flat({}), gradient=Raising())
    with pytest.raises(EvaluatorFailed, match="Raising failed: ValueError: no slope"):
        merge(several(3), LearnedSoup(), context, sink=MemorySink())
    context = Context(evaluator=Flat({}), gradient=Flat({}))
    with pytest.raises(EvaluatorFailed, match=r"Flat failed: .* shape \[3\]"):
        merge(several(3), LearnedSoup(), context, sink=MemorySink())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "rule", [Zeno(), GreedySoup(), IncrementalSoup(), Auto(), LearnedSoup(), SimplexWeights()]
)
def test_without_a_finite_loss_there_is_no_result(rule: Rule, bad: float) -> None:
    class Wild:
        def loss(self, model: Any) -> float:
            return bad

        def gradient(self, model: Any) -> MemoryModel:
            return MemoryModel("gradient", {"w": np.ones(4, "f4")})

    context = Context(evaluator=Wild(), gradient=Wild())
    with pytest.raises(ImpossibleSetting, match="finite loss on the trusted data"):
        merge(several(3), rule, context, sink=MemorySink())


def test_zeno_takes_no_model_whose_loss_is_not_finite() -> None:
    inputs = [model(key, [value]) for key, value in (("a", 0), ("b", 1), ("c", 2))]
    context = Context(maximum_faulty=1, evaluator=Loss({0: math.nan, 1: 1.0, 2: 2.0}))
    result = merge(inputs, Zeno(), context, sink=MemorySink())
    assert [item.accepted for item in result.participants] == [False, True, True]
    assert [item.score for item in result.participants] == [None, 1.0, 2.0]
    assert [item.loss for item in result.candidates] == [None, 1.0, 2.0]
    assert MergeResult.model_validate_json(result.model_dump_json(by_alias=True)) == result
    context = Context(maximum_faulty=1, evaluator=Loss({0: math.nan, 1: math.nan, 2: 2.0}))
    with pytest.raises(ImpossibleSetting, match="n - f = 3 - 1 = 2 models, and 1 have a finite"):
        merge(inputs, Zeno(), context, sink=MemorySink())


def test_a_record_with_losses_that_are_not_finite_is_read_back() -> None:
    inputs = [model(key, [value]) for key, value in (("a", 0), ("b", 1))]
    context = Context(evaluator=Loss({0: 1.0, 1: math.nan, 0.5: math.inf}))
    for rule in (GreedySoup(), Auto(candidates=(WeightedMean(), Krum(), Pick(key="a")))):
        result = merge(inputs, rule, context, sink=MemorySink())
        assert MergeResult.model_validate_json(result.model_dump_json(by_alias=True)) == result
    reasons = {item.name: item.reason for item in result.candidates}
    assert reasons["weightedMean"] == "NonFiniteLoss"


@dataclass(frozen=True, slots=True)
class Pick(Rule):
    """One participant, found only while it decides."""

    name = "median"
    key: str = ""
    lacks: bool = False

    def decide(self, session: Session) -> Decision:
        if self.key not in session.keys:
            raise (MissingInput if self.lacks else ImpossibleSetting)(f"{self.key} is not there")
        return selection(session, [session.keys.index(self.key)], diagnostics={"far": math.inf})


@pytest.mark.parametrize("lacks", [False, True])
def test_auto_goes_on_without_a_candidate_that_fails(*, lacks: bool) -> None:
    inputs = [model("a", [0]), model("b", [1])]
    context = Context(evaluator=Loss({0: 1.0, 1: 2.0}))
    lost = Pick(key="gone", lacks=lacks)
    result = merge(inputs, Auto(candidates=(lost, Pick(key="a"))), context, sink=MemorySink())
    assert [(item.picked, item.reason) for item in result.candidates] == [
        (False, "gone is not there"),
        (True, None),
    ]
    with pytest.raises(ImpossibleSetting, match=r"no candidate .* gone is not there"):
        merge(inputs, Auto(candidates=(lost,)), context, sink=MemorySink())


def test_a_record_that_cannot_be_made_leaves_no_output() -> None:
    class Unsound(MemorySink):
        def finish(self) -> str:
            raise AssertionError("the output was committed")

    @dataclass(frozen=True, slots=True)
    class Odd(Pick):
        def decide(self, session: Session) -> Decision:
            return replace(Pick.decide(self, session), gram_digest="no digest")

    with pytest.raises(ValueError, match="gram_digest"):
        merge([model("a", [0])], Odd(key="a"), Context(), sink=Unsound())
