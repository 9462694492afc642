"""The ranks of an attempt as one: sums, agreements, and what a lost peer looks like.

Here: every collective that is ours (gradients are averaged by the strategy). Never here: how ranks
find each other; that is `rendezvous.py`. Next: `loop.py`, `checkpoint.py`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor, distributed

from cabildo_trainer.errors import PeerLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

TRANSPORT_WORDS: Final = (
    "gloo",
    "connection closed by peer",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out waiting",
    "timeout",
    "socket",
)
"""How the transport speaks of a peer that is gone; gloo raises a bare RuntimeError."""


@contextmanager
def peers_expected() -> Iterator[None]:
    """Turns the transport's errors inside the block into `PeerLostError`."""
    try:
        yield
    except distributed.DistError as error:
        raise PeerLostError(f"lost contact with another rank: {_first_line(error)}") from error
    except RuntimeError as error:
        text = str(error).lower()
        if distributed.is_initialized() and any(word in text for word in TRANSPORT_WORDS):
            raise PeerLostError(f"lost contact with another rank: {_first_line(error)}") from error
        raise


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


@dataclass(frozen=True, slots=True)
class Gang:
    """The ranks of an attempt.

    Attributes:
        rank: Number of this process.
        world_size: Number of processes; with one of them nothing is sent.
    """

    rank: int
    world_size: int

    @property
    def is_leader(self) -> bool:
        """Whether this is rank 0, which reports and commits."""
        return self.rank == 0

    def begin_sum(self, values: Tensor) -> PendingSum:
        """Starts adding up `values` over all ranks, in place, while other work goes on."""
        if self.world_size == 1:
            return PendingSum(values, work=None)
        with peers_expected():
            return PendingSum(values, work=distributed.all_reduce(values, async_op=True))

    def sum(self, values: list[float]) -> list[float]:
        """Returns the sums over all ranks, in double precision."""
        total = self.begin_sum(torch.tensor(values, dtype=torch.float64)).wait()
        sums: list[float] = total.tolist()
        return sums

    def agree(self, *, ok: bool) -> bool:
        """Returns whether all ranks say ok."""
        return self.sum([0.0 if ok else 1.0])[0] == 0.0

    def from_leader(self, value: T) -> T:
        """Returns rank 0's value on every rank."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value]
        with peers_expected():
            distributed.broadcast_object_list(box, src=0)
        leader: T = box[0]
        return leader

    def gather(self, value: T) -> list[T]:
        """Returns the values of all ranks in the order of ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        box: list[Any] = [None] * self.world_size
        with peers_expected():
            distributed.all_gather_object(box, value)
        return box


@dataclass(frozen=True, slots=True)
class PendingSum:
    """A sum that is under way."""

    values: Tensor
    work: distributed.Work | None

    def wait(self) -> Tensor:
        """Returns the sums once they are there."""
        if self.work is not None:
            with peers_expected():
                self.work.wait()
        return self.values
