"""Quantities have the value that Kubernetes gives them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cabildo_api.quantities import quantity_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (2, "2"),
        ("2", "2"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("+1", "1"),
        ("500m", "0.5"),
        ("250u", "0.00025"),
        ("3n", "0.000000003"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("2E", "2000000000000000000"),
        ("1Ei", "1152921504606846976"),
        ("12e3", "12000"),
        ("12E-1", "1.2"),
    ],
)
def test_a_quantity_has_an_exact_value(text: int | str, value: str) -> None:
    assert quantity_value(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "one", "1gig", "1 Gi", "Gi", "1mi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity_value(text)
