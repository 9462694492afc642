"""The noise: the exact distribution, from a keyed stream, whatever chunks are drawn."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import mpmath
import numpy as np
import pytest
from scipy import stats

from cabildo_trainer.consensus.privacy import exact_thresholds as exact
from cabildo_trainer.consensus.privacy.discrete_gaussian import (
    BLOCK,
    SCALE,
    NoiseStream,
    _words,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = hashlib.sha256(b"a fixed key").digest()
WORD = 2**64
ENOUGH = 1e-4
"""A p-value below it would be chance once in 10^4 keys; these keys are fixed."""


def words_of(value: mpmath.mpf, *, count: int) -> list[int]:
    """The first words of a number in [0, 1)."""
    bits = int(mpmath.floor(value * mpmath.mpf(2) ** (64 * count)))
    return [bits >> (64 * (count - 1 - index)) & (WORD - 1) for index in range(count)]


def source(words: list[int]) -> Callable[[int], int]:
    return lambda index: words[index]


@pytest.mark.parametrize(
    ("numerator", "shift"),
    [(0, 0), (1, 1), (1, 49), (12_345, 10), (5, 0), (3, 1), (625, 1), (2**52, 49), (700, 0)],
)
@pytest.mark.parametrize("bits", [64, 200, 1000])
def test_bounds_of_exp_enclose_it_tightly(numerator: int, shift: int, bits: int) -> None:
    low, high = exact.exp_bounds(numerator, shift=shift, bits=bits)
    with mpmath.workdps(800):
        truth = mpmath.exp(-mpmath.mpf(numerator) / 2**shift) * mpmath.mpf(2) ** bits
        assert low <= truth <= high
    assert high - low <= 3


@pytest.mark.parametrize("level", [1, 2, 5, 9, 12])
def test_bounds_of_levels_enclose_the_share_below_them(level: int) -> None:
    low, high = exact.level_bounds(level, bits=128)
    with mpmath.workdps(60):
        weights = [mpmath.exp(-mpmath.mpf(k * k) / 2) for k in range(30)]
        truth = mpmath.fsum(weights[:level]) / mpmath.fsum(weights) * mpmath.mpf(2) ** 128
        assert low <= truth <= high
    assert high - low <= 3


@pytest.mark.parametrize("distance", [-1, 1])
@pytest.mark.parametrize("words", [1, 2, 5])
def test_a_number_beside_a_probability_is_decided_by_its_last_word(
    words: int, distance: int
) -> None:
    numerator, shift = 12_345_678, 24
    with mpmath.workdps(400):
        truth = mpmath.exp(-mpmath.mpf(numerator) / 2**shift)
        first, *rest = words_of(truth + distance * mpmath.mpf(2) ** (1 - 64 * words), count=8)
    below = exact.is_below_exp(first, source(rest), numerator=numerator, shift=shift)
    assert below == (distance < 0)


@pytest.mark.parametrize("distance", [-1, 1])
@pytest.mark.parametrize("level", [1, 3, 12])
def test_a_number_beside_a_threshold_gets_the_level_of_its_side(level: int, distance: int) -> None:
    with mpmath.workdps(200):
        weights = [mpmath.exp(-mpmath.mpf(k * k) / 2) for k in range(60)]
        share = mpmath.fsum(weights[:level]) / mpmath.fsum(weights)
        first, *rest = words_of(share + distance * mpmath.mpf(2) ** -150, count=8)
    assert exact.level_of(first, source(rest)) == (level if distance > 0 else level - 1)


def test_bits_that_repeat_a_probability_forever_are_no_random_bits() -> None:
    bits = 64 * (exact.MOST_WORDS + 2)
    low, _ = exact.exp_bounds(1, shift=1, bits=bits)
    words = [low >> (bits - 64 * (index + 1)) & (WORD - 1) for index in range(exact.MOST_WORDS + 1)]
    with pytest.raises(exact.BrokenSourceError):
        exact.is_below_exp(words[0], source(words[1:]), numerator=1, shift=1)


@pytest.mark.parametrize("scale_bits", [0, 1, 3, 5])
def test_small_scales_have_the_exact_distribution_value_by_value(scale_bits: int) -> None:
    scale, count = 2**scale_bits, 400_000
    values = NoiseStream(KEY, scale_bits=scale_bits).draw(0, count)
    span = np.arange(-12 * scale, 12 * scale + 1)
    weights = np.exp(-(span.astype(np.float64) ** 2) / (2.0 * scale**2))
    expected = weights / weights.sum() * count
    found = np.bincount(values - span[0], minlength=len(span)).astype(np.float64)
    common = expected >= 5.0
    observed = np.append(found[common], found[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    assert stats.chisquare(observed, wanted).pvalue > ENOUGH


def test_the_scale_in_use_has_the_exact_distribution_in_256_bins() -> None:
    count, bins = 2_000_000, 256
    values = NoiseStream(KEY).draw(0, count)
    edges = np.floor(stats.norm.ppf(np.arange(1, bins) / bins) * SCALE)
    # P(X <= k) = Phi((k + 1/2) / s), up to 1e-16 at this scale.
    shares = np.diff(np.concatenate(([0.0], stats.norm.cdf((edges + 0.5) / SCALE), [1.0])))
    found = np.bincount(np.searchsorted(edges, values, side="left"), minlength=bins)
    assert stats.chisquare(found, shares * count).pvalue > ENOUGH


def test_moments_are_those_of_the_formula() -> None:
    count = 2_000_000
    values = NoiseStream(KEY).draw(0, count).astype(np.float64) / SCALE
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)):
        spread = math.sqrt(math.prod(range(1, 2 * power, 2)) - moment**2)
        assert abs(np.mean(values**power) - moment) < 4.5 * spread / math.sqrt(count), power


def test_low_bits_are_uniform_so_no_rounding_is_left_in_them() -> None:
    values = NoiseStream(KEY).draw(0, 1_000_000)
    assert stats.chisquare(np.bincount(values & 255, minlength=256)).pvalue > ENOUGH


def test_integers_decide_every_case_as_fp64_does() -> None:
    quick, slow = NoiseStream(KEY), NoiseStream(KEY, doubt=2.0)
    assert np.array_equal(quick.draw(0, 3000), slow.draw(0, 3000))


def test_a_doubtful_level_is_decided_by_further_bits() -> None:
    stream = NoiseStream(KEY)
    thresholds = exact.level_thresholds()
    words = np.asarray(thresholds, dtype=np.uint64)
    levels = stream._levels(words, block=0, first=0)
    assert all(level in {k, k + 1} for k, level in enumerate(levels[:-1].tolist()))
    assert set(levels[:-1] - np.arange(len(words) - 1)) == {0, 1}, "both sides happen"


def test_further_bits_of_a_decision_are_used_nowhere_else() -> None:
    stream = NoiseStream(KEY)
    used = _words(stream._stream(0, purpose=0), 100_000).ravel().tolist()
    further = [
        stream._further(block, candidate=candidate, decision=decision)(0)
        for block in range(3)
        for candidate in range(50)
        for decision in range(2)
    ]
    assert len({*further, *used}) == len(further) + len(used)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (BLOCK - 3, BLOCK + 3), (5, 3 * BLOCK + 1), (2 * BLOCK, 3 * BLOCK)]
)
def test_any_piece_is_the_piece_of_the_whole(start: int, stop: int) -> None:
    whole = NoiseStream(KEY).draw(0, 4 * BLOCK)
    assert np.array_equal(NoiseStream(KEY).draw(start, stop), whole[start:stop])


def test_the_same_key_gives_the_same_noise_on_every_machine() -> None:
    values = NoiseStream(KEY).draw(0, 100_000)
    assert values[:4].tolist() == GOLDEN
    assert hashlib.sha256(values.astype("<i8").tobytes()).hexdigest() == GOLDEN_DIGEST


def test_keys_and_blocks_share_nothing() -> None:
    one = NoiseStream(KEY).draw(0, 4 * BLOCK)
    other = NoiseStream(hashlib.sha256(KEY).digest()).draw(0, 4 * BLOCK)
    blocks = one.reshape(4, BLOCK)
    for left, right in ((one, other), (blocks[0], blocks[1]), (blocks[1:].ravel(), one[:-BLOCK])):
        assert abs(np.corrcoef(left, right)[0, 1]) < 5.0 / math.sqrt(len(left))
        assert np.count_nonzero(left == right) <= 2


def test_nothing_is_drawn_for_an_empty_piece() -> None:
    assert NoiseStream(KEY).draw(7, 7).size == 0


def test_the_key_is_not_shown() -> None:
    assert KEY.hex() not in repr(NoiseStream(KEY))
    assert repr(KEY) not in repr(NoiseStream(KEY))


@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_a_rounded_gaussian_is_as_close_as_the_accounting_says(scale: int) -> None:
    """Total variation to round(N(0, s^2 - 1/12)) is below 5.2e-4 / s^4 (and shrinks with it)."""
    with mpmath.workdps(40):
        span = range(-14 * scale, 14 * scale + 1)
        weights = [mpmath.exp(-mpmath.mpf(k * k) / (2 * scale**2)) for k in span]
        total = mpmath.fsum(weights)
        narrow = mpmath.sqrt(mpmath.mpf(scale) ** 2 - mpmath.mpf(1) / 12)
        half = mpmath.mpf(1) / 2
        variation = half * mpmath.fsum(
            abs(w / total - (mpmath.ncdf((k + half) / narrow) - mpmath.ncdf((k - half) / narrow)))
            for k, w in zip(span, weights, strict=True)
        )
        assert variation * scale**4 < 5.2e-4


GOLDEN = [25823259, 22256260, -13299499, 8950043]
GOLDEN_DIGEST = "bddb31e6e5842c5587206a4c5622d624621e4d8fb00e4a6b6f49f97b7628f6ea"
