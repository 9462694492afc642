"""The validation pass: batches dealt out to ranks, means over all of them.

Here: one pass. It is given up when any rank is told to stop, between two batches, by all ranks at
the same batch. Never here: what follows from the values; that is `early_stopping.py`. Next:
`loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from cabildo_trainer.engine.gang import Gang
    from cabildo_trainer.engine.learner import Learner


Sums = dict[str, list[float]]
"""Weighted sum of the values and sum of the weights, by name."""


def evaluate(
    learner: Learner,
    loader: DataLoader[Any],
    *,
    gang: Gang,
    stop_requested: Callable[[], bool],
) -> dict[str, float] | None:
    """Returns the mean of each value that the module logs, or None if told to stop.

    Means are in double precision and equal on all ranks: over samples for what `validation_step`
    logs, over ranks for what `on_validation_epoch_end` logs.
    """
    learner.module.eval()
    learner.logged.take()  # what training steps logged is of one rank and no part of this
    learner.call("on_validation_epoch_start")
    sums: Sums = {}
    batches = _index_batches(loader)
    rounds = -(-len(batches) // gang.world_size)
    with torch.no_grad():
        for number in range(rounds):
            position = number * gang.world_size + gang.rank
            if position < len(batches):
                batch = fetch(loader, batches[position])
                learner.module.validation_step(batch, position)
                _add(sums, learner.logged.take(), weight=len(batches[position]))
            if not gang.agree(ok=not stop_requested()):
                return None
    learner.call("on_validation_epoch_end")
    at_end: Sums = {}
    _add(at_end, learner.logged.take(), weight=1)
    return _means(sums, gang=gang) | _means(at_end, gang=gang)


def fetch(loader: DataLoader[Any], indices: list[int]) -> Any:
    """Returns the batch of some samples of a loader's dataset."""
    dataset: Any = loader.dataset
    if hasattr(dataset, "__getitems__"):
        return loader.collate_fn(dataset.__getitems__(indices))
    return loader.collate_fn([dataset[index] for index in indices])


def _index_batches(loader: DataLoader[Any]) -> list[list[int]]:
    assert isinstance(loader.dataset, Sized)
    size = loader.batch_size or 1
    indices = list(range(len(loader.dataset)))
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _add(sums: Sums, values: dict[str, float], *, weight: int) -> None:
    for name, value in values.items():
        total = sums.setdefault(name, [0.0, 0.0])
        total[0] += float(value) * weight
        total[1] += weight


def _means(sums: Sums, *, gang: Gang) -> dict[str, float]:
    # A rank without a batch must take part in the sum of every name.
    names = sorted({name for rank_names in gang.gather(list(sums)) for name in rank_names})
    flat = gang.sum([value for name in names for value in sums.get(name, [0.0, 0.0])])
    return {name: flat[2 * i] / flat[2 * i + 1] for i, name in enumerate(names)}
