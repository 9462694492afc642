"""Canonical JSON as RFC 8785 defines it: equal values have equal bytes, so they have one digest.

Here: writing it, and strict reading of JSON that others wrote (no duplicate names, no NaN). Never
here: what the JSON means. Next: `manifest.py` writes with it, `safetensors_header.py` reads.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, Final

LARGEST_INTEGER: Final = 2**53 - 1
"""Beyond it a JSON number is not the same for every reader (RFC 7493, section 2.2)."""

_POINT_AFTER_AT_MOST: Final = 21
_ZEROS_AT_MOST: Final = 6


class BadJsonError(ValueError):
    """The text is not JSON that has one meaning, or the value has no canonical JSON."""


def canonical_json(value: Any) -> bytes:
    """Returns a value as canonical JSON.

    Args:
        value: None, booleans, numbers, strings, lists, tuples and dictionaries of these.

    Raises:
        BadJsonError: A number is not finite or not exact as a double, a string is no Unicode.
    """
    try:
        return _text(value).encode()
    except UnicodeEncodeError as error:
        raise BadJsonError(f"a string holds half a surrogate pair: {error.object!a}") from error


def is_unicode(text: str) -> bool:
    """Returns whether a text is Unicode, and not half a surrogate pair, which JSON can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_strict(text: bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
        BadJsonError: It is not UTF-8 or not JSON, an object names a member twice, a number is not
            finite, or it is nested too deep.
    """
    try:
        return json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise BadJsonError("nested too deep") from error
    except BadJsonError:
        raise
    except ValueError as error:
        raise BadJsonError(str(error)) from error


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(members)
    if len(result) != len(members):
        raise BadJsonError(f"{_first_repeated(members)!r} is there twice")
    return result


def _first_repeated(members: list[tuple[str, Any]]) -> str:
    # Counted once for all: whoever wrote the text chose how many names there are.
    times = Counter(name for name, _ in members)
    return next(name for name, _ in members if times[name] > 1)


def _refuse_constant(constant: str) -> Any:
    raise BadJsonError(f"{constant} is no JSON number")


def _text(value: Any) -> str:
    match value:
        case None | bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return _integer(value)
        case float():
            return _number(value)
        case list() | tuple():
            return "[" + ",".join(_text(item) for item in value) + "]"
        case dict():
            # By UTF-16 code units, as JavaScript compares strings.
            names = sorted(value, key=lambda name: name.encode("utf-16-be"))
            return "{" + ",".join(f"{_text(name)}:{_text(value[name])}" for name in names) + "}"
    raise BadJsonError(f"a {type(value).__name__} has no JSON")


def _integer(value: int) -> str:
    if abs(value) > LARGEST_INTEGER:
        raise BadJsonError(f"{value} is not exact as a double")
    return str(value)


def _number(value: float) -> str:
    """Returns a number as ECMAScript's Number::toString writes it."""
    if not math.isfinite(value):
        raise BadJsonError(f"{value} is no JSON number")
    if value == 0:
        return "0"
    if value < 0:
        return "-" + _number(-value)
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    # Python's repr has the same shortest digits; only the place of the point is written otherwise.
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= _POINT_AFTER_AT_MOST:
        return digits + "0" * (point - len(digits))
    if 0 < point <= _POINT_AFTER_AT_MOST:
        return f"{digits[:point]}.{digits[point:]}"
    if -_ZEROS_AT_MOST < point <= 0:
        return "0." + "0" * -point + digits
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{tail}e{point - 1:+d}"
