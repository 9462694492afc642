"""Discrete Gaussian noise, sampled exactly, from a ChaCha20 stream under a secret key.

The distribution, for the scale s = 2^24: P(X = x) = exp(-x^2 / (2 s^2)) / sum_y exp(-y^2 / (2 s^2))
over all integers x (Canonne, Kamath, Steinke, "The discrete Gaussian for differential privacy",
NeurIPS 2020, arXiv 2004.00010). It is sampled without any error: given uniform bits the distance
from the formula is zero, and ChaCha20's bits are uniform to everybody without the key.

How: |x| = k s + u with k of probability proportional to exp(-k^2/2) (inversion of 64 bits), u
uniform of 24 bits, accepted with probability exp(-u (2 k s + u) / (2 s^2)), and a sign; minus zero
is rejected. (The decomposition is Karney's, "Sampling exactly from the normal distribution", TOMS
2016, arXiv 1303.6257.) fp64 decides whenever the random number is not within 2^-40 of the
probability; else `exact_thresholds.py` decides with integers, drawing more bits. So all machines,
whatever their exp, draw the same noise, and none of it is rounded.

For the accountants: a continuous Gaussian of variance s^2 - 1/12, rounded to integers, is within
total variation 5e-4 / s^4 = 7e-33 of it for each element; rounding after the noise costs no
privacy. So what holds for the continuous Gaussian holds here, subsampling and PLD included.

Timing is not constant: noise is drawn where the models lie, not beside a stranger. Here: noise by
element. Never here: its scale in the model's units, or any key's making. Next: `noisy_sum.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from cabildo_trainer.consensus.privacy.exact_thresholds import (
    WORD_BITS,
    is_below_exp,
    level_of,
    level_thresholds,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.ciphers import CipherContext
    from numpy.typing import NDArray

SCALE_BITS: Final = 24
SCALE: Final = 2**SCALE_BITS
"""Standard deviation of the noise, in steps of the grid."""
BLOCK: Final = 24_576
"""Elements that share a stream: a superblock of the kernels' grid, where chunks begin."""
DOUBT: Final = 2.0**-40
"""Far above the error of any fp64 exp below 1, and met about once in 10^12 numbers."""

_WORDS_A_CANDIDATE: Final = 3  # level, offset and sign, acceptance
_BYTES_A_WORD: Final = 8
_CANDIDATES_A_NUMBER: Final = 1.45  # the acceptance is 0.7147
_LEVEL, _ACCEPT = 0, 1  # which decision further bits are for


@lru_cache(maxsize=1)
def _thresholds() -> NDArray[np.uint64]:
    return np.asarray(level_thresholds(), dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class NoiseStream:
    """The noise of one tensor.

    Attributes:
        key: 32 secret bytes, used for this tensor of this result and nothing else.
        scale_bits: The standard deviation is 2^scale_bits; tests take small ones.
        doubt: Distance from a probability below which integers decide.
    """

    key: bytes = field(repr=False)
    scale_bits: int = SCALE_BITS
    doubt: float = DOUBT

    def draw(self, start: int, stop: int) -> NDArray[np.int64]:
        """Returns the noise of elements [start, stop): the same whatever is drawn with it."""
        values = np.empty(stop - start, dtype=np.int64)
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first, last = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            numbers = self._block(block, count=last - block * BLOCK)
            values[first - start : last - start] = numbers[first - block * BLOCK :]
        return values

    def _block(self, block: int, *, count: int) -> NDArray[np.int64]:
        """The first `count` numbers of a block: its accepted candidates, in order."""
        accepted: list[NDArray[np.int64]] = []
        missing, drawn = count, 0
        stream = self._stream(block, purpose=0)
        while missing > 0:
            size = int(missing * _CANDIDATES_A_NUMBER) + 64
            numbers = self._candidates(_words(stream, size), block=block, first=drawn)
            accepted.append(numbers[:missing])
            missing, drawn = missing - len(numbers), drawn + size
        return np.concatenate(accepted) if accepted else np.empty(0, dtype=np.int64)

    def _candidates(
        self, words: NDArray[np.uint64], *, block: int, first: int
    ) -> NDArray[np.int64]:
        """Returns the accepted ones of the candidates that the words [3, candidates] describe."""
        levels = self._levels(words[0], block=block, first=first)
        offsets = (words[1] & np.uint64((1 << self.scale_bits) - 1)).astype(np.int64)
        negative = (words[1] >> np.uint64(self.scale_bits)) & np.uint64(1) == 1
        # Below 2^53, so exact in fp64, for all levels below 16.
        numerators = offsets * ((levels << (self.scale_bits + 1)) + offsets)
        shift = 2 * self.scale_bits + 1
        limits = np.exp(numerators.astype(np.float64) * -(2.0**-shift))
        given = words[2].astype(np.float64) * 2.0**-WORD_BITS
        keep = given < limits
        for index in np.flatnonzero(np.abs(given - limits) <= self.doubt).tolist():
            keep[index] = is_below_exp(
                int(words[2, index]),
                self._further(block, candidate=first + index, decision=_ACCEPT),
                numerator=int(numerators[index]),
                shift=shift,
            )
        sizes = (levels << self.scale_bits) + offsets
        keep &= ~(negative & (sizes == 0))
        values: NDArray[np.int64] = np.where(negative, -sizes, sizes)[keep]
        return values

    def _levels(self, words: NDArray[np.uint64], *, block: int, first: int) -> NDArray[np.int64]:
        levels = np.zeros(len(words), dtype=np.int64)
        doubtful = np.zeros(len(words), dtype=bool)
        for threshold in _thresholds():
            levels += words > threshold
            doubtful |= words == threshold
        for index in np.flatnonzero(doubtful).tolist():
            levels[index] = level_of(
                int(words[index]), self._further(block, candidate=first + index, decision=_LEVEL)
            )
        return levels

    def _further(self, block: int, *, candidate: int, decision: int) -> Further:
        return Further(self._stream(block, purpose=1 + 2 * candidate + decision))

    def _stream(self, block: int, *, purpose: int) -> CipherContext:
        """ChaCha20 (RFC 8439): block counter from 0; the nonce is the block and the purpose."""
        nonce = block.to_bytes(8, "little") + purpose.to_bytes(4, "little")
        cipher = Cipher(algorithms.ChaCha20(self.key, bytes(4) + nonce), mode=None)
        return cipher.encryptor()


class Further:
    """The words of a stream of its own, for the rare decision that 64 bits do not make."""

    def __init__(self, stream: CipherContext) -> None:
        self._words: Iterator[int] = _endless(stream)

    def __call__(self, index: int) -> int:
        """Returns the next word; they are asked for in order."""
        del index
        return next(self._words)


def _endless(stream: CipherContext) -> Iterator[int]:
    while True:
        yield int.from_bytes(stream.update(bytes(_BYTES_A_WORD)), "little")


def _words(stream: CipherContext, candidates: int) -> NDArray[np.uint64]:
    """The next words of a stream, [3, candidates]; three for a candidate lie together in it."""
    size_bytes = candidates * _WORDS_A_CANDIDATE * _BYTES_A_WORD
    data = np.frombuffer(stream.update(bytes(size_bytes)), dtype="<u8")
    by_candidate = data.reshape(candidates, _WORDS_A_CANDIDATE).astype(np.uint64, copy=False)
    return np.ascontiguousarray(by_candidate.T)
