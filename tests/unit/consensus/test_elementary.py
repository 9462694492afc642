"""Our elementary functions against 60-digit arithmetic, and where they refuse."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import mpmath
import pytest

from cabildo_trainer.consensus import elementary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STATED_ERROR = 0.85
"""Units in the last place, as the docstrings say."""


def worst_error(ours: Callable[[float], float], exact: str, points: Iterable[float]) -> float:
    reference = getattr(mpmath, exact)
    worst = 0.0
    with mpmath.workdps(60):
        for x in points:
            wanted = reference(mpmath.mpf(x))
            error = abs(mpmath.mpf(ours(x)) - wanted) / math.ulp(float(wanted))
            worst = max(worst, float(error))
    return worst


def between(low: float, high: float, count: int = 3000) -> list[float]:
    draw = random.Random(f"{low} {high}")
    return [draw.uniform(low, high) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("exp", [*between(-708, 709.7), *between(-1, 1), *between(-745, -708, 500), 0.0, -0.0]),
        ("log", [*between(1e-3, 3), *(1 + x for x in between(-1e-4, 1e-4)), 5e-324, 1.7e308]),
        (
            "log",
            [
                math.ldexp(x, round(y))
                for x, y in zip(between(1, 2), between(-1000, 1000), strict=True)
            ],
        ),
        ("sin", [*between(-4, 4), *between(-1e5, 1e5), 0.0, 1e-300]),
        ("cos", [*between(-4, 4), *between(-1e5, 1e5), 0.0]),
        ("acos", [*between(-1, 1), -1.0, 1.0, 0.0, 0.5, -0.5]),
        ("acos", [sign * (1 - 10**x) for sign in (1, -1) for x in between(-16, -1)]),
    ],
)
def test_the_error_stays_below_what_the_docstring_states(name: str, points: list[float]) -> None:
    assert worst_error(getattr(elementary, name), name, points) <= STATED_ERROR


def test_exact_values_are_exact() -> None:
    assert elementary.exp(0.0) == 1.0
    assert elementary.log(1.0) == 0.0
    assert elementary.sin(0.0) == 0.0
    assert elementary.cos(0.0) == 1.0
    assert elementary.acos(1.0) == 0.0
    assert elementary.acos(-1.0) == math.pi
    assert elementary.exp(-1e4) == 0.0
    assert math.isnan(elementary.exp(math.nan))


def test_what_has_no_value_is_refused() -> None:
    with pytest.raises(OverflowError):
        elementary.exp(710.0)
    for x in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="log"):
            elementary.log(x)
    for x in (1.0000001, -2.0, math.nan):
        with pytest.raises(ValueError, match="acos"):
            elementary.acos(x)
    for x in (1e6, math.inf, math.nan):
        with pytest.raises(ValueError, match="angle"):
            elementary.sin(x)


def test_softmax_is_a_point_of_the_simplex_and_never_overflows() -> None:
    shares = elementary.softmax((1e308, 1e308, -1e308))
    assert shares == (0.5, 0.5, 0.0)
    shares = elementary.softmax((0.1, -0.4, 2.0))
    wanted = [math.exp(x) for x in (0.1, -0.4, 2.0)]
    assert shares == pytest.approx([w / sum(wanted) for w in wanted], rel=1e-14)
