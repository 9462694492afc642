"""How good forecasts are on the test rows, and the table that says so.

Here: mean squared error and two kinds of R2, the same for the network and every baseline. Never
here: forecasting. Next: `record.py` carries the values, `app.py` prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cabildo_trainer.data.prepared import Prepared
    from cabildo_trainer.data.series import Numbers


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of forecasts.

    Attributes:
        r2: 1 - MSE / mean squared distance of the test rows from the train mean, which is what was
            known.
        r2_against_test_mean: 1 - MSE / variance of the test rows: the stricter textbook value.
        mse: Mean squared error, in the target's unit squared.
    """

    r2: float
    r2_against_test_mean: float
    mse: float

    def by_name(self) -> dict[str, float]:
        """Returns the values by the names that results carry."""
        return {
            "r2": self.r2,
            "r2_against_test_mean": self.r2_against_test_mean,
            "mse": self.mse,
        }


def score(forecast: Numbers, *, prepared: Prepared) -> Scores:
    """Returns the scores of forecasts of the test rows, in the target's unit."""
    target = prepared.target[prepared.rows.test]
    mse = float(np.mean((target - forecast) ** 2))
    from_train_mean = float(np.mean((target - prepared.target_mean) ** 2))
    return Scores(
        r2=1 - mse / from_train_mean,
        r2_against_test_mean=1 - mse / float(np.var(target)),
        mse=mse,
    )


def table(scores: Mapping[str, Scores], *, prepared: Prepared) -> str:
    """Returns the result table as text, the network first."""
    first, last = prepared.rows.test[0], prepared.rows.test[-1]
    period = f"{prepared.dates[first]:%Y-%m-%d} to {prepared.dates[last]:%Y-%m-%d}"
    lines = [
        f"{len(prepared.rows.test)} test rows, {period}",
        f"{'forecast':<22}{'R2':>8}{'R2 (test mean)':>16}{'MSE':>10}",
    ]
    lines += [
        f"{name:<22}{item.r2:>8.4f}{item.r2_against_test_mean:>16.4f}{item.mse:>10.4f}"
        for name, item in scores.items()
    ]
    return "\n".join(lines)
