"""Tomorrow is as today: the last target seen is the forecast.

Here: `persistence`. Never here: anything fitted. Next: `har.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cabildo_trainer.data.prepared import Prepared
    from cabildo_trainer.data.series import Numbers


def forecast(prepared: Prepared, *, seed: int) -> Numbers | None:  # noqa: ARG001 - one form for all
    """Returns the target at the last row seen, for each test row."""
    return prepared.target[prepared.rows.test - prepared.horizon]
