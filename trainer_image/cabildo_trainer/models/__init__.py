"""Architectures by the name that the spec gives them.

Here: the registry: one line a model, imported when it is asked for. Never here: training. Next:
`forecaster.py`, the LightningModule around every network here. To add a model: a file in this
folder, a line below, its member in the API, its row in the contract test.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from cabildo_trainer.errors import BadSpecError

if TYPE_CHECKING:
    from torch import nn

    from cabildo_api.learning import Model

REGISTRY: Final = {
    "lstmAttention": "cabildo_trainer.models.lstm_attention",
    "gru": "cabildo_trainer.models.gru",
}
"""Module of each member of the API's `model`; it has `build(options, *, features)`."""


def build(model: Model, *, features: int) -> nn.Module:
    """Returns a network from inputs [B, T, F] to one number a window, [B].

    Args:
        model: The spec's `model`.
        features: Numbers per row, F.

    Raises:
        BadSpecError: This image does not know the model.
    """
    module = REGISTRY.get(model.member)
    if module is None:
        raise BadSpecError(
            f"model.{model.member} is not in this trainer image: it has {', '.join(REGISTRY)}"
        )
    network: nn.Module = importlib.import_module(module).build(model.choice, features=features)
    return network
