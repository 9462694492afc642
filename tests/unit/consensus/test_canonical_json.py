"""Canonical JSON against the examples of RFC 8785."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabildo_trainer.consensus.manifests.canonical_json import (
    BadJsonError,
    canonical_json,
    parse_strict,
)

# RFC 8785, appendix B: the bits of a double and its text.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_are_written_as_in_the_rfc(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(value) == text.encode()


def test_the_rfcs_sample_has_the_rfcs_bytes() -> None:
    sample = r"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    # RFC 8785, section 3.2.4.
    expected = bytes.fromhex("""
        7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72 75 65 2c 66 61 6c 73 65 5d 2c
        22 6e 75 6d 62 65 72 73 22 3a 5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31
        65 2b 33 30 2c 34 2e 35 2c 30 2e 30 30 32 2c 31 65 2d 32 37 5d 2c 22 73 74 72 69 6e 67 22
        3a 22 e2 82 ac 24 5c 75 30 30 30 66 5c 6e 41 27 42 5c 22 5c 5c 5c 5c 5c 22 2f 22 7d
    """)
    assert canonical_json(parse_strict(sample.encode())) == expected


def test_names_are_sorted_by_utf_16_code_units() -> None:
    # RFC 8785, section 3.2.3: the emoji's surrogates come before the Hebrew letter's form.
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    values = dict.fromkeys(names, 0)
    assert list(json.loads(canonical_json(values))) == [
        "\r",
        "1",
        "\u0080",
        "\u00f6",
        "\u20ac",
        "\U0001f600",
        "\ufb33",
    ]


@given(JSON_VALUES)
def test_what_is_written_reads_back_and_writes_the_same(value: object) -> None:
    text = canonical_json(value)
    assert parse_strict(text) == value
    assert canonical_json(parse_strict(text)) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {"\udc00": 1}, b""])
def test_what_has_no_canonical_json_is_refused(value: object) -> None:
    with pytest.raises(BadJsonError):
        canonical_json(value)


@pytest.mark.parametrize(
    "text",
    [b'{"a": 1, "a": 2}', b"NaN", b"[1,]", b'"\xff"', b"[" * 100_000, b"-Infinity", b""],
    ids=["duplicate", "nan", "comma", "utf-8", "deep", "infinity", "empty"],
)
def test_json_with_two_meanings_or_none_is_refused(text: bytes) -> None:
    with pytest.raises(BadJsonError):
        parse_strict(text)


@pytest.mark.timeout(300)
def test_a_name_that_is_there_twice_is_found_among_many() -> None:
    names = ",".join(f'"{number}":0' for number in range(200_000))
    with pytest.raises(BadJsonError, match="'199999' is there twice"):
        parse_strict(f'{{{names},"199999":1}}'.encode())
