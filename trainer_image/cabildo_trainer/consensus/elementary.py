"""Elementary functions in plain IEEE fp64, so that every machine computes the same weights.

Here: `exp`, `log`, `sin`, `cos`, `acos` and `softmax` of Python floats from + - * / and the
correctly rounded square root alone; libm's versions differ between builds. Each states its largest
error, which the unit tests measure against 60-digit arithmetic. Never here: arrays of a model's
size. Next: `merges/` (mirror descent, angles, learned soups).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Constants split so that k * _HIGH is exact for the k that occur: reduction loses nothing.
_LN2_HIGH: Final = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
_HALF_PI_HIGH: Final = float.fromhex("0x1.921fb54400000p+0")
_HALF_PI_MIDDLE: Final = float.fromhex("0x1.0b4611a600000p-34")
_HALF_PI_LOW: Final = float.fromhex("0x1.3198a2e037073p-69")
_HALF_PI: Final = float.fromhex("0x1.921fb54442d18p+0")
_HALF_PI_REST: Final = float.fromhex("0x1.1a62633145c07p-54")

PI: Final = 2.0 * _HALF_PI
_LN2: Final = _LN2_HIGH + _LN2_LOW
_HALF: Final = 0.5
_SQRT_HALF: Final = math.sqrt(0.5)
_LARGEST_ANGLE: Final = 1.0e5
_SMALLEST_EXPONENT: Final = -745.2
_LARGEST_EXPONENT: Final = 709.78


def _factorial_series(first: int, count: int) -> tuple[float, ...]:
    """Returns 1/first!, -1/(first + 2)!, ..., each correctly rounded."""
    return tuple(float(Fraction((-1) ** k, math.factorial(first + 2 * k))) for k in range(count))


_EXP: Final = tuple(float(Fraction(1, math.factorial(k))) for k in range(2, 16))
_SIN: Final = _factorial_series(3, 8)  # of x - sin x over x^3
_COS: Final = _factorial_series(4, 8)  # of cos x - 1 + x^2/2 over x^4
_LOG: Final = tuple(float(Fraction(2, 2 * k + 1)) for k in range(1, 12))
_ASIN: Final = tuple(
    float(Fraction(math.factorial(2 * k), 4**k * math.factorial(k) ** 2 * (2 * k + 1)))
    for k in range(1, 28)
)


def _horner(coefficients: Sequence[float], x: float) -> float:
    """Returns c0 + c1 x + c2 x^2 + ..., from the highest term down."""
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def exp(x: float) -> float:
    """Returns e to the x with an error below 0.85 units in the last place.

    Raises:
        OverflowError: The result is beyond fp64.
    """
    if math.isnan(x):
        return x
    if x > _LARGEST_EXPONENT:
        raise OverflowError(f"exp({x!r}) is beyond fp64")
    if x < _SMALLEST_EXPONENT:
        return 0.0
    power = math.floor(x / _LN2 + 0.5)
    high = x - power * _LN2_HIGH
    low = power * _LN2_LOW
    rest = high - low
    lost = (high - rest) - low
    # rest + lost is the reduced argument to twice the precision.
    value = rest + (rest * rest * _horner(_EXP, rest) + lost * (1.0 + rest))
    return math.ldexp(1.0 + value, power)


def log(x: float) -> float:
    """Returns the natural logarithm of x > 0 with an error below 0.85 units in the last place.

    Raises:
        ValueError: x is not a positive finite number.
    """
    if not 0.0 < x < math.inf:
        raise ValueError(f"log({x!r}): a positive finite number is needed")
    mantissa, power = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa, power = mantissa * 2.0, power - 1
    # log m = 2 atanh(s) with s = (m - 1) / (m + 1); written as f - s (f - r) so that f leads.
    f = mantissa - 1.0
    s = f / (2.0 + f)
    square = s * s
    tail = square * _horner(_LOG, square)
    half_square = 0.5 * f * f
    # 2 s = f - f s; the sum below keeps the largest term exact until the last addition.
    small = s * (half_square + tail) + power * _LN2_LOW
    return power * _LN2_HIGH - ((half_square - small) - f)


def _reduced(x: float) -> tuple[int, float, float]:
    """Returns the quadrant of x and the rest in [-pi/4, pi/4] as a sum of two floats."""
    if not abs(x) <= _LARGEST_ANGLE:
        raise ValueError(f"angle {x!r}: at most {_LARGEST_ANGLE:g} radians")
    quadrant = math.floor(x / _HALF_PI + 0.5)
    first = x - quadrant * _HALF_PI_HIGH
    middle = quadrant * _HALF_PI_MIDDLE
    second = first - middle
    low = ((first - second) - middle) - quadrant * _HALF_PI_LOW
    rest = second + low
    return quadrant % 4, rest, (second - rest) + low


def _sin_of_rest(rest: float, low: float) -> float:
    square = rest * rest
    return rest + (low - rest * square * _horner(_SIN, square) - 0.5 * square * low)


def _cos_of_rest(rest: float, low: float) -> float:
    square = rest * rest
    half = 0.5 * square
    leading = 1.0 - half
    return leading + (
        ((1.0 - leading) - half) + (square * square * _horner(_COS, square) - rest * low)
    )


def sin(x: float) -> float:
    """Returns the sine of x, |x| <= 1e5, with an error below 0.85 units in the last place.

    Near large multiples of pi/2 the error is 1e-21 absolute at most, where that is more.
    """
    quadrant, rest, low = _reduced(x)
    value = _cos_of_rest(rest, low) if quadrant % 2 else _sin_of_rest(rest, low)
    return -value if quadrant >= 2 else value  # noqa: PLR2004 - the lower half plane


def cos(x: float) -> float:
    """Returns the cosine of x, |x| <= 1e5; error as of `sin`."""
    quadrant, rest, low = _reduced(x)
    value = _sin_of_rest(rest, low) if quadrant % 2 else _cos_of_rest(rest, low)
    return -value if quadrant in {1, 2} else value


def _asin_tail(square: float) -> float:
    """Returns (asin x - x) / x for x^2 = square <= 1/4."""
    return square * _horner(_ASIN, square)


def acos(x: float) -> float:
    """Returns the angle in [0, pi] with cosine x, with an error below 0.85 units in the last place.

    Raises:
        ValueError: x is outside [-1, 1].
    """
    if not -1.0 <= x <= 1.0:
        raise ValueError(f"acos({x!r}): a number in [-1, 1] is needed")
    if abs(x) <= _HALF:
        return _HALF_PI - (x - (_HALF_PI_REST - x * _asin_tail(x * x)))
    # acos(x) = 2 asin(sqrt((1 - x) / 2)); 1 - |x| is exact here.
    square = 0.5 * (1.0 - abs(x))
    root = math.sqrt(square)
    # The root's own rounding error, found from the exact residue of its square.
    high = _upper_half(root)
    lost = ((square - high * high) - (root - high) * (root + high)) / (2.0 * root) if root else 0.0
    if x > 0.0:
        return 2.0 * (root + (root * _asin_tail(square) + lost))
    return 2.0 * (_HALF_PI - (root - (_HALF_PI_REST - (root * _asin_tail(square) + lost))))


def _upper_half(x: float) -> float:
    """Returns the leading 26 bits of x: their square is exact."""
    scaled = x * 134_217_729.0  # 2^27 + 1: Dekker's splitting
    return scaled - (scaled - x)


def softmax(values: Sequence[float]) -> tuple[float, ...]:
    """Returns exp(v_i) / sum exp(v_j), shifted by the largest so that nothing overflows."""
    top = max(values)
    powers = [exp(value - top) for value in values]
    total = 0.0
    for power in powers:
        total += power
    return tuple(power / total for power in powers)
