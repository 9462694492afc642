"""The attacks of the evaluation do what their definitions say, and the split is what it claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from eval.attacks import ATTACKS, Knowledge, a_little, flipped, worst_deviations
from eval.contenders import CONTENDERS
from eval.digits import TRUSTED_SAMPLES, split_digits
from eval.federation import run
from eval.network import PARAMETERS, TrustedLoss, gradients, initial, model_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Updates = NDArray[np.float64]

HONEST = np.random.default_rng(7).normal(1.0, 0.5, (11, 40))


def sent_alone(byzantine: Updates) -> Updates:
    first: Updates = byzantine[0]
    return first


def known(aggregate: Callable[[Updates], Updates] = sent_alone) -> Knowledge:
    own = np.random.default_rng(8).normal(1.0, 0.5, (5, 40))
    return Knowledge(honest=HONEST, own=own, aggregate=aggregate, random=np.random.default_rng(9))


@pytest.mark.parametrize(
    ("name", "update"),
    [
        ("signFlip", -4.0 * HONEST.mean(axis=0)),
        ("ipm", -0.8 * HONEST.mean(axis=0)),
        ("alie", HONEST.mean(axis=0) + 2.5 * HONEST.std(axis=0, ddof=1)),
        ("mimic", HONEST[0]),
    ],
)
def test_all_byzantine_send_the_published_vector(name: str, update: Updates) -> None:
    updates = ATTACKS[name].send(known())
    np.testing.assert_allclose(updates, np.tile(update, (5, 1)), rtol=1e-12)


@pytest.mark.parametrize("name", ["none", "labelFlip"])
def test_no_attack_on_the_updates_sends_what_was_trained(name: str) -> None:
    attacker = known()
    assert ATTACKS[name].send(attacker) is attacker.own


def test_gaussian_noise_has_the_deviation_of_the_definition() -> None:
    updates = ATTACKS["gaussian"].send(known())
    assert updates.shape == (5, 40)
    assert updates.std() == pytest.approx(10.0, rel=0.15)


def test_label_flip_mirrors_the_digits() -> None:
    np.testing.assert_array_equal(flipped(np.arange(10)), np.arange(10)[::-1])
    assert ATTACKS["labelFlip"].flips_labels


def test_the_line_search_finds_where_a_rule_is_pushed_farthest() -> None:
    mean, deviation = HONEST.mean(axis=0), HONEST.std(axis=0, ddof=1)

    def cut_off_at_three(byzantine: Updates) -> Updates:
        moved: Updates = (byzantine[0] - mean) / deviation
        result: Updates = mean + np.where(moved > 3.0, 0.0, moved)
        return result

    assert 2.5 <= worst_deviations(known(cut_off_at_three)) <= 3.0


def test_the_line_search_is_at_least_as_strong_as_the_fixed_attack() -> None:
    def median(byzantine: Updates) -> Updates:
        result: Updates = np.median(np.vstack([HONEST, byzantine]), axis=0)
        return result

    def harm(deviations: float) -> float:
        return float(np.linalg.norm(median(a_little(known(), deviations)) - HONEST.mean(axis=0)))

    assert harm(worst_deviations(known(median))) >= harm(2.5) * (1 - 1e-12)


def test_the_split_shares_all_samples_out_once_and_keeps_trusted_ones_apart() -> None:
    split = split_digits(participants=16, concentration=0.3, seed=0)
    parts = [*split.shards, split.trusted, split.test]
    assert sum(len(part.digits) for part in parts) == 1797
    assert len(split.trusted.digits) == TRUSTED_SAMPLES
    # scikit-learn's digits hold no image twice.
    assert len(np.unique(np.concatenate([part.images for part in parts]), axis=0)) == 1797


def test_gradients_are_the_derivative_of_the_trusted_loss() -> None:
    trusted = split_digits(participants=16, concentration=0.3, seed=0).trusted
    vector = initial(np.random.default_rng(0))
    (gradient,) = gradients(vector, trusted.images[None], trusted.digits[None])
    judge = TrustedLoss(trusted)
    direction = np.random.default_rng(1).normal(0.0, 1.0, PARAMETERS).astype(np.float32)
    step = np.float32(2e-4)
    above, below = (judge.loss(model_of("x", vector + sign * direction)) for sign in (step, -step))
    assert (above - below) / (2 * step) == pytest.approx(float(gradient @ direction), rel=2e-2)


def test_a_run_through_the_product_learns_and_repeats_itself() -> None:
    (auto,) = (item for item in CONTENDERS if item.title == "auto")
    first, again = (run(auto, "none", seed=0, rounds=30) for _ in range(2))
    assert first == again
    assert first.accuracy > 0.5
    assert len(first.picks) == 30


def test_impossible_rules_are_refused_in_the_products_words() -> None:
    refusals = {item.title: item.refusal() for item in CONTENDERS}
    assert "16 < 23" in refusals["bulyan"]
    assert {name for name, why in refusals.items() if why} == {"bulyan", "bucketing(trimmedMean)"}
