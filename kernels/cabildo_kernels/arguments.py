"""Arguments that several kernels take: whole numbers, numbers, arrays of them.

Here: refusing what only one path would have cut, read as something else or failed on, in the same
words on all of them. Never here: what a number must lie between; each kernel says that itself.
"""

from __future__ import annotations

import math
import operator
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_kernels.errors import InvalidInput
from cabildo_kernels.fallback.floating_point import default_environment

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LARGEST_WEIGHT: Final = 1e200
"""Weights up to this size cannot overflow a sum of 64 products with float32 values."""


_REAL_KINDS: Final = "biufO"
"""Booleans, integers, floats, and objects that `float` takes, as fractions."""


def whole_number(name: str, value: Any) -> int:
    """Return an int, or NumPy's, as int: Cython would cut 1.9 to 1.

    Raises:
        InvalidInput: It is no whole number by type; 2.0 is none either.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidInput(f"{name}={value!r}: a whole number (int) is needed") from None


def finite_number(name: str, value: Any, *, most: float = math.inf) -> float:
    """Return a number as float.

    Raises:
        InvalidInput: It is none, NaN, infinite, or larger than `most` in size.
    """
    try:
        number = value if type(value) is float else _as_float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{name}={value!r}: a finite number is needed") from None
    if not math.isfinite(number):
        raise InvalidInput(f"{name}={number}: a finite number is needed")
    if abs(number) > most:
        raise InvalidInput(f"{name}={number}: at most {most:g} in size is taken")
    return number


def _as_float(value: Any) -> float:
    if type(value) is int:
        return float(value)
    with default_environment():  # of float32: a denormal stays what it is
        return float(value)


def is_zero(number: float) -> bool:
    """Return whether it is +0 or -0; where denormals are flushed, `== 0` says so of them too."""
    return struct.pack("<d", abs(number)) == bytes(8)


def refuse_no_array(name: str, array: Any) -> None:
    """Take NumPy arrays only, and none with a mask: the values below it would count.

    Raises:
        InvalidInput: Naming what was given.
    """
    if type(array) is np.ndarray:
        return
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidInput(f"{name}: a masked array; fill or drop what is masked (`.filled()`)")
    if not isinstance(array, np.ndarray):
        kind = type(array).__qualname__
        raise InvalidInput(f"{name}: {kind}; NumPy arrays are needed (of a tensor: .numpy())")


def real_numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return an array, or what NumPy makes one of, as float64.

    Raises:
        InvalidInput: It holds no numbers, or complex ones, whose imaginary part would be lost, or
            it has a mask.
    """
    if isinstance(values, np.ndarray):
        refuse_no_array(name, values)
    try:
        given = np.asarray(values)
        if given.dtype.kind in _REAL_KINDS:
            if given.dtype == np.float64:
                return given
            with default_environment():
                return given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{name}: {error}; real numbers are needed") from error
    raise InvalidInput(f"{name}: {given.dtype}; real numbers are needed")
