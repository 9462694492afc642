"""Prepared rows as an ordinary LightningDataModule of windows.

Here: datasets whose tensors stay resident and are read a batch at a time through a strided view, so
that windows are never materialised. Never here: the order of batches; the engine decides it from
(seed, epoch, step, rank). Next: `engine/data_order.py`.

Shapes: B windows in a batch, T rows in a window, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from cabildo_trainer.data.prepared import Prepared, Rows

Batch = tuple[Tensor, Tensor]
"""Inputs [B, T, F] and scaled targets [B]."""


class WindowDataset(Dataset[Batch]):
    """The forecasts of one split."""

    def __init__(self, prepared: Prepared, *, rows: Rows) -> None:
        inputs = torch.as_tensor(prepared.inputs, dtype=torch.float32)
        # [rows - T + 1, F, T] -> [rows - T + 1, T, F], a view of [rows, F]
        self._windows = inputs.unfold(0, prepared.length, 1).transpose(1, 2)
        self._targets = torch.as_tensor(prepared.scaled_target, dtype=torch.float32)
        self._rows = torch.as_tensor(rows)
        self._offset = prepared.horizon + prepared.length - 1

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: list[int]) -> Batch:
        """Returns a batch in one indexing operation."""
        rows = self._rows[indices]
        return self._windows[rows - self._offset], self._targets[rows]


def as_it_is(batch: Any) -> Any:
    """Collates nothing: `WindowDataset` reads whole batches."""
    return batch


class WindowDataModule(LightningDataModule):
    """Train, validation and test windows of a run."""

    def __init__(self, prepared: Prepared, *, batch_size: int) -> None:
        super().__init__()
        self._prepared = prepared
        self._batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns the train windows; the engine replaces the order."""
        return self._loader(self._prepared.rows.train)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Returns the validation windows in time."""
        return self._loader(self._prepared.rows.validation)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Returns the test windows in time."""
        return self._loader(self._prepared.rows.test)

    def _loader(self, rows: Rows) -> DataLoader[Batch]:
        dataset = WindowDataset(self._prepared, rows=rows)
        return DataLoader(dataset, batch_size=self._batch_size, collate_fn=as_it_is)
