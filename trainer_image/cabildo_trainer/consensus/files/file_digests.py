"""Digests of a tensor's bytes, made while they are first read and checked whenever they are again.

The SHA-256 of a tensor is one stream. While it is made, its state is kept at every span boundary;
so a later pass needs one stream as well, may begin at any boundary, and is checked at each: a byte
that changed is found within its span. A state takes about 250 bytes, and spans grow with the model,
so that a model never needs more than a few thousand.

Here: the states and the checks. Never here: reading. Next: `file_sources.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cabildo_kernels.digests import Digest, sha256

SMALLEST_SPAN_BYTES: Final = 4 << 20
MOST_SPANS: Final = 4096


def span_bytes_for(model_bytes: int) -> int:
    """Returns the length of a span: 4 MiB, doubled until a model has few enough of them."""
    span = SMALLEST_SPAN_BYTES
    while model_bytes > span * MOST_SPANS:
        span *= 2
    return span


class SpanMismatchError(Exception):
    """Bytes of a span are not those that were read first.

    Attributes:
        begin: First byte of the span within the tensor.
        end: One past its last byte that was compared.
    """

    def __init__(self, *, begin: int, end: int) -> None:
        super().__init__(f"bytes {begin} to {end}")
        self.begin = begin
        self.end = end


@dataclass(slots=True)
class Ledger:
    """What is known of a tensor's bytes so far.

    Attributes:
        size_bytes: Number of its bytes.
        span_bytes: Bytes between two kept states.
        known_bytes: How many bytes, from the first on, were read once.
        state: SHA-256 of these bytes.
        marks: SHA-256 of the bytes before each span boundary that was passed.
    """

    size_bytes: int
    span_bytes: int
    known_bytes: int = 0
    state: Digest = field(default_factory=sha256)
    marks: list[Digest] = field(default_factory=lambda: [sha256()])

    def room(self) -> int:
        """Returns how many bytes may come before the next boundary."""
        return len(self.marks) * self.span_bytes - self.known_bytes

    def advance(self, count: int) -> None:
        """Notes that so many further bytes are in `state`."""
        self.known_bytes += count
        if self.known_bytes == len(self.marks) * self.span_bytes:
            self.marks.append(self.state.copy())

    @property
    def sha256(self) -> str | None:
        """The tensor's SHA-256 in hexadecimal digits, once all of it was read."""
        return self.state.digest().hex() if self.known_bytes == self.size_bytes else None


@dataclass(slots=True)
class Check:
    """Bytes being read again, compared with a ledger.

    Attributes:
        ledger: What they were the first time.
        position: How many bytes of the tensor are in `state`.
        state: SHA-256 of these bytes.
    """

    ledger: Ledger
    position: int
    state: Digest

    @classmethod
    def starting_at_or_before(cls, position: int, *, ledger: Ledger) -> Check:
        """Returns a check that starts at the last boundary not after a byte."""
        mark = min(position // ledger.span_bytes, len(ledger.marks) - 1)
        return cls(
            ledger=ledger, position=mark * ledger.span_bytes, state=ledger.marks[mark].copy()
        )

    @property
    def is_settled(self) -> bool:
        """Whether all bytes in `state` were compared."""
        ledger = self.ledger
        return self.position % ledger.span_bytes == 0 or self.position == ledger.known_bytes

    def room(self) -> int:
        """Returns how many bytes may come before the next comparison."""
        boundary = (self.position // self.ledger.span_bytes + 1) * self.ledger.span_bytes
        return min(boundary, self.ledger.known_bytes) - self.position

    def advance(self, count: int) -> None:
        """Notes that so many further bytes are in `state`, and compares where it can.

        Raises:
            SpanMismatchError: They are not what was read first.
        """
        self.position += count
        ledger = self.ledger
        if self.position == ledger.known_bytes:
            expected = ledger.state
        elif self.position % ledger.span_bytes == 0:
            expected = ledger.marks[self.position // ledger.span_bytes]
        else:
            return
        if self.state.digest() != expected.digest():
            begin = (self.position - 1) // ledger.span_bytes * ledger.span_bytes
            raise SpanMismatchError(begin=begin, end=self.position)
