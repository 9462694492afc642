"""Kubernetes quantities: their bounds, and their value as an exact number.

Here: the annotated type and `quantity_value`. Never here: what a resource means. Next: `pods.py`
and `checkpoint.py`, which use them.
"""

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import Field, StrictInt, StringConstraints

QUANTITY: Final = (
    r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
QUANTITY_MAX_LENGTH: Final = 32

Quantity = Annotated[
    Annotated[StrictInt, Field(ge=0)]
    | Annotated[str, StringConstraints(pattern=QUANTITY, max_length=QUANTITY_MAX_LENGTH)],
    Field(union_mode="left_to_right"),
]
"""A Kubernetes quantity that is not negative: `2`, `500m`, `1Gi`."""

_PARTS: Final = re.compile(r"([+-]?[0-9.]+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?[0-9]+))?")
_BINARY: Final = "KMGTPE"
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def quantity_value(quantity: int | str) -> Decimal:
    """Returns a quantity in its base unit (cores, bytes), exactly.

    Source: k8s.io/apimachinery/pkg/api/resource, `Quantity`.

    Raises:
        ValueError: It is not a quantity.
    """
    match = _PARTS.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity, such as 2, 500m or 1Gi")
    number, binary, decimal, exponent = match.groups()
    value = Decimal(number)
    if binary:
        return value * Decimal(2 ** (10 * (_BINARY.index(binary[0]) + 1)))
    return value.scaleb(_DECIMAL[decimal] if decimal else int(exponent or 0))
