"""SHA-256 (FIPS 180-4) of data while it streams: several streams at once, and beside other work.

Here: `Sha256` and `update_many` (where the CPU has SHA instructions two streams run side by side on
one core, at nearly twice hashlib's rate), and `ChunkHasher`, which hashes in worker threads while
the caller computes. Never here: what the digests mean; manifests and trees of digests are the
trainer's.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from cabildo_kernels import dispatch
from cabildo_kernels.arguments import whole_number
from cabildo_kernels.errors import InvalidInput
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType, TracebackType

    from typing_extensions import Buffer


class Digest(Protocol):
    """A running SHA-256 with hashlib's methods.

    One stream takes one thread at a time: unlike hashlib's, ours have no lock of their own, and two
    updates at once leave a digest of neither. Several streams may run in several threads.
    """

    def update(self, data: Buffer, /) -> None:
        """Feed bytes."""

    def digest(self) -> bytes:
        """Return the digest of what was fed so far."""

    def hexdigest(self) -> str:
        """Return the digest as hexadecimal text."""

    def copy(self) -> Self:
        """Return a digest that goes on from here on its own."""


def _native() -> ModuleType | None:
    module = dispatch.native("sha256")
    return module if module is not None and module.supported() else None


def sha256() -> Digest:
    """Return a new running digest: ours where the CPU has SHA instructions, else hashlib's.

    It is for one thread at a time; see `Digest`.
    """
    native = _native()
    started: Digest = hashlib.sha256() if native is None else native.Sha256()
    return started


def update_many(
    digests: Sequence[Digest], buffers: Sequence[Buffer], *, threads: int | None = None
) -> None:
    """Feed each digest its buffer, two at a time on each thread. The interpreter lock is released.

    `update_many((whole, chunk), (data, data))` gives a file's running digest and a chunk's own for
    hardly more than the price of one.

    Args:
        digests: Distinct results of `sha256()`, none of them in use by another thread.
        buffers: As many contiguous buffers.
        threads: None: the CPU quota, above 1 MB.

    Raises:
        InvalidInput: Not as many buffers as digests, a digest that stands twice, or something that
            is no contiguous buffer. No digest was fed anything then.
    """
    digests, buffers = tuple(digests), tuple(buffers)  # what is looked at is what is fed
    if len(digests) != len(buffers):
        raise InvalidInput(f"buffers: {len(buffers)} for {len(digests)} digests; give one for each")
    if len({id(digest) for digest in digests}) != len(digests):
        raise InvalidInput("digests: one stands twice; a stream takes one buffer at a time")
    # All are looked at before the first is fed: a caller may put a buffer right and call again.
    views = [_view(buffer, index=index) for index, buffer in enumerate(buffers)]
    count = threads_for(sum(view.nbytes for view in views), asked=threads)
    native = _native()
    if native is not None:
        for index, digest in enumerate(digests):
            if not isinstance(digest, native.Sha256):
                kind = type(digest).__qualname__
                raise InvalidInput(f"digests[{index}]: {kind}; results of sha256() are taken")
        native.update_many(digests, buffers, threads=count)
        return
    for digest, view in zip(digests, views, strict=True):
        # hashlib takes one axis only.
        digest.update(view if view.ndim <= 1 else np.frombuffer(view, dtype=np.uint8).data)


def _view(buffer: Buffer, *, index: int) -> memoryview:
    try:
        view = memoryview(buffer)
    except (TypeError, BufferError, ValueError) as error:
        kind = type(buffer).__qualname__
        raise InvalidInput(
            f"buffers[{index}]: {kind}; a buffer of bytes is needed (of text: .encode())"
        ) from error
    if not view.c_contiguous:
        raise InvalidInput(
            f"buffers[{index}]: a view with gaps; its bytes must lie in one piece (copy it)"
        )
    return view


@dataclass(frozen=True, slots=True)
class StreamDigests:
    """What was hashed of one stream.

    Attributes:
        chunks: SHA-256 of each chunk, in order.
        whole: SHA-256 of all chunks one after another.
        size_bytes: Their size together.
    """

    chunks: tuple[bytes, ...]
    whole: bytes
    size_bytes: int


class ChunkStream:
    """One stream of chunks, hashed in order by a worker thread. Made by `ChunkHasher.stream`."""

    def __init__(self, *, worker: ThreadPoolExecutor, room: BoundedSemaphore) -> None:
        self._worker = worker
        self._room = room
        self._whole = sha256()
        self._chunks: list[Future[bytes]] = []
        self._size_bytes = 0

    def update(self, chunk: Buffer) -> Future[bytes]:
        """Hand over the next chunk; waits while too many are under way.

        Returns:
            The chunk's own digest, to come. The chunk must not change before it is there.
        """
        self._room.acquire()
        try:
            pending = self._worker.submit(self._hash, chunk)
        except BaseException:
            self._room.release()
            raise
        pending.add_done_callback(lambda _: self._room.release())
        self._chunks.append(pending)
        self._size_bytes += memoryview(chunk).nbytes
        return pending

    def _hash(self, chunk: Buffer) -> bytes:
        own = sha256()
        update_many((self._whole, own), (chunk, chunk), threads=1)
        return own.digest()

    def finish(self) -> StreamDigests:
        """Wait for the chunks handed over, return their digests; a failure is raised here too."""
        chunks = tuple(pending.result() for pending in self._chunks)
        return StreamDigests(chunks=chunks, whole=self._whole.digest(), size_bytes=self._size_bytes)


class ChunkHasher:
    """Worker threads that hash while the caller computes; use as a context manager.

        with ChunkHasher(workers=2) as hasher:
            stream = hasher.stream()
            for chunk in chunks:
                stream.update(chunk)
                ...  # work on the chunk: it is hashed meanwhile
            print(stream.finish().whole.hex())

    A stream stays with one worker, so its chunks are hashed in order.
    """

    def __init__(self, *, workers: int = 1, most_pending: int = 4) -> None:
        """Start no thread yet; the first chunk does.

        Args:
            workers: Threads.
            most_pending: Chunks under way at once over all streams, beyond which `update` waits:
                what bounds memory.
        """
        workers = whole_number("workers", workers)
        most_pending = whole_number("most_pending", most_pending)
        if workers < 1 or most_pending < 1:
            raise InvalidInput(f"workers={workers}, most_pending={most_pending}: both 1 or more")
        self._workers = [
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256") for _ in range(workers)
        ]
        self._room = BoundedSemaphore(most_pending)
        self._streams = 0

    def stream(self) -> ChunkStream:
        """Return a new stream."""
        worker = self._workers[self._streams % len(self._workers)]
        self._streams += 1
        return ChunkStream(worker=worker, room=self._room)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.shutdown(wait=True, cancel_futures=kind is not None)
