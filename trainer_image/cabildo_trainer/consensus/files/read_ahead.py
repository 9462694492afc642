"""Threads that read and hash the next tiles while the kernels work on these.

A job is a generator: it reads a piece and yields it with the digest that it belongs to; a thread
here feeds the piece and asks for the next one. Each thread has two jobs in hand, because a core
hashes two streams at nearly twice the rate of one (`cabildo_kernels.digests`). Reading and hashing
release the interpreter's lock, so the threads share the cores with the kernels.

Here: the threads. Never here: which bytes, nor what their digest must be. Next: `file_sources.py`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, Self

from cabildo_kernels.digests import Digest, update_many

if TYPE_CHECKING:
    from types import TracebackType

Job = Iterator[tuple[Digest, memoryview]]

JOBS_A_THREAD: Final = 2


class ReadAhead:
    """A fixed number of threads for reading and hashing.

    Args:
        threads: How many.
    """

    def __init__(self, *, threads: int) -> None:
        self._queue: queue.SimpleQueue[tuple[Job, Future[None]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"read-ahead-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> Future[None]:
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
        in_hand: list[tuple[Job, Future[None]]] = []
        ending = False
        while in_hand or not ending:
            while not ending and len(in_hand) < JOBS_A_THREAD:
                try:
                    item = self._queue.get(block=not in_hand)
                except queue.Empty:
                    break
                if item is None:
                    ending = True
                else:
                    in_hand.append(item)
            in_hand = _one_piece_each(in_hand)


def _one_piece_each(
    in_hand: list[tuple[Job, Future[None]]],
) -> list[tuple[Job, Future[None]]]:
    """Reads and hashes one piece of each job; returns those that are not done."""
    left: list[tuple[Job, Future[None]]] = []
    digests: list[Digest] = []
    pieces: list[memoryview] = []
    for job, done in in_hand:
        try:
            digest, piece = next(job)
        except StopIteration:
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            done.set_exception(error)
        else:
            left.append((job, done))
            digests.append(digest)
            pieces.append(piece)
    try:
        update_many(digests, pieces, threads=1)
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
        for _, done in left:
            done.set_exception(error)
        return []
    return left


def run(job: Job) -> None:
    """Runs a job in the calling thread."""
    for digest, piece in job:
        digest.update(piece)
