"""Random numbers that everybody draws alike: keyed by round seed, participant, tensor, element.

A number depends on nothing else: not on order, threads, chunks or other participants. The
generator is Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
taken raw; the step to [0, 1) is ours, so no library's distribution code matters.

Here: uniform numbers. Never here: noise for privacy, which needs a secret stream. Next: bucketing
and the merges that drop entries.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.random import Philox

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS_PER_COUNTER: Final = 4
"""Philox 4x64 gives four words for each value of its counter."""
SEPARATOR: Final = b"\x1f"


@dataclass(frozen=True, slots=True)
class Draws:
    """The stream of one tensor of one participant in one round.

    Attributes:
        seed: The round's seed.
        participant: The participant's key.
        tensor: The tensor's name, or empty for draws about whole models.
    """

    seed: bytes
    participant: str
    tensor: str = ""

    def key(self) -> int:
        """Returns Philox's key: the first 16 bytes of a SHA-256 over lengths and parts."""
        parts = (self.seed, self.participant.encode(), self.tensor.encode())
        text = b"".join(len(part).to_bytes(8, "big") + SEPARATOR + part for part in parts)
        return int.from_bytes(hashlib.sha256(text).digest()[:16], "little")

    def raw(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Returns words [start, stop) of the stream."""
        first = start // WORDS_PER_COUNTER
        generator = Philox(key=self.key(), counter=first)
        skip = start - first * WORDS_PER_COUNTER
        return generator.random_raw(skip + stop - start)[skip:]

    def uniform(self, start: int, stop: int) -> NDArray[np.float64]:
        """Returns numbers in [0, 1) for elements [start, stop): 53 bits of a word each."""
        return (self.raw(start, stop) >> np.uint64(11)).astype(np.float64) * 2.0**-53
