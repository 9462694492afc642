"""Threads that read and hash the next tiles while the kernels work on these.

A job is a generator: it reads a piece and yields it with the hash state that it belongs to; a
thread here puts the piece into the state and asks for the next one. `preadv` and SHA-256 release
the interpreter's lock, so the threads share the cores with the kernels.

Here: the threads. Never here: which bytes, nor what their digest must be. Next: `file_sources.py`.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class HashState(Protocol):
    """A SHA-256 in progress, as `hashlib` has it."""

    def update(self, data: memoryview, /) -> None:
        """Adds bytes."""

    def digest(self) -> bytes:
        """Returns the digest of the bytes so far."""

    def copy(self) -> HashState:
        """Returns a state that goes its own way from here."""


class ReadAhead:
    """A fixed number of threads for reading and hashing.

    Args:
        threads: How many.
    """

    def __init__(self, *, threads: int) -> None:
        self._queue: queue.SimpleQueue[
            tuple[Iterator[tuple[HashState, memoryview]], Future[None]] | None
        ] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"read-ahead-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Iterator[tuple[HashState, memoryview]]) -> Future[None]:
        """Starts a job as soon as a thread is free; the future holds its error, if any."""
        done: Future[None] = Future()
        self._queue.put((job, done))
        return done

    def close(self) -> None:
        """Finishes the jobs that were submitted and ends the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            job, done = item
            try:
                run(job)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                done.set_exception(error)
            else:
                done.set_result(None)


def run(job: Iterator[tuple[HashState, memoryview]]) -> None:
    """Runs a job in the calling thread."""
    for state, piece in job:
        state.update(piece)
