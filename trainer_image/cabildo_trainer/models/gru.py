"""GRU layers; the last output of the window goes into a linear head.

Here: `gru`. Never here: loss and optimiser. Next: `forecaster.py`.

Shapes: B windows, T rows, F features, H hidden units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from cabildo_api.learning import Gru


class GruNetwork(nn.Module):
    """Stacked GRU layers and a linear head."""

    def __init__(self, *, features: int, hidden_size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(
            features,
            hidden_size,
            num_layers=layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns one number a window: [B, T, F] -> [B]."""
        outputs, _ = self.gru(inputs)  # [B, T, H]
        forecast: Tensor = self.head(self.dropout(outputs[:, -1])).squeeze(-1)
        return forecast


def build(options: Gru, *, features: int) -> nn.Module:
    """Returns the network that the spec describes."""
    return GruNetwork(
        features=features,
        hidden_size=options.hidden_size,
        layers=options.layers,
        dropout=options.dropout,
    )
