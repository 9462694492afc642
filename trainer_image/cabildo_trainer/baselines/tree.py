"""A gradient-boosted tree on the regressors of `har` and the features of the last row seen.

Here: `gradientBoostedTree`, scikit-learn's histogram booster with fixed settings, fitted on the
train rows. Never here: a search for better settings; a baseline is not tuned on what it is compared
on. Next: `report/scores.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from cabildo_trainer.baselines.har import MEANS, first_row, regressors, train_rows

if TYPE_CHECKING:
    from cabildo_trainer.data.prepared import Prepared, Rows
    from cabildo_trainer.data.series import Numbers


def forecast(prepared: Prepared, *, seed: int) -> Numbers | None:
    """Returns the fitted forecasts for the test rows, or None without enough history."""
    train, test = train_rows(prepared), prepared.rows.test
    if len(train) <= len(MEANS) or test[0] < first_row(prepared):
        return None
    model = HistGradientBoostingRegressor(
        max_iter=100, learning_rate=0.05, max_leaf_nodes=8, early_stopping=False,
        random_state=seed % 2**32,
    )  # fmt: skip
    model.fit(_columns(prepared, rows=train), prepared.target[train])
    return np.asarray(model.predict(_columns(prepared, rows=test)))


def _columns(prepared: Prepared, *, rows: Rows) -> Numbers:
    last_seen = prepared.inputs[rows - prepared.horizon]
    return np.column_stack([regressors(prepared, rows=rows), last_seen])
