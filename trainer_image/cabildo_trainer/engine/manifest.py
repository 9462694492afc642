"""The manifest: what a checkpoint consists of, and the digests that prove it.

Here: the record in `manifest.json`, its Merkle root and the verification of a folder. Never here:
tensors. Next: `checkpoint.py`, which writes and reads folders.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.errors import BadSpecError, DamagedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA_VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint is.

    Attributes:
        uid: UID of the TrainingJob.
        run: Number of the run.
        attempt: Attempt that committed.
        step: Batches done.
        epoch: Epochs begun before this step, from 0.
        final: Whether training ended here.
        objective: Value of the objective if the model was evaluated at this very step.
        world_size: Number of ranks, each with a `rank-<n>.pt`.
        threads: Threads of each rank; another number gives other losses.
        config_digest: Digest of what decides the run's numbers.
        fixed: Digest of each part of the spec that may not change within a run.
        data_digest: Digest of the rows.
        time: When it was committed, RFC 3339.
        libraries: Versions by name.
        files: All files but the manifest, by name.
    """

    uid: str
    run: int
    attempt: int
    step: int
    epoch: int
    final: bool
    objective: float | None
    world_size: int
    threads: int
    config_digest: str
    fixed: dict[str, str]
    data_digest: str
    time: str
    libraries: dict[str, str]
    files: tuple[FileEntry, ...]

    def to_bytes(self) -> bytes:
        """Returns the JSON text of the file."""
        record = {
            "schemaVersion": SCHEMA_VERSION,
            **asdict(self),
            "merkleRoot": merkle_root(self.files),
        }
        return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()

    def entry(self, name: str) -> FileEntry:
        """Returns the entry of a file.

        Raises:
            DamagedCheckpointError: The manifest does not name it.
        """
        for entry in self.files:
            if entry.name == name:
                return entry
        raise DamagedCheckpointError(f"{MANIFEST_FILE} does not name {name}")


@dataclass(frozen=True, slots=True)
class Committed:
    """A checkpoint on the volume: its manifest, and the digest of that file."""

    manifest: Manifest
    digest: str


def digest_of(manifest: bytes) -> str:
    """Returns the digest by which a checkpoint is reported."""
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def merkle_root(files: Sequence[FileEntry]) -> str:
    """Returns the root of the tree over files by name, as RFC 6962 hashes leaves and nodes."""
    level = [
        hashlib.sha256(b"\0" + f"{entry.name}\0{entry.size}\0{entry.sha256}".encode()).digest()
        for entry in sorted(files, key=lambda entry: entry.name)
    ]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = [level[index : index + 2] for index in range(0, len(level), 2)]
        # An odd node moves up unchanged, which gives RFC 6962's left-complete tree.
        level = [
            hashlib.sha256(b"\1" + pair[0] + pair[1]).digest() if len(pair) > 1 else pair[0]
            for pair in pairs
        ]
    return level[0].hex()


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Returns the manifest of a checkpoint's folder and its digest.

    Raises:
        DamagedCheckpointError: It is missing, or not what was written.
        BadSpecError: Another version of the trainer wrote it.
    """
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise DamagedCheckpointError(f"{MANIFEST_FILE}: {error.strerror}") from error
    try:
        record: dict[str, Any] = json.loads(content)
        version = record.pop("schemaVersion")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{MANIFEST_FILE} cannot be read: {error}") from error
    if version != SCHEMA_VERSION:
        # A good checkpoint of another image is not damage: it must not be renamed.
        raise BadSpecError(
            f"{folder.name}/{MANIFEST_FILE} has schema version {version!r}, this trainer knows"
            f" {SCHEMA_VERSION}",
            remedy="Use the trainer image that wrote the checkpoint, or set a new spec.runID.",
        )
    try:
        root = record.pop("merkleRoot")
        files = tuple(FileEntry(**entry) for entry in record.pop("files"))
        manifest = Manifest(files=files, **record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{MANIFEST_FILE} cannot be read: {error}") from error
    if root != merkle_root(files):
        raise DamagedCheckpointError(f"{MANIFEST_FILE}: its Merkle root does not match its files")
    return manifest, digest_of(content)


def read_verified(folder: Path, entry: FileEntry) -> bytes:
    """Returns the content of a file if it is the one that the manifest names.

    Raises:
        DamagedCheckpointError: It is missing or differs.
    """
    try:
        content = (folder / entry.name).read_bytes()
    except OSError as error:
        raise DamagedCheckpointError(f"{entry.name}: {error.strerror}") from error
    if len(content) != entry.size:
        raise DamagedCheckpointError(
            f"{entry.name} has {len(content)} bytes instead of {entry.size}"
        )
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DamagedCheckpointError(f"{entry.name} does not match its SHA-256")
    return content
