"""A merged model written as safetensors: shards, index, manifest, config and tokenizer beside them.

Tiles are hashed and written by a thread while the next ones are computed. The folder appears under
its name only after all of it has reached the storage (`durable_files.py`).

Here: the layout of the output and its digest. Never here: arithmetic. Next: whoever loads the
model; `python -m cabildo_trainer.consensus verify` checks it.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from cabildo_kernels.digests import Digest, sha256
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.files.durable_files import StagedFolder, reserve, write_synced
from cabildo_trainer.consensus.files.safetensors_files import INDEX_FILE, SINGLE_FILE
from cabildo_trainer.consensus.files.safetensors_header import ITEM_SIZES, header_bytes
from cabildo_trainer.consensus.manifests.manifest import (
    MANIFEST_FILE,
    Manifest,
    ModelFacts,
    manifest_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.files.companions import Companion
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec

LARGEST_SHARD_BYTES: Final = 5_000_000_000
"""What is usual: a file that tools and object stores still handle well."""
TILES_IN_FLIGHT: Final = 4
FLUSH_BYTES: Final = 64 << 20
"""After so many bytes the storage is asked to take them, so that the end need not wait for all."""
METADATA: Final = {"format": "pt"}
"""What the transformers library asks of a file's metadata."""


@dataclass(slots=True)
class Shard:
    """An output file.

    Attributes:
        path: The file.
        descriptor: The file, open.
        offsets: Place of each tensor's first byte.
        unflushed_bytes: Bytes written since the storage was last asked to take them.
        flushing: The last such request.
    """

    path: Path
    descriptor: int
    offsets: Mapping[str, int]
    unflushed_bytes: int = 0
    flushing: Future[None] | None = None


@dataclass(slots=True)
class Progress:
    """How far a tensor is written.

    Attributes:
        shard: Where it goes.
        size_bytes: Number of its bytes.
        done_bytes: How many of them were handed over.
        state: SHA-256 of those that were written.
    """

    shard: Shard
    size_bytes: int
    done_bytes: int = 0
    state: Digest = field(default_factory=sha256)


class SafetensorsSink:
    """Writes a model into a folder.

    Args:
        output: The folder: nothing yet, or empty.
        facts: What is known of the merged model beside its tensors.
        base: The model that it is based on: its digest is asked for at the end, when a merge has
            read it anyway.
        companions: Files that are copied beside it; `describe` may give them later.
        largest_shard_bytes: Tensors' bytes of a file, unless a single tensor has more.
        durable: Whether it waits for the storage; a candidate need not outlive the program.

    Raises:
        ImpossibleSetting: The folder has something in it.
    """

    def __init__(
        self,
        output: Path,
        *,
        facts: ModelFacts,
        base: ModelSource | None = None,
        companions: Sequence[Companion] = (),
        largest_shard_bytes: int = LARGEST_SHARD_BYTES,
        durable: bool = True,
    ) -> None:
        self._folder = StagedFolder(output)
        self._facts = facts
        self._base = base
        self._companions = companions
        self._largest_shard_bytes = largest_shard_bytes
        self._durable = durable
        self._tensors: Mapping[str, TensorSpec] = {}
        self._shards: list[Shard] = []
        self._progress: dict[str, Progress] = {}
        self._tiles: queue.Queue[tuple[Progress, int, NDArray[Any]] | None] = queue.Queue(
            TILES_IN_FLIGHT
        )
        self._writer: threading.Thread | None = None
        self._flusher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flush")
        self._error: BaseException | None = None
        self.manifest: Manifest | None = None

    def describe(self, *, facts: ModelFacts, companions: Sequence[Companion]) -> None:
        """Sets what is known of the merged model, and what goes beside it, before it begins."""
        self._facts = facts
        self._companions = companions

    def begin(self, tensors: Mapping[str, TensorSpec]) -> None:
        """Starts a model. Called again, it throws away what was written since the last call.

        Raises:
            ImpossibleSetting: The storage has not enough room.
        """
        self._end_writer()
        self._close_files()
        self._folder.clear()
        self._error = None
        self._progress = {}
        self._tensors = tensors
        self._refuse_full_storage()
        groups = shard_groups(tensors, largest_shard_bytes=self._largest_shard_bytes)
        names = shard_names(len(groups))
        for name, group in zip(names, groups, strict=True):
            self._open_shard(self._folder.path / name, group)
        self._writer = threading.Thread(target=self._write_tiles, name="writer", daemon=True)
        self._writer.start()

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Takes the elements of a tensor from `start` on; they belong to the sink from now on.

        A tensor's elements come in order.
        """
        progress = self._progress[name]
        itemsize = ITEM_SIZES[self._tensors[name].dtype]
        if start * itemsize != progress.done_bytes or values.itemsize != itemsize:
            raise ValueError(
                f"tensor {name!r}: element {start} of {values.itemsize} bytes comes after"
                f" {progress.done_bytes} bytes of elements of {itemsize}"
            )
        offset = progress.shard.offsets[name] + progress.done_bytes
        progress.done_bytes += values.nbytes
        self._tiles.put((progress, offset, np.ascontiguousarray(values)))
        if self._error is not None:
            raise self._error

    def finish(self) -> str:
        """Commits the model and returns its digest."""
        self._end_writer()
        if self._error is not None:
            raise self._error
        for name, progress in self._progress.items():
            if progress.done_bytes != progress.size_bytes:
                raise ValueError(
                    f"tensor {name!r} has {progress.done_bytes} of {progress.size_bytes} bytes"
                )
        for shard in self._shards:
            if shard.flushing is not None:
                shard.flushing.result()
            if self._durable:
                os.fsync(shard.descriptor)
        self._close_files()
        digests = {name: item.state.digest().hex() for name, item in self._progress.items()}
        facts = self._facts
        if self._base is not None:
            facts = replace(facts, base_digest=self._base.digest)
        self.manifest = manifest_of(self._tensors, digests, facts)
        self._write_companions(self.manifest)
        self._folder.commit()
        return self.manifest.digest

    def close(self) -> None:
        """Deletes what was not finished."""
        self._end_writer()
        self._flusher.shutdown()
        self._close_files()
        self._folder.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_full_storage(self) -> None:
        needed = sum(spec.size * ITEM_SIZES[spec.dtype] for spec in self._tensors.values())
        free = shutil.disk_usage(self._folder.path).free
        if needed > free:
            raise ImpossibleSetting(
                f"the merged model has {needed} bytes, {self._folder.path.parent} has {free} free",
                remedy="Make room, or write to another volume.",
            )

    def _open_shard(self, path: Path, group: Mapping[str, TensorSpec]) -> None:
        header = header_bytes(group, METADATA | self._tied_metadata())
        offsets: dict[str, int] = {}
        end = len(header)
        for name, spec in group.items():
            offsets[name] = end
            end += spec.size * ITEM_SIZES[spec.dtype]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        shard = Shard(path=path, descriptor=descriptor, offsets=offsets)
        self._shards.append(shard)
        # Room for all of it at once: a full disk ends the merge here, not half-way.
        reserve(descriptor, end)
        os.pwrite(descriptor, header, 0)
        for name, spec in group.items():
            size_bytes = spec.size * ITEM_SIZES[spec.dtype]
            self._progress[name] = Progress(shard=shard, size_bytes=size_bytes)

    def _tied_metadata(self) -> dict[str, str]:
        """Returns dropped name -> kept name, as `safetensors.torch.load_model` reads it."""
        metadata: dict[str, str] = {}
        for group in self._facts.tied_names:
            kept = [name for name in group if name in self._tensors]
            if len(kept) == 1:
                metadata |= {name: kept[0] for name in group if name != kept[0]}
        return metadata

    def _write_tiles(self) -> None:
        while (tile := self._tiles.get()) is not None:
            if self._error is not None:
                continue
            progress, offset, values = tile
            try:
                content = values.view(np.uint8).data
                progress.state.update(content)
                done = 0
                while done < len(content):
                    done += os.pwrite(progress.shard.descriptor, content[done:], offset + done)
                self._flush_now_and_then(progress.shard, count=len(content))
            except BaseException as error:  # noqa: BLE001 - raised again by write or finish
                self._error = error

    def _flush_now_and_then(self, shard: Shard, *, count: int) -> None:
        shard.unflushed_bytes += count
        due = self._durable and shard.unflushed_bytes >= FLUSH_BYTES
        if due and (shard.flushing is None or shard.flushing.done()):
            shard.unflushed_bytes = 0
            shard.flushing = self._flusher.submit(os.fdatasync, shard.descriptor)

    def _end_writer(self) -> None:
        if self._writer is not None:
            self._tiles.put(None)
            self._writer.join()
            self._writer = None

    def _close_files(self) -> None:
        for shard in self._shards:
            if shard.flushing is not None:
                shard.flushing.exception()
            os.close(shard.descriptor)
        self._shards = []

    def _write_companions(self, manifest: Manifest) -> None:
        folder = self._folder.path
        files = {name: item.shard.path.name for name, item in self._progress.items()}
        if len(set(files.values())) > 1:
            total = sum(item.size_bytes for item in self._progress.values())
            index = {"metadata": {"total_size": total}, "weight_map": files}
            write_synced(folder / INDEX_FILE, json.dumps(index, indent=2).encode() + b"\n")
        for file in self._companions:
            write_synced(folder / file.path.name, file.read())
        write_synced(folder / MANIFEST_FILE, manifest.to_bytes() + b"\n")


def shard_groups(
    tensors: Mapping[str, TensorSpec], *, largest_shard_bytes: int
) -> list[dict[str, TensorSpec]]:
    """Returns which tensors go into which file, in the order in which their bytes lie there.

    Files take tensors in byte order of name. Within a file larger element types come first, so
    that every tensor is aligned to its own.
    """
    groups: list[dict[str, TensorSpec]] = [{}]
    room = largest_shard_bytes
    for name in sorted(tensors, key=str.encode):
        size_bytes = tensors[name].size * ITEM_SIZES[tensors[name].dtype]
        if size_bytes > room and groups[-1]:
            groups.append({})
            room = largest_shard_bytes
        groups[-1][name] = tensors[name]
        room -= size_bytes
    return [
        dict(sorted(group.items(), key=lambda item: -ITEM_SIZES[item[1].dtype])) for group in groups
    ]


def shard_names(count: int) -> list[str]:
    """Returns the files' names as the transformers library looks for them."""
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
