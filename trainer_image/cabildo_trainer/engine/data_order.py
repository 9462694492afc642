"""Which samples a rank sees at a step, and its random numbers: pure functions.

Here: the whole reason why a resumed run equals one that was never interrupted: nothing about data
or dropout is remembered, everything follows from (seed, epoch, step, rank). Never here: reading
samples. Next: `loop.py`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import torch

from cabildo_trainer.errors import BadSpecError

WORD: Final = 2**64
GOLDEN: Final = 0x9E3779B97F4A7C15
NUMPY_SEEDS: Final = 2**32


class Purpose(IntEnum):
    """What a stream of random numbers is for; streams of different purposes are unrelated."""

    WEIGHTS = 1
    ORDER = 2
    STEP = 3


def stream(seed: int, purpose: Purpose, *position: int) -> int:
    """Returns the 63-bit seed of one stream.

    Args:
        seed: The spec's seed.
        purpose: What the numbers are for.
        position: Where in the run, such as epoch, step and rank.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), once a word.
    """
    state = seed % WORD
    for word in (purpose, *position):
        state = _mix((state + GOLDEN * (word + 1)) % WORD)
    return state >> 1


def _mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % WORD
    return word ^ (word >> 31)


def seed_everything(value: int) -> None:
    """Seeds every global generator that a module may draw from."""
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % NUMPY_SEEDS)  # noqa: NPY002 - it is the global one that users draw from


@dataclass(frozen=True, slots=True)
class DataOrder:
    """The order of a run's samples.

    Steps count batches from 0. An epoch's last samples that do not fill a batch are left out of
    that epoch; they differ from epoch to epoch.

    Attributes:
        seed: The spec's seed.
        samples: Samples in the train split.
        batch_size: Samples of a step over all ranks.
        world_size: Number of ranks; divides the batch size.
    """

    seed: int
    samples: int
    batch_size: int
    world_size: int

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise BadSpecError(
                f"training.batchSize is {self.batch_size}, not divisible by nodes"
                f" {self.world_size}: make it a multiple of nodes"
            )
        if self.samples < self.batch_size:
            raise BadSpecError(
                f"training.batchSize is {self.batch_size}, but the train split has only"
                f" {self.samples} windows: lower it"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.samples // self.batch_size

    def epoch_of(self, step: int) -> int:
        """Returns the epoch that a step belongs to."""
        return step // self.steps_per_epoch

    def epoch_samples(self, epoch: int) -> list[int]:
        """Returns all samples in the order of an epoch."""
        generator = torch.Generator().manual_seed(stream(self.seed, Purpose.ORDER, epoch))
        order: list[int] = torch.randperm(self.samples, generator=generator).tolist()
        return order

    def batch(self, epoch_samples: list[int], *, step: int, rank: int) -> list[int]:
        """Returns the samples of a rank at a step, out of `epoch_samples` of the step's epoch."""
        share = self.batch_size // self.world_size
        start = step % self.steps_per_epoch * self.batch_size + rank * share
        return epoch_samples[start : start + share]

    def seed_step(self, *, step: int, rank: int) -> None:
        """Seeds the global generators for a step of a rank."""
        position = (self.epoch_of(step), step, rank)
        seed_everything(stream(self.seed, Purpose.STEP, *position))
