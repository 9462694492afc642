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


def evaluate(
    learner: Learner,
    loader: DataLoader[Any],
    *,
    gang: Gang,
    stop_requested: Callable[[], bool],
) -> dict[str, float] | None:
    """Returns the mean of each value that `validation_step` logs, or None if told to stop.

    Means are over samples, in double precision, and equal on all ranks.
    """
    learner.module.eval()
    learner.call("on_validation_epoch_start")
    sums: dict[str, list[float]] = {}
    batches = _index_batches(loader)
    rounds = -(-len(batches) // gang.world_size)
    with torch.no_grad():
        for number in range(rounds):
            position = number * gang.world_size + gang.rank
            if position < len(batches):
                _add(sums, learner, fetch(loader, batches[position]), position=position,
                     samples=len(batches[position]))  # fmt: skip
            if not gang.agree(ok=not stop_requested()):
                return None
    means = _means(sums, gang=gang)
    learner.call("on_validation_epoch_end")
    return means | learner.logged.take()


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


def _add(
    sums: dict[str, list[float]], learner: Learner, batch: Any, *, position: int, samples: int
) -> None:
    learner.module.validation_step(batch, position)
    for name, value in learner.logged.take().items():
        total = sums.setdefault(name, [0.0, 0.0])
        total[0] += float(value) * samples
        total[1] += samples


def _means(sums: dict[str, list[float]], *, gang: Gang) -> dict[str, float]:
    # A rank without a batch must take part in the sum of every name.
    names = sorted({name for rank_names in gang.gather(list(sums)) for name in rank_names})
    flat = gang.sum([value for name in names for value in sums.get(name, [0.0, 0.0])])
    return {name: flat[2 * i] / flat[2 * i + 1] for i, name in enumerate(names)}
