"""The one entry: who takes part, what is refused, and what the record says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import (
    ImpossibleSetting,
    ManifestMismatch,
    MissingInput,
    NonFiniteInput,
)
from cabildo_trainer.consensus.merging import merge, replay
from cabildo_trainer.consensus.recipes import recipe_from_json
from cabildo_trainer.consensus.robust.centered_clipping import CenteredClipping
from cabildo_trainer.consensus.robust.columns import Median, TrimmedMean
from cabildo_trainer.consensus.robust.krum import Krum, MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.robust.trusted import FlTrust
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel, to_float32


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
