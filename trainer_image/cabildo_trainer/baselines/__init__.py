"""What a model has to beat: forecasts that need no network, on the same test rows.

Here: the registry, by the name that results carry. A baseline needs a history of its own and is
left out where the series is too short for it. Never here: scores. Next: `report/scores.py`. To add
one: a file with `forecast`, a line below.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cabildo_trainer.data.prepared import Prepared
    from cabildo_trainer.data.series import Numbers

REGISTRY: Final = {
    "persistence": "cabildo_trainer.baselines.persistence",
    "har": "cabildo_trainer.baselines.har",
    "gradientBoostedTree": "cabildo_trainer.baselines.tree",
}
"""Module of each baseline; it has `forecast(prepared, *, seed)`."""


def forecasts(prepared: Prepared, *, seed: int) -> dict[str, Numbers]:
    """Returns the forecasts of every baseline for the test rows, in the target's unit."""
    found: dict[str, Numbers] = {}
    for name, module in REGISTRY.items():
        forecast = importlib.import_module(module).forecast(prepared, seed=seed)
        if forecast is not None:
            found[name] = forecast
    return found
