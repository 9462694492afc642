"""A model in safetensors files as a source: read by tiles, hashed while read, checked when reread.

`read` returns a tile and starts, in another thread, on the one that a pass asks for next: the same
tensor's next tile, or the next tensor's first. So a model in a pass takes two tiles of memory. All
bytes go through SHA-256: the first time that makes the digests of the manifest, later it is
compared (`file_digests.py`), so a file that changes during a merge ends it.

Here: tiles, and the order in which a model's bytes are read and hashed. Never here: which files
make a model (`safetensors_files.py`). Next: `passes.py` reads, `merging.py` asks for the digest.
"""

from __future__ import annotations

import os
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from cabildo_trainer.consensus.errors import DigestMismatch, ManifestMismatch
from cabildo_trainer.consensus.files.file_digests import (
    Check,
    Ledger,
    SpanMismatchError,
    span_bytes_for,
)
from cabildo_trainer.consensus.files.read_ahead import run
from cabildo_trainer.consensus.files.regular_files import open_regular
from cabildo_trainer.consensus.files.safetensors_files import find_model
from cabildo_trainer.consensus.files.safetensors_header import ITEM_SIZES
from cabildo_trainer.consensus.manifests.manifest import Manifest, manifest_of
from cabildo_trainer.consensus.sources import NUMPY_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from cabildo_kernels.digests import Digest
    from cabildo_trainer.consensus.files.read_ahead import Job, ReadAhead
    from cabildo_trainer.consensus.files.safetensors_files import ModelFiles
    from cabildo_trainer.consensus.manifests.manifest import ModelFacts
    from cabildo_trainer.consensus.sources import TensorSpec

    Steps = Generator[tuple[Digest, memoryview], None, int]

PIECE_BYTES: Final = 1 << 19
"""Read and hashed at a time: it stays in the core's cache between the two."""
BUFFERS_KEPT: Final = 3
"""The tile in use, the one read ahead, and the one that a pass is just done with."""
_UNUSED: Final = 3
"""References to a buffer that only the list, the loop and the counting itself look at."""
ADVISED_BYTES: Final = 4 << 20
"""How far ahead the kernel is told what will be read."""


@dataclass(slots=True)
class Tile:
    """A run of a tensor's bytes in memory.

    Attributes:
        name: The tensor.
        begin: First byte within the tensor.
        content: The bytes.
    """

    name: str
    begin: int
    content: NDArray[np.uint8]

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.begin + self.content.size


class Buffers:
    """Memory for tiles, used again when no array looks at it any more.

    Fresh memory has to be cleared by the kernel, page by page: for a model that is streamed that
    costs as much as hashing a quarter of it.
    """

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []

    def take(self, size_bytes: int) -> NDArray[np.uint8]:
        """Returns so many bytes with anything in them."""
        for buffer in self._kept:
            if buffer.size >= size_bytes and sys.getrefcount(buffer) == _UNUSED:
                return buffer[:size_bytes]
        fresh = np.empty(size_bytes, dtype=np.uint8)
        self._kept = [*self._kept[-(BUFFERS_KEPT - 1) :], fresh]
        return fresh[:]


class FileModel:
    """A model in safetensors files.

    Args:
        key: The participant's key, or the role.
        files: The files.
        read_ahead: Threads that read the next tiles; None reads only when asked.
        on_bytes: Called with the number of bytes whenever some were read and hashed, from the
            thread that did it.
    """

    def __init__(
        self,
        key: str,
        files: ModelFiles,
        *,
        read_ahead: ReadAhead | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self.key = key
        self.files = files
        self.facts: ModelFacts = files.facts
        self.tensors: Mapping[str, TensorSpec] = {
            name: place.placed.spec for name, place in files.tensors.items()
        }
        self._order = [name for name, spec in self.tensors.items() if spec.is_floating]
        self._position = {name: number for number, name in enumerate(self._order)}
        self._read_ahead = read_ahead
        self._on_bytes = on_bytes
        span = span_bytes_for(files.size_bytes)
        self._ledgers = {
            name: Ledger(size_bytes=place.placed.size_bytes, span_bytes=span)
            for name, place in files.tensors.items()
        }
        self._descriptors: list[int] = []
        self._close_files = weakref.finalize(self, _close, self._descriptors)
        for path in files.paths:
            self._descriptors.append(open_regular(path))
        for descriptor in self._descriptors:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._advised = [0] * len(self._descriptors)
        self._check: Check | None = None
        self._checked_name = ""
        self._now: Tile | None = None
        self._next: tuple[Tile, Future[None]] | None = None
        self._step_elements = 0
        self._buffers = Buffers()

    @classmethod
    def open(
        cls,
        key: str,
        path: Path,
        *,
        read_ahead: ReadAhead | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Self:
        """Returns the model in a folder or file.

        Raises:
            MissingInput: There is none.
            ManifestMismatch: The files are damaged, contradict each other or are not safetensors.
        """
        return cls(key, find_model(path), read_ahead=read_ahead, on_bytes=on_bytes)

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Returns elements [start, stop) of a tensor, not to be written.

        Raises:
            DigestMismatch: The bytes are not those of the first time.
            ManifestMismatch: The element type has no array, or the file became shorter.
        """
        spec = self.tensors[name]
        if spec.dtype not in NUMPY_TYPES:
            raise ManifestMismatch(
                f"tensor {name!r} of {self.key!r} has element type {spec.dtype}",
                remedy=f"Rules read {', '.join(NUMPY_TYPES)}: convert the tensor.",
            )
        size = ITEM_SIZES[spec.dtype]
        self._step_elements = max(self._step_elements, stop - start)
        tile = self._tile(name, start * size, stop * size)
        content = tile.content[start * size - tile.begin : stop * size - tile.begin]
        values = content.view(NUMPY_TYPES[spec.dtype])
        values.flags.writeable = False
        return values

    @property
    def manifest(self) -> Manifest:
        """The manifest; what was not read before is read for it."""
        self._join()
        jobs = [
            self._known_to(name, ledger.size_bytes)
            for name, ledger in self._ledgers.items()
            if ledger.sha256 is None
        ]
        if self._read_ahead is None:
            for job in jobs:
                run(job)
        else:
            for done in [self._read_ahead.submit(job) for job in jobs]:
                done.result()
        digests = {name: ledger.sha256 or "" for name, ledger in self._ledgers.items()}
        return manifest_of(self.tensors, digests, self.facts)

    @property
    def digest(self) -> str:
        """The model digest; what was not read before is read for it."""
        return self.manifest.digest

    def close(self) -> None:
        """Compares what was read and not yet compared, and closes the files.

        Raises:
            DigestMismatch: The bytes are not those of the first time.
        """
        try:
            self._join()
            run(self._settle())
        finally:
            self._now = None
            self._close_files()

    def abandon(self) -> None:
        """Gives up what was not yet compared: nobody asks for this model's bytes any more."""
        following, self._next = self._next, None
        if following is not None:
            following[1].exception()
        self._check = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            # The first error is the one to report.
            self.abandon()
        self.close()

    def _tile(self, name: str, begin: int, end: int) -> Tile:
        """Returns a tile that holds a range of bytes, and starts on the one after it."""
        now = self._now
        if now is not None and now.name == name and now.begin <= begin and end <= now.end:
            return now
        tile = self._join()
        if tile is None or tile.name != name or not tile.begin <= begin <= end <= tile.end:
            # The old tile goes first: a model never has more than two.
            self._now = now = tile = None
            tile = Tile(name=name, begin=begin, content=self._buffers.take(end - begin))
            job = self._fill(tile)
            if self._read_ahead is None:
                run(job)
            else:
                self._read_ahead.submit(job).result()
        self._now = tile
        self._start_next(after=tile, begin=begin, end=end)
        return tile

    def _join(self) -> Tile | None:
        """Returns the tile that was read ahead, if any."""
        if self._next is None:
            return None
        (tile, done), self._next = self._next, None
        done.result()
        return tile

    def _start_next(self, *, after: Tile, begin: int, end: int) -> None:
        """Reads ahead what a pass that asked for this range asks for behind the tile.

        Within a tensor its steps are even, so the bytes of a step that the tile ends within go on
        to the next tile. The next tensor's step is only guessed: it can be another one.
        """
        name = after.name
        step = end - begin
        if self._read_ahead is None or name not in self._position or not step:
            return
        if after.end == self._ledgers[name].size_bytes:
            following = self._position[name] + 1
            if following == len(self._order):
                return
            name, held = self._order[following], 0
            begin, step = 0, self._step_bytes(name)
        else:
            held = (after.end - begin) % step
            begin = after.end - held
        end = min(begin + step, self._ledgers[name].size_bytes)
        tile = Tile(name=name, begin=begin, content=self._buffers.take(end - begin))
        tile.content[:held] = after.content[after.content.size - held :]
        self._next = (tile, self._read_ahead.submit(self._fill(tile, held=held)))

    def _step_bytes(self, name: str) -> int:
        """Returns the bytes of the longest step so far, in a tensor's element type."""
        return self._step_elements * ITEM_SIZES[self.tensors[name].dtype]

    def _fill(self, tile: Tile, *, held: int = 0) -> Job:
        """Reads a tile: what was read before is checked, the rest is hashed for the first time.

        Args:
            tile: The tile.
            held: How many of its first bytes it has from the tile before it.
        """
        ledger = self._ledgers[tile.name]
        done = tile.begin + held
        if done >= ledger.known_bytes:
            yield from self._settle()
            yield from self._known_to(tile.name, done)
        else:
            yield from self._check_from(tile.name, done)
        view = tile.content.data
        while done < tile.end:
            rest = view[done - tile.begin :]
            if done < ledger.known_bytes:
                done += yield from self._check_piece(rest)
            else:
                done += yield from self._known_piece(tile.name, rest)

    def _known_to(self, name: str, end: int) -> Job:
        """Hashes a tensor's bytes up to one, from where the first reading stopped."""
        ledger = self._ledgers[name]
        scratch = memoryview(bytearray(min(PIECE_BYTES, max(end - ledger.known_bytes, 0))))
        while ledger.known_bytes < end:
            yield from self._known_piece(name, scratch[: end - ledger.known_bytes])

    def _known_piece(self, name: str, into: memoryview) -> Steps:
        ledger = self._ledgers[name]
        piece = into[: min(ledger.room(), PIECE_BYTES)]
        self._read_bytes(name, ledger.known_bytes, piece)
        yield ledger.state, piece
        ledger.advance(len(piece))
        return len(piece)

    def _check_from(self, name: str, begin: int) -> Job:
        """Makes the check stand at a byte that was read before."""
        check = self._check
        if check is not None and self._checked_name == name and check.position == begin:
            return
        yield from self._settle()
        ledger = self._ledgers[name]
        self._check = check = Check.starting_at_or_before(begin, ledger=ledger)
        self._checked_name = name
        scratch = memoryview(bytearray(min(PIECE_BYTES, begin - check.position)))
        while check.position < begin:
            yield from self._check_piece(scratch[: begin - check.position])

    def _check_piece(self, into: memoryview) -> Steps:
        check, name = self._check, self._checked_name
        assert check is not None
        piece = into[: min(check.room(), PIECE_BYTES)]
        self._read_bytes(name, check.position, piece)
        yield check.state, piece
        try:
            check.advance(len(piece))
        except SpanMismatchError as error:
            self._check = None
            raise self._changed(name, error) from error
        if check.position == check.ledger.known_bytes:
            self._check = None
        return len(piece)

    def _settle(self) -> Job:
        """Reads on to where the bytes checked last can be compared."""
        scratch = memoryview(b"")
        while self._check is not None and not self._check.is_settled:
            scratch = scratch or memoryview(bytearray(PIECE_BYTES))
            yield from self._check_piece(scratch)
        self._check = None

    def _read_bytes(self, name: str, begin: int, into: memoryview) -> None:
        place = self.files.tensors[name]
        descriptor, offset = self._descriptors[place.file], place.placed.offset + begin
        self._advise(place.file, offset)
        done = 0
        while done < len(into):
            count = os.preadv(descriptor, [into[done:]], offset + done)
            if count == 0:
                raise ManifestMismatch(
                    f"{self.files.paths[place.file]} became shorter while it was read: tensor"
                    f" {name!r} of {self.key!r} ends early",
                    remedy="Merge from a place that nobody writes to.",
                )
            done += count
        if self._on_bytes is not None:
            self._on_bytes(len(into))

    def _advise(self, file: int, offset: int) -> None:
        """Asks for what follows, in pieces: the kernel cuts a larger request short."""
        advised = self._advised[file]
        if not offset <= advised <= offset + ADVISED_BYTES + PIECE_BYTES:
            advised = offset
        while advised < offset + ADVISED_BYTES:
            os.posix_fadvise(self._descriptors[file], advised, PIECE_BYTES, os.POSIX_FADV_WILLNEED)
            advised += PIECE_BYTES
        self._advised[file] = advised

    def _changed(self, name: str, error: SpanMismatchError) -> DigestMismatch:
        place = self.files.tensors[name]
        return DigestMismatch(
            f"{self.files.paths[place.file]}: tensor {name!r} of {self.key!r} changed between two"
            f" passes, within its bytes {error.begin} to {error.end}",
            remedy="Merge from a place that nobody writes to, and look at the storage's health.",
        )


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
