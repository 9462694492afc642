"""DP-FedAvg: what one participant can move, what a round costs, and what a verifier sees."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import (
    BudgetExceeded,
    DigestMismatch,
    ImpossibleSetting,
    MissingInput,
)
from cabildo_trainer.consensus.merging import merge, replay
from cabildo_trainer.consensus.passes import Session
from cabildo_trainer.consensus.privacy.accounting import (
    Spend,
    epsilon_of,
    noise_multiplier_for,
    rounds_within,
)
from cabildo_trainer.consensus.privacy.clipped_sum import Grid, integer_sum, norms_of, scales
from cabildo_trainer.consensus.privacy.discrete_gaussian import SCALE, NoiseStream
from cabildo_trainer.consensus.privacy.dp_fed_avg import DpFedAvg
from cabildo_trainer.consensus.privacy.ledger import Ledger, Privacy
from cabildo_trainer.consensus.privacy.noise_key import NoiseKey
from cabildo_trainer.consensus.privacy.noisy_sum import NoisySum, rounded
from cabildo_trainer.consensus.privacy.publication import opening_of, published
from cabildo_trainer.consensus.privacy.verification import verify_clipped_sum
from cabildo_trainer.consensus.recipes import recipe_from_json
from cabildo_trainer.consensus.robust.choice import Auto
from cabildo_trainer.consensus.robust.mixing import NearestNeighbourMixing
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cabildo_api.merge_result import MergeResult

KEY = NoiseKey(hashlib.sha256(b"noise").digest())
OTHER_KEY = NoiseKey(hashlib.sha256(b"other noise").digest())
D = 4000
RULE = DpFedAvg(
    clip_norm=1.0,
    noise_multiplier=2.0,
    expected_participants=8.0,
    epsilon=10.0,
    delta=1e-5,
    accounting="rdp",
)


def model(key: str, values: NDArray[Any], **more: NDArray[Any]) -> MemoryModel:
    return MemoryModel(key, {"weight": values.astype(np.float32), **more})


def scene(n: int = 8, *, d: int = D, length: float = 1.0, seed: int = 0) -> list[MemoryModel]:
    """n models around a start of zeros, at rising distances about `length`."""
    rng = np.random.default_rng(seed)
    models = []
    for row in range(n):
        direction = rng.normal(size=d)
        direction *= length * (0.5 + row / n) / np.linalg.norm(direction)
        models.append(model(f"p{row}", direction))
    return models


def context(*, ledger: Ledger | None = None, d: int = D, **more: Any) -> Context:
    values = {
        "previous": model("previous", np.zeros(d)),
        "privacy": Privacy(key=KEY, ledger=ledger or Ledger()),
        **more,
    }
    return Context(**values)


def run(
    inputs: list[MemoryModel], rule: DpFedAvg = RULE, given: Context | None = None
) -> tuple[MergeResult, NDArray[Any]]:
    sink = MemorySink()
    result = merge(inputs, rule, given or context(), sink=sink)
    return result, sink.tensors["weight"]


def integers(inputs: list[MemoryModel], *, grid: Grid, given: Context | None = None) -> list[int]:
    """The clipped sum in steps of the grid, as Python integers."""
    session = Session(sources=tuple(inputs), f=0, context=given or context())
    weights = scales(norms_of(session), grid=grid)
    parts = [integer_sum(chunk, weights) for chunk in session.chunks()]
    return [int(value) for value in np.concatenate(parts)]


def length_squared(values: list[int]) -> int:
    return sum(value * value for value in values)


@settings(max_examples=60, deadline=None)
@given(
    arrays_of.arrays(
        np.float32, 257, elements=st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=True)
    ),
    st.floats(1e-6, 1e6),
    st.floats(0.1, 10.0),
)
def test_no_update_is_longer_than_the_clip_norm_whatever_it_holds(
    values: NDArray[np.float32], clip_norm: float, multiplier: float
) -> None:
    grid = Grid(clip_norm=clip_norm, noise_multiplier=multiplier)
    given = context(previous=model("previous", np.full(257, 0.125)))
    own = integers([model("p", values)], grid=grid, given=given)
    # |z| <= C / step, exactly: (2^24 / sigma)^2, a rational number.
    ratio = SCALE / multiplier
    assert math.sqrt(length_squared(own)) <= ratio * (1.0 + 1e-15)
    assert length_squared(own) <= int(ratio * ratio) + 1


def test_a_clipped_update_keeps_its_direction_and_all_of_the_clip_norm() -> None:
    values = np.random.default_rng(1).normal(size=D)
    grid = Grid(clip_norm=1.0, noise_multiplier=2.0)
    own = np.asarray(integers([model("p", values)], grid=grid), dtype=np.float64) * grid.step
    assert np.linalg.norm(own) == pytest.approx(1.0, rel=1e-5)
    cosine = own @ values / np.linalg.norm(own) / np.linalg.norm(values)
    assert cosine == pytest.approx(1.0, abs=1e-10)


def test_a_short_update_is_only_cut_to_the_grid_towards_zero() -> None:
    values = (np.random.default_rng(2).normal(size=D) * 1e-3).astype(np.float32)
    grid = Grid(clip_norm=1.0, noise_multiplier=2.0)
    own = integers([model("p", values)], grid=grid)
    assert own == [math.trunc(float(value) / grid.step) for value in values]


def test_whatever_one_participant_sends_moves_the_sum_by_at_most_the_clip_norm() -> None:
    grid = Grid(clip_norm=1.0, noise_multiplier=2.0)
    inputs = scene()
    without = integers(inputs[1:], grid=grid)
    for wild in (np.full(D, 1e30), -np.ones(D), np.zeros(D), np.eye(1, D)[0] * 3e37):
        total = integers([model("p0", wild), *inputs[1:]], grid=grid)
        moved = [one - other for one, other in zip(total, without, strict=True)]
        assert length_squared(moved) <= (SCALE // 2) ** 2


def test_the_output_is_start_plus_noised_sum_over_the_fixed_count() -> None:
    start = np.random.default_rng(3).normal(size=D).astype(np.float32)
    given = context(previous=model("previous", start))
    inputs = [model(item.key, start + item.array("weight")) for item in scene(6)]
    result, output = run(inputs, given=given)
    grid = Grid(clip_norm=1.0, noise_multiplier=2.0)
    total = np.asarray(integers(inputs, grid=grid, given=given))
    label = str(result.diagnostics["clippedSum"]).encode()
    noise = NoiseStream(KEY.derive(b"noise", label, b"weight")).draw(0, D)
    change = (total + noise).astype(np.float64) * grid.step / 8.0
    assert np.array_equal(output, (start.astype(np.float64) + change).astype(np.float32))
    assert np.std(noise * grid.step) == pytest.approx(2.0, rel=0.05)


def test_six_of_eight_expected_participants_are_still_divided_by_eight() -> None:
    quiet = replace(RULE, noise_multiplier=0.01, epsilon=1e6)
    inputs = scene(6, length=0.1)
    _, output = run(inputs, quiet)
    mean_of_eight = sum(item.array("weight").astype(np.float64) for item in inputs) / 8.0
    assert np.std(output - mean_of_eight) == pytest.approx(0.01 / 8.0, rel=0.1)


def test_a_key_makes_the_same_noise_again_and_another_key_other_noise() -> None:
    inputs = scene()
    first, output = run(inputs)
    again, same = run(inputs)
    assert again == first
    assert np.array_equal(same, output)
    _, other = run(inputs, given=context(privacy=Privacy(key=OTHER_KEY, ledger=Ledger())))
    noise, expected = (other - output).astype(np.float64), math.sqrt(2.0) * 2.0 / 8.0
    assert np.std(noise) == pytest.approx(expected, rel=0.05)


def test_two_different_sums_never_share_their_noise() -> None:
    """Else the difference of two results would show the participant that tells them apart."""
    inputs = scene()
    _, with_all = run(inputs)
    _, without_one = run(inputs[1:])
    _, next_round = run(inputs, given=context(ledger=Ledger().after(RULE.spend)))
    for other in (without_one, next_round):
        assert np.std(with_all - other) > 0.9 * math.sqrt(2.0) * 2.0 / 8.0


def test_neither_key_nor_norms_are_in_the_result() -> None:
    inputs = scene()
    result, _ = run(inputs)
    text = result.model_dump_json(by_alias=True)
    assert KEY.secret.hex() not in text
    assert result.gram_digest is None
    assert all(item.score is None and item.weight is None for item in result.participants)
    session = Session(sources=tuple(inputs), f=0, context=context())
    for norm in norms_of(session):
        assert repr(norm)[:8] not in text


def test_a_public_seed_as_the_key_is_refused_before_anything_is_read() -> None:
    for seed in (KEY.secret, KEY.secret + b"tail"):
        with pytest.raises(ImpossibleSetting, match="recorded seed"):
            run(scene(), given=context(seed=seed))
    run(scene(), given=context(seed=b"an honest public seed"))


class Unreadable(MemoryModel):
    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        raise AssertionError("read before the budget was asked")


def test_a_round_above_the_budget_is_refused_before_anything_is_read_or_spent() -> None:
    rule, ledger = replace(RULE, epsilon=5.0), Ledger()
    fitting = rounds_within(rule.budget, rule.spend)
    for _ in range(fitting):
        result, _ = run(scene(), rule, context(ledger=ledger))
        ledger = Ledger.of_result(result)
        assert result.epsilon is not None
        assert result.epsilon <= 5.0
    inputs = [Unreadable(item.key, {"weight": item.array("weight")}) for item in scene()]
    with pytest.raises(BudgetExceeded) as caught:
        run(list(inputs), rule, context(ledger=ledger))
    error = caught.value
    assert error.exit_code == 78
    spent = epsilon_of(ledger.spends, delta=1e-5, accounting="rdp")
    after = epsilon_of(ledger.after(rule.spend).spends, delta=1e-5, accounting="rdp")
    for figure in (f"{spent:.4f}", f"{after:.4f}", f"{after - spent:.4f}", "budget of 5"):
        assert figure in str(error)
    least = noise_multiplier_for(rule.budget, rule.spend, spends=ledger.spends)
    assert f"{least:.4g}" in error.remedy
    enough = replace(rule, noise_multiplier=least)
    result, _ = run(scene(), enough, context(ledger=ledger))
    assert result.epsilon == pytest.approx(5.0, rel=1e-3)


def test_a_budget_that_is_spent_says_so() -> None:
    ledger = Ledger().after(Spend(1.0, rounds=50))
    with pytest.raises(BudgetExceeded) as caught:
        run(scene(), RULE, context(ledger=ledger))
    assert "no further round fits" in caught.value.remedy


@pytest.mark.parametrize("accounting", ["rdp", "pld"])
def test_the_result_carries_what_was_spent_and_the_ledger_for_the_next_round(
    accounting: Any,
) -> None:
    rule, ledger = replace(RULE, accounting=accounting), Ledger()
    for index in range(3):
        result, _ = run(scene(), rule, context(ledger=ledger))
        ledger = Ledger.of_result(result)
        wanted = epsilon_of((Spend(2.0, rounds=index + 1),), delta=1e-5, accounting=accounting)
        assert (result.epsilon, result.delta) == (wanted, 1e-5)
        assert result.diagnostics["round"] == index + 1
    assert ledger == Ledger(spends=(Spend(2.0, rounds=3),))


def test_signal_to_noise_is_shown_with_a_warning_below_one() -> None:
    result, _ = run(scene())
    assert result.signal_to_noise == pytest.approx(8.0 / (2.0 * math.sqrt(D)))
    assert "signal to noise is 0.063" in str(result.diagnostics["warning"])
    loud, _ = run(scene(d=4), given=context(d=4))
    assert loud.signal_to_noise == 2.0
    assert "warning" not in loud.diagnostics


def test_sixteen_silos_at_epsilon_eight_drown_ten_million_parameters() -> None:
    rule = replace(RULE, noise_multiplier=1.898, expected_participants=16.0)
    assert 1.0 / rule.signal_to_noise(10_000_000) == pytest.approx(375.0, abs=0.5)


def test_a_verifier_with_the_opening_finds_the_sum_right() -> None:
    inputs = scene()
    given = context(ledger=Ledger().after(RULE.spend))
    result, _ = run(inputs, given=given)
    rounds = int(result.diagnostics["round"]) - 1
    opening = opening_of(KEY, start=given.start, rounds=rounds)
    verifier = replace(given, privacy=None)
    verify_clipped_sum([*inputs, model("stranger", np.ones(D))], result, verifier, opening=opening)
    changed = inputs[3].array("weight").copy()
    changed[17] += np.float32(1e-3)
    with pytest.raises(DigestMismatch, match="clipped sum"):
        verify_clipped_sum(
            [*inputs[:3], model("p3", changed), *inputs[4:]], result, verifier, opening=opening
        )
    with pytest.raises(DigestMismatch):
        verify_clipped_sum(inputs, result, verifier, opening=bytes(32))
    with pytest.raises(MissingInput, match="p7"):
        verify_clipped_sum(inputs[:7], result, verifier, opening=opening)


def test_a_result_of_another_rule_has_no_sum_to_verify() -> None:
    result, _ = run(scene())
    bare = result.model_copy(update={"diagnostics": {}})
    with pytest.raises(MissingInput, match="no clipped sum"):
        verify_clipped_sum(scene(), bare, context(), opening=bytes(32))
    with pytest.raises(MissingInput, match="no privacy ledger"):
        Ledger.of_result(bare)


def test_a_replay_needs_the_key_and_those_who_took_part() -> None:
    inputs = scene()
    result, _ = run(inputs)
    recipe = recipe_from_json(json.loads(result.model_dump_json(by_alias=True))["recipe"])
    keys = [item.key for item in result.participants]

    def again(given: Context, who: list[str]) -> str:
        return replay(inputs, recipe, given, keys=who, sink=MemorySink())

    assert again(replace(context(), chunk_elements=24_576, threads=2), keys) == result.output_digest
    with pytest.raises(DigestMismatch, match="noise key"):
        again(context(privacy=Privacy(key=OTHER_KEY, ledger=Ledger())), keys)
    with pytest.raises(DigestMismatch, match="8 participants"):
        again(context(), keys[1:])
    with pytest.raises(MissingInput, match="noise key"):
        again(context(privacy=None), keys)


def test_the_public_part_holds_no_fingerprint_of_a_participant() -> None:
    result, _ = run(scene())
    open_part = published(result)
    assert [item.key for item in open_part.participants] == [f"p{row}" for row in range(8)]
    assert all(item.digest is None for item in open_part.participants)
    assert open_part.output_digest == result.output_digest


SAMPLED = replace(
    RULE,
    sampling_probability=0.8,
    population=10,
    noise_multiplier=3.0,
    delta=0.01,
)


def test_under_sampling_the_public_part_does_not_say_who_was_drawn() -> None:
    result, _ = run(scene(7), SAMPLED)
    open_part = published(result)
    assert open_part.participants == ()
    assert open_part.n == 10
    assert "p3" not in open_part.model_dump_json()


def test_under_sampling_the_public_part_does_not_say_how_many_were_drawn() -> None:
    parts = [published(run(scene(drawn), SAMPLED)[0]) for drawn in (6, 8)]
    sealed = [len(part.recipe["sealed"]) for part in parts]
    assert sealed[0] == sealed[1]
    # Nothing else differs in length, or at all, but what the noise covers and what is derived.
    secret = {"sealed", "commitment"}
    for name in parts[0].recipe.keys() - secret:
        assert parts[0].recipe[name] == parts[1].recipe[name]
    for name in parts[0].diagnostics.keys() - {"clippedSum"}:
        assert parts[0].diagnostics[name] == parts[1].diagnostics[name]
    lengths = [len(part.model_dump_json(by_alias=True)) for part in parts]
    assert lengths[0] == lengths[1]


def test_a_seal_of_another_length_is_refused() -> None:
    result, _ = run(scene())
    recipe = recipe_from_json(dict(result.recipe))
    assert isinstance(recipe, NoisySum)
    short = KEY.seal(bytes(64), label=recipe.commitment.encode())
    keys = [item.key for item in result.participants]
    with pytest.raises(DigestMismatch, match="64 bytes"):
        replay(scene(), replace(recipe, sealed=short), context(), keys=keys, sink=MemorySink())


def test_sampling_costs_less_and_counts_the_rounds_that_nobody_is_drawn_for() -> None:
    result, _ = run(scene(7), SAMPLED)
    spend = Ledger.of_result(result).spends[0]
    assert spend.sampling_probability == 0.8
    assert spend.failure == pytest.approx(0.2**9)
    plain = epsilon_of((Spend(3.0),), delta=0.01, accounting="rdp")
    assert result.epsilon is not None
    assert result.epsilon < plain
    assert result.epsilon > epsilon_of((Spend(3.0, 0.8),), delta=0.01, accounting="rdp")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"clip_norm": 0.0}, "clipNorm"),
        ({"clip_norm": math.inf}, "clipNorm"),
        ({"noise_multiplier": 0.0}, "noiseMultiplier"),
        ({"noise_multiplier": math.nan}, "noiseMultiplier"),
        ({"expected_participants": 0.0}, "expectedParticipants"),
        ({"expected_participants": 7.0}, "never more"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 0.125}, "given away whole"),
        ({"sampling_probability": 0.5}, "population"),
        ({"sampling_probability": 0.0, "population": 10}, "population"),
        ({"sampling_probability": 0.5, "population": 10}, "is not expectedParticipants"),
        ({"sampling_probability": 0.01, "population": 800, "delta": 1e-4}, ""),
        ({"adaptive_quantile": 1.0}, "adaptiveQuantile"),
        ({"adaptive_quantile": 0.5, "adaptive_rate": 0.0}, "adaptiveRate"),
        ({"adaptive_quantile": 0.5, "count_noise": 0.0}, "countNoise"),
    ],
)
def test_a_setting_that_promises_nothing_is_refused(change: dict[str, Any], match: str) -> None:
    rule = replace(RULE, **change)
    if not match:
        rule.requirement(8, 0)
        return
    with pytest.raises(ImpossibleSetting, match=match):
        rule.requirement(8, 0)


def test_participants_that_cannot_have_been_drawn_by_coins_are_refused() -> None:
    rule = replace(
        RULE, sampling_probability=0.01, population=100, expected_participants=1.0, delta=1e-5
    )
    rule.requirement(3, 0)
    with pytest.raises(ImpossibleSetting, match="were not drawn so"):
        rule.requirement(40, 0)


def test_clipping_and_noise_bear_no_fault() -> None:
    with pytest.raises(ImpossibleSetting, match="bounds no fault"):
        RULE.requirement(8, 1)


def test_inside_another_rule_it_is_refused() -> None:
    given = context()
    with pytest.raises(ImpossibleSetting, match="inside another rule"):
        merge(scene(), NearestNeighbourMixing(rule=RULE), given, sink=MemorySink())
    with pytest.raises(ImpossibleSetting, match="auto cannot try dpFedAvg"):
        Auto(candidates=(RULE,)).requirement(8, 0)


def test_integers_of_a_participant_are_not_passed_on() -> None:
    steps = {"steps": np.arange(3)}
    inputs = [MemoryModel(item.key, {"weight": item.array("weight"), **steps}) for item in scene()]
    start = MemoryModel("previous", {"weight": np.zeros(D, dtype=np.float32), **steps})
    merge(inputs, RULE, context(previous=start), sink=MemorySink())
    with pytest.raises(ImpossibleSetting, match="steps would be published"):
        merge(inputs, RULE, context(previous=start, integers="first"), sink=MemorySink())


ADAPTIVE = replace(
    RULE, adaptive_quantile=0.5, adaptive_rate=0.2, count_noise=0.5, epsilon=1e6, clip_norm=20.0
)


def test_the_adaptive_clip_norm_finds_the_quantile_from_afar() -> None:
    inputs, ledger, seen = scene(d=16), Ledger(), []
    for _ in range(60):
        result, _ = run(inputs, ADAPTIVE, context(ledger=ledger, d=16))
        ledger = Ledger.from_json(Ledger.of_result(result).to_json())
        assert result.diagnostics["nextClipNorm"] == ledger.clip_norm
        seen.append(float(result.diagnostics["clipNorm"]))
    assert seen[0] == 20.0
    # The norms are 0.5, 0.625 ... 1.375: half of them are at most 0.875.
    assert 0.8 < float(np.median(seen[-20:])) < 1.1


def test_the_noised_share_is_the_share_up_to_its_noise() -> None:
    shares = []
    for index in range(40):
        given = context(ledger=Ledger(spends=(Spend(9.0, rounds=index + 1),)), d=16)
        rule = replace(ADAPTIVE, clip_norm=0.9)
        result, _ = run(scene(d=16), rule, given)
        shares.append(float(result.diagnostics["noisedShareUnclipped"]))
    assert np.mean(shares) == pytest.approx(0.5, abs=4.0 * 0.5 / 8.0 / math.sqrt(40))
    assert np.std(shares) == pytest.approx(0.5 / 8.0, rel=0.4)


def test_adaptive_clipping_is_paid_for() -> None:
    result, _ = run(scene(), ADAPTIVE)
    spend = Ledger.of_result(result).spends[0]
    assert spend.noise_multiplier == pytest.approx((2.0**-2 + 1.0**-2) ** -0.5)
    cheap = replace(ADAPTIVE, count_noise=None)
    assert cheap.spend.noise_multiplier == pytest.approx((2.0**-2 + 10.0**-2) ** -0.5)


def test_a_fixed_clip_norm_stays() -> None:
    result, _ = run(scene(), RULE, context(ledger=Ledger(clip_norm=7.0)))
    assert result.diagnostics["clipNorm"] == 1.0
    assert Ledger.of_result(result).clip_norm is None


def nearest_bf16(value: float) -> int:
    """By trying the neighbours; ties to the even one."""
    upper = int(np.float32(value).view(np.uint32)) >> 16
    near = [bits for bits in (upper - 1, upper, upper + 1) if 0 <= bits <= 0xFFFF]

    def as_float(bits: int) -> float:
        return float(np.asarray([bits << 16], dtype=np.uint32).view(np.float32)[0])

    return min(near, key=lambda bits: (abs(as_float(bits) - value), bits & 1))


def test_the_output_is_rounded_once_to_bf16() -> None:
    half, hair = 2.0**-8, 2.0**-40
    values = [1.0, 1.0 + half, 1.0 + half + hair, 1.0 + 3 * half - hair, -1.0 - half - hair, 0.0]
    values += np.random.default_rng(4).normal(size=2000).tolist()
    found = rounded(np.asarray(values), out_dtype="bf16")
    assert found.tolist() == [nearest_bf16(value) for value in values]
    assert rounded(np.asarray([1.0 + 2.0**-11 + hair]), out_dtype="f16")[0] == 1.0 + 2.0**-10


def test_models_in_bf16_are_clipped_and_rounded_once() -> None:
    rng = np.random.default_rng(5)
    bits = (rng.normal(size=(8, D)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    inputs = [
        MemoryModel(f"p{row}", {"weight": bits[row]}, bf16=frozenset({"weight"}))
        for row in range(8)
    ]
    given = context(previous=model("previous", rng.normal(size=D)))
    grid = Grid(clip_norm=1.0, noise_multiplier=2.0)
    for item in inputs:
        assert length_squared(integers([item], grid=grid, given=given)) <= (SCALE // 2) ** 2
    _, output = run(inputs, given=given)
    sink = MemorySink()
    merge(inputs, RULE, given, sink=sink, output_dtype="F32")
    assert output.dtype == np.uint16
    wide = (output.astype(np.uint32) << 16).view(np.float32)
    precise = sink.tensors["weight"]
    assert np.max(np.abs(wide - precise) / np.maximum(np.abs(precise), 1e-3)) <= 2.0**-8
