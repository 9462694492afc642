"""The heterogeneous autoregressive model: least squares on a day, a week and a month.

Here: `har`, Corsi (2009) as three regressors on the target itself: the last value seen and the
means of the last 5 and 22, with an intercept, fitted on the train rows. Never here: the network's
features. Next: `tree.py`, which sees the same regressors and more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from cabildo_trainer.data.prepared import Prepared, Rows
    from cabildo_trainer.data.series import Numbers

MEANS: Final = (1, 5, 22)
"""Rows that the regressors average over."""


def forecast(prepared: Prepared, *, seed: int) -> Numbers | None:  # noqa: ARG001 - one form for all
    """Returns the fitted forecasts for the test rows, or None without enough history."""
    train, test = train_rows(prepared), prepared.rows.test
    if len(train) <= len(MEANS) or test[0] < first_row(prepared):
        return None
    design = with_intercept(regressors(prepared, rows=train))
    weights = np.linalg.lstsq(design, prepared.target[train], rcond=None)[0]
    return np.asarray(with_intercept(regressors(prepared, rows=test)) @ weights)


def first_row(prepared: Prepared) -> int:
    """Returns the first target row that has the whole history behind it."""
    undefined = np.flatnonzero(~np.isfinite(prepared.target))
    start = int(undefined[-1]) + 1 if undefined.size else 0
    return start + max(MEANS) + prepared.horizon - 1


def train_rows(prepared: Prepared) -> Rows:
    """Returns the train rows that have the whole history behind them."""
    end = int(prepared.rows.train[-1]) + 1
    return np.arange(min(first_row(prepared), end), end)


def regressors(prepared: Prepared, *, rows: Rows) -> Numbers:
    """Returns the means of the target over the last rows seen: [rows, regressors]."""
    seen_to = rows - prepared.horizon + 1
    filled = np.where(np.isfinite(prepared.target), prepared.target, 0.0)
    running = np.concatenate([[0.0], np.cumsum(filled)])
    means = [(running[seen_to] - running[seen_to - length]) / length for length in MEANS]
    return np.stack(means, axis=1)


def with_intercept(values: Numbers) -> Numbers:
    """Returns the columns with a column of ones before them."""
    return np.column_stack([np.ones(len(values)), values])
