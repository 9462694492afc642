"""How `up` says what it does: the step, the time so far, what comes next.

Here: the protocol that every part of this package takes as `reporter`, a silent one for
tests and one that prints lines. Never here: colours and bars (the CLI's own business, by
the same protocol) or logging of programs (their logs lie in the state folder).
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager


class Reporter(Protocol):
    """Receives what is being done; safe to call from several threads."""

    def plan(self, titles: Sequence[str]) -> None:
        """Announce the steps to come, in their order."""

    def step(self, title: str) -> AbstractContextManager[None]:
        """Return a context that lasts as long as the step does."""

    def note(self, message: str) -> None:
        """Pass on one line worth knowing, such as a download that fell through."""


class SilentReporter:
    """Says nothing."""

    def plan(self, titles: Sequence[str]) -> None:
        """Ignore the plan."""

    def step(self, title: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return a context that does nothing."""
        return nullcontext()

    def note(self, message: str) -> None:
        """Ignore the line."""


class LineReporter:
    """Prints one line when a step starts and one when it ends.

    Args:
        stream: Where the lines go, for instance standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._titles: list[str] = []
        self._started_at = time.monotonic()
        self._lock = threading.Lock()

    def plan(self, titles: Sequence[str]) -> None:
        """Announce the steps to come, in their order."""
        with self._lock:
            self._titles = list(titles)
            self._started_at = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the step's start with what comes next, and its end with its duration."""
        began = time.monotonic()
        self._print(f"{self._position(title)}{title} ...{self._next(title)}")
        try:
            yield
        except BaseException:
            self._print(f"{title}: failed after {time.monotonic() - began:.1f} s")
            raise
        self._print(f"{title}: done in {time.monotonic() - began:.1f} s")

    def note(self, message: str) -> None:
        """Print the line."""
        self._print(message)

    def _position(self, title: str) -> str:
        if title not in self._titles:
            return ""
        return f"({self._titles.index(title) + 1}/{len(self._titles)}) "

    def _next(self, title: str) -> str:
        if title not in self._titles[:-1]:
            return ""
        return f" (next: {self._titles[self._titles.index(title) + 1]})"

    def _print(self, line: str) -> None:
        elapsed_s = time.monotonic() - self._started_at
        with self._lock:
            self._stream.write(f"[{elapsed_s:6.1f} s] {line}\n")
            self._stream.flush()
