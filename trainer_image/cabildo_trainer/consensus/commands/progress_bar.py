"""How far a merge is, on a terminal or in a log: bytes, rate, time left.

Here: one line, written now and then. Never here: counting passes; the caller knows the total. Next:
`merge_command.py`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

REDRAW_S: Final = 0.2
LOG_STEP: Final = 0.1
"""Share of the whole after which a log gets a line."""
LOG_PAUSE_S: Final = 5.0
WIDTH: Final = 24
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_THOUSAND: Final = 1000.0
_MINUTE_S: Final = 60


class ProgressBar:
    """Counts bytes and says so.

    Args:
        what: What is being done.
        total_bytes: How many bytes there are to read, over all passes.
        stream: Where it is said: a terminal gets one line that changes, a log a line at times.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        what: str,
        *,
        total_bytes: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._total_bytes = total_bytes
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._lock = threading.Lock()
        self._begun_s = clock()
        self._done_bytes = 0
        self._said_s = self._begun_s
        self._said_share = 0.0

    def add(self, count: int) -> None:
        """Notes that so many bytes were read; called from any thread."""
        with self._lock:
            self._done_bytes += count
            now = self._clock()
            if self._is_due(now):
                self._say(now, end="" if self._is_terminal else "\n")

    def finish(self) -> None:
        """Says the total once more, and ends the line."""
        with self._lock:
            self._say(self._clock(), end="\n")

    def _is_due(self, now: float) -> bool:
        since = now - self._said_s
        if self._is_terminal:
            return since >= REDRAW_S
        return since >= LOG_PAUSE_S and self._share - self._said_share >= LOG_STEP

    @property
    def _share(self) -> float:
        return min(self._done_bytes / self._total_bytes, 1.0) if self._total_bytes else 1.0

    def _say(self, now: float, *, end: str) -> None:
        self._said_s, self._said_share = now, self._share
        elapsed = max(now - self._begun_s, 1e-9)
        rate = self._done_bytes / elapsed
        left = max(self._total_bytes - self._done_bytes, 0) / rate if rate else 0.0
        parts = [
            f"{self._share:4.0%}",
            f"{amount(self._done_bytes)} of {amount(max(self._total_bytes, self._done_bytes))}",
            f"{amount(rate)}/s",
            f"{duration(left)} left" if self._share < 1 else f"in {duration(elapsed)}",
        ]
        if self._is_terminal:
            filled = round(self._share * WIDTH)
            parts.insert(0, "[" + "#" * filled + "." * (WIDTH - filled) + "]")
            # Erase to the end of the line: the line before may have been longer.
            self._stream.write("\r" + self._what + " " + "  ".join(parts) + "\x1b[K" + end)
        else:
            self._stream.write(self._what + " " + "  ".join(parts) + end)
        self._stream.flush()


def amount(count: float) -> str:
    """Returns a number of bytes in words."""
    for unit in _UNITS[:-1]:
        if count < _THOUSAND:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _THOUSAND
    return f"{count:.1f} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """Returns a time in words."""
    minutes, rest = divmod(round(seconds), _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
