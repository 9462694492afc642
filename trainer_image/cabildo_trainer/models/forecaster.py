"""The LightningModule around every network: squared error, AdamW, a schedule.

Here: what the engine calls (`training_step`, `validation_step`, `configure_optimizers`), as any
LightningModule has it. Never here: ranks, files, signals; the engine knows those. Next:
`engine/loop.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from cabildo_api.learning import Optimizer, Schedule
    from cabildo_trainer.data.windows import Batch


class Forecaster(LightningModule):
    """Trains a network to forecast a scaled target by least squares."""

    def __init__(
        self, network: nn.Module, *, optimizer: Optimizer, schedule: Schedule, total_steps: int
    ) -> None:
        super().__init__()
        self.network = network
        self._optimizer = optimizer
        self._factor = schedule_factor(schedule, total_steps=total_steps)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns forecasts: [B, T, F] -> [B]."""
        forecast: Tensor = self.network(inputs)
        return forecast

    def training_step(self, batch: Batch, _batch_index: int) -> Tensor:
        """Returns the mean squared error of a batch."""
        inputs, targets = batch
        return functional.mse_loss(self(inputs), targets)

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        """Logs `val_loss`, the mean squared error in scaled units."""
        inputs, targets = batch
        loss = functional.mse_loss(self(inputs), targets)
        self.log("val_loss", loss, batch_size=len(targets))

    def predict_step(self, batch: Batch, _batch_index: int = 0) -> Tensor:
        """Returns the scaled forecasts of a batch, [B]."""
        forecast: Tensor = self(batch[0])
        return forecast

    def configure_optimizers(self) -> Any:
        """Returns the optimiser and its schedule, a function of the step alone."""
        assert self._optimizer.adam_w is not None
        options = self._optimizer.adam_w
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def schedule_factor(schedule: Schedule, *, total_steps: int) -> Callable[[int], float]:
    """Returns the function from a step to the factor of the learning rate."""
    if schedule.cosine is None:
        return lambda _step: 1.0
    warmup = int(total_steps * schedule.cosine.warmup_fraction)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, total_steps - warmup)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    return factor
