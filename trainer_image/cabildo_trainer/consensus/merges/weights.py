"""Weights by participant key: checked, put in the order of rows, never normalised unasked.

Here: reading a rule's `weights` parameter, and the convex ones. Never here: example counts that
participants report about themselves. Next: the merges.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.ordered import ordered_sum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SLACK: Final = 1e-9
"""How far the sum of convex weights may be from 1: decimal fractions are not exact."""


def row_weights(
    weights: Mapping[str, float], *, keys: Sequence[str], default: float = 1.0
) -> tuple[float, ...]:
    """Returns the weight of every row, as given; `default` for all where no weights are given.

    Raises:
        ImpossibleSetting: A key has no weight, a weight has no participant or is not finite.
    """
    if not weights:
        return (default,) * len(keys)
    missing = [key for key in keys if key not in weights]
    if missing:
        raise ImpossibleSetting(
            f"weights: none for {', '.join(missing)}",
            remedy="give every participant a weight (0 leaves it out), or give no weights",
        )
    wild = [key for key in keys if not math.isfinite(weights[key])]
    if wild:
        raise ImpossibleSetting(f"weights: that of {', '.join(wild)} is not finite")
    return tuple(float(weights[key]) for key in keys)


def convex_weights(
    weights: Mapping[str, float], *, keys: Sequence[str], normalize: bool
) -> tuple[float, ...]:
    """Returns weights >= 0 with sum 1; equal ones where none are given.

    Raises:
        ImpossibleSetting: A weight is below zero, or the sum is not 1 and `normalize` was not asked
            for.
    """
    given = row_weights(weights, keys=keys, default=1.0 / len(keys))
    total = ordered_sum(given)
    if min(given) < 0.0 or not total > 0.0:
        raise ImpossibleSetting(
            f"weights: none may be below zero, and one must be above: {given}",
            remedy="leave the participant out instead of weighing it below zero",
        )
    if normalize:
        return tuple(weight / total for weight in given)
    if abs(total - 1.0) > SLACK:
        raise ImpossibleSetting(
            f"weights: their sum is {total!r}, not 1, and nothing is normalised unasked",
            remedy="divide the weights by their sum, or set normalize: true",
        )
    return given
