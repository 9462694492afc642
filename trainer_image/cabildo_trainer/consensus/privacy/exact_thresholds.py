"""Exact comparisons of random bits with exp(-x): as many bits as it takes, and no more.

A random number V in [0, 1) is known by its first b bits; a probability p is known as an interval
of width about 2^-b. As soon as the two do not overlap, `V < p` is decided, and it is decided as
with infinitely many bits. So a sampler that asks here has no rounding error at all.

Here: integer arithmetic only. Never here: where bits come from, or NumPy. Next:
`discrete_gaussian.py`, which decides almost all cases in fp64 and asks here in the doubtful ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

WORD_BITS: Final = 64
GUARD_BITS: Final = 64
"""Extra bits of the series, far more than its few hundred units of rounding."""
MOST_WORDS: Final = 64
"""4096 equal bits in a row do not happen; a loop that gets there has a broken source of bits."""

Bounds = tuple[int, int]
MoreBits = Callable[[int], int]
"""Gives the i-th further word of 64 random bits."""


class BrokenSourceError(RuntimeError):
    """The source of bits repeats itself: it is not random."""


def exp_bounds(numerator: int, *, shift: int, bits: int) -> Bounds:
    """Returns integers (low, high) with low <= exp(-numerator / 2^shift) * 2^bits <= high.

    Args:
        numerator: Not below zero; numerator / 2^shift below 2^15.
        shift: The exponent's denominator is 2^shift.
        bits: Bits after the point.
    """
    whole, rest = divmod(numerator, 1 << shift)
    fraction = _series(rest, shift=shift, bits=bits)
    if not whole:
        return fraction
    # exp(-1) with as many bits more as its power loses.
    precision = bits + 2 * whole + 8
    low, high = _series(1, shift=0, bits=precision)
    for _ in range(whole):
        fraction = (
            fraction[0] * low >> precision,
            (fraction[1] * high >> precision) + 1,
        )
    return fraction


def _series(numerator: int, *, shift: int, bits: int) -> Bounds:
    """Bounds exp(-x) for 0 <= x <= 1 by its Taylor series."""
    precision = bits + GUARD_BITS
    term = total = 1 << precision
    index = 0
    while term:
        index += 1
        term = (term * numerator >> shift) // index
        total += -term if index % 2 else term
    # Each term is rounded down by less than 2 units, errors shrink from term to term: below
    # 4 * index units in all, and the terms that are left out are below one unit.
    slack = 4 * (index + 1)
    return (total - slack) >> GUARD_BITS, ((total + slack) >> GUARD_BITS) + 1


def level_bounds(level: int, *, bits: int) -> Bounds:
    """Bounds P(K < level) * 2^bits for P(K = k) proportional to exp(-k^2 / 2), k = 0, 1, 2, ...

    Args:
        level: At least 1.
        bits: Bits after the point.
    """
    precision = bits + WORD_BITS
    last = math.isqrt(2 * precision) + 8  # exp(-last^2 / 2) is far below 2^-precision
    weights = [exp_bounds(k * k, shift=1, bits=precision) for k in range(last + 1)]
    total_low = sum(low for low, _ in weights)
    total_high = sum(high for _, high in weights) + 2
    part_low = sum(low for low, _ in weights[:level])
    part_high = sum(high for _, high in weights[:level])
    return (part_low << bits) // total_high, -((-part_high << bits) // total_low)


def is_below_exp(word: int, more: MoreBits, *, numerator: int, shift: int) -> bool:
    """Decides V < exp(-numerator / 2^shift) for the number V whose bits begin with `word`."""
    value, bits = word, WORD_BITS
    for index in range(MOST_WORDS):
        low, high = exp_bounds(numerator, shift=shift, bits=bits)
        if value + 1 <= low:
            return True
        if value >= high:
            return False
        value, bits = value << WORD_BITS | more(index), bits + WORD_BITS
    raise BrokenSourceError("4096 random bits equal those of a probability")


def level_of(word: int, more: MoreBits) -> int:
    """Returns K with P(K = k) proportional to exp(-k^2 / 2), by inversion of V."""
    value, bits, level, used = word, WORD_BITS, 0, 0
    while used < MOST_WORDS:
        low, high = level_bounds(level + 1, bits=bits)
        if value + 1 <= low:
            return level
        if value >= high:
            level += 1
            continue
        value, bits, used = value << WORD_BITS | more(used), bits + WORD_BITS, used + 1
    raise BrokenSourceError("4096 random bits equal those of a probability")


def level_thresholds() -> tuple[int, ...]:
    """Returns the first 64 bits of P(K < k) for k = 1, 2, ... until they are all ones."""
    thresholds: list[int] = []
    while not thresholds or thresholds[-1] != (1 << WORD_BITS) - 1:
        low, high = level_bounds(len(thresholds) + 1, bits=2 * WORD_BITS)
        assert low >> WORD_BITS == high >> WORD_BITS
        thresholds.append(low >> WORD_BITS)
    return tuple(thresholds)
