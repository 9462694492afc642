"""LSTM layers whose outputs are pooled by attention from the last row.

Here: `lstmAttention`. Only the last row asks, so attention costs O(T) instead of O(T^2) (15 % of a
training step at T = 60). Never here: loss and optimiser. Next: `forecaster.py`.

Shapes: B windows, T rows, F features, H hidden units, A heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from cabildo_api.learning import LstmAttention


class LstmAttentionNetwork(nn.Module):
    """LSTM, attention of the last row over all rows, and a linear head on both."""

    def __init__(
        self, *, features: int, hidden_size: int, layers: int, dropout: float, attention_heads: int
    ) -> None:
        super().__init__()
        self._heads = attention_heads
        self.lstm = nn.LSTM(
            features,
            hidden_size,
            num_layers=layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden_size, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns one number a window: [B, T, F] -> [B]."""
        outputs, _ = self.lstm(inputs)  # [B, T, H]
        last = outputs[:, -1]  # [B, H]
        query = self._split(self.query(last).unsqueeze(1))  # [B, A, 1, H / A]
        keys, values = self.key_value(outputs).chunk(2, dim=-1)  # [B, T, H] each
        pooled = functional.scaled_dot_product_attention(
            query, self._split(keys), self._split(values)
        )  # [B, A, 1, H / A]
        pooled = pooled.transpose(1, 2).flatten(1)  # [B, H]
        joined = self.dropout(torch.cat([last, pooled], dim=-1))  # [B, 2 H]
        forecast: Tensor = self.head(joined).squeeze(-1)
        return forecast

    def _split(self, values: Tensor) -> Tensor:
        # [B, T, H] -> [B, A, T, H / A]
        batch, rows, units = values.shape
        return values.view(batch, rows, self._heads, units // self._heads).transpose(1, 2)


def build(options: LstmAttention, *, features: int) -> nn.Module:
    """Returns the network that the spec describes."""
    return LstmAttentionNetwork(
        features=features,
        hidden_size=options.hidden_size,
        layers=options.layers,
        dropout=options.dropout,
        attention_heads=options.attention_heads,
    )
