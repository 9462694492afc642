"""Checkpoints: written by all ranks, committed by one rename, read back only when they verify.

Here: commit, choice and restore, as one protocol of all ranks. Never here: what a module or an
optimiser is; they come as state dicts. Next: `retention.py` decides what stays, `fence.py` who may
commit.

A commit: every rank writes its own file into the attempt's staging folder; rank 0 adds weights,
state and the manifest that names all of them, looks at the fence, renames the folder to its step
and syncs the parent. Whatever is not renamed does not exist.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cabildo_api.scalars import format_time
from cabildo_trainer.engine.content import Content, Identity, Restored, SetAside
from cabildo_trainer.engine.fence import Fence, FenceEntry
from cabildo_trainer.engine.folder import RunFolder, sync_folder, write_synced
from cabildo_trainer.engine.manifest import (
    MANIFEST_FILE,
    Committed,
    FileEntry,
    Manifest,
    digest_of,
    read_manifest,
    read_verified,
)
from cabildo_trainer.engine.packing import (
    STATE_FILE,
    WEIGHTS_FILE,
    files_of,
    pack,
    pack_weights,
    rank_file,
    unpack,
    unpack_weights,
)
from cabildo_trainer.engine.retention import discard, prune
from cabildo_trainer.errors import (
    BadDataError,
    BadSpecError,
    DamagedCheckpointError,
    FencedError,
    NoValidCheckpointError,
    RanksDivergedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cabildo_api.checkpoint import Keep
    from cabildo_api.limits import Objective
    from cabildo_trainer.engine.gang import Gang


class CheckpointStore:
    """The checkpoints of a run, as one attempt sees them. Every method is called by all ranks."""

    def __init__(self, folder: RunFolder, *, identity: Identity, gang: Gang) -> None:
        self.folder = folder
        self.fence = Fence(folder.fence)
        self._identity = identity
        self._gang = gang

    def start_attempt(self) -> Restored:
        """Chooses where the attempt starts and raises the fence there.

        Raises:
            NoValidCheckpointError: Checkpoints exist and none verifies.
            FencedError: A higher attempt has started.
            BadSpecError: The checkpoint is of another number of ranks.
            BadDataError: The checkpoint is of other data.
        """
        self._as_leader(self._make_folder)
        restored = self._newest()
        step = restored.checkpoint.manifest.step if restored.checkpoint else 0
        entry = FenceEntry(attempt=self._identity.attempt, step=step)
        self._as_leader(lambda: self.fence.raise_fence(entry))
        self._as_leader(lambda: self.folder.clear_staging(below_attempt=self._identity.attempt))
        return restored

    def commit(
        self, content: Content, *, step: int, epoch: int, final: bool, objective: float | None
    ) -> Committed:
        """Writes a checkpoint and makes it the run's newest.

        Raises:
            FencedError: A higher attempt has started; nothing was committed.
            RanksDivergedError: Ranks hold different parameters.
        """
        try:
            return self._commit(content, step=step, epoch=epoch, final=final, objective=objective)
        except FileNotFoundError:
            # A later attempt has cleared the staging folder of this one.
            self.fence.check(self._identity.attempt)
            raise

    def _commit(
        self, content: Content, *, step: int, epoch: int, final: bool, objective: float | None
    ) -> Committed:
        staging = self.folder.attempt_staging(self._identity.attempt)
        self._as_leader(self._begin)
        files = [_write(staging, rank_file(self._gang.rank), pack(content.own))]
        weights = pack_weights(content.weights)
        if self._gang.is_leader:
            files.append(_write(staging, WEIGHTS_FILE, weights))
            files.append(_write(staging, STATE_FILE, pack(content.shared)))
        entries = self._gang.gather((files, content.own["parameters_sha256"]))
        if len({digest for _, digest in entries}) > 1:
            raise RanksDivergedError(
                f"ranks hold different parameters at step {step}: nothing was committed",
                remedy="Look for a faulty node, or for a module that differs between ranks.",
            )
        manifest = self._manifest(
            tuple(entry for rank_files, _ in entries for entry in rank_files),
            step=step, epoch=epoch, final=final, objective=objective,
        )  # fmt: skip
        self._as_leader(lambda: self._publish(manifest))
        return self._gang.from_leader(Committed(manifest, digest_of(manifest.to_bytes())))

    def admitted(self) -> list[Committed]:
        """Returns the checkpoints that count, newest first; damage shows only in `read`."""
        found = []
        for step in self.folder.committed_steps():
            try:
                manifest, digest = read_manifest(self.folder.step(step))
            except DamagedCheckpointError:
                continue
            if self.fence.admits(attempt=manifest.attempt, step=step):
                found.append(Committed(manifest, digest))
        return found

    def read(self, step: int) -> tuple[Committed, Content]:
        """Returns a verified checkpoint, with the part of this rank.

        Raises:
            DamagedCheckpointError: It does not verify.
        """
        folder = self.folder.step(step)
        manifest, digest = read_manifest(folder)
        if manifest.step != step:
            raise DamagedCheckpointError(f"{MANIFEST_FILE} is of step {manifest.step}")
        if manifest.world_size != self._gang.world_size:
            raise BadSpecError(
                f"spec.nodes is {self._gang.world_size}, but the run's checkpoint at step {step}"
                f" has {manifest.world_size} ranks",
                remedy=f"Set spec.nodes to {manifest.world_size}, or set a new spec.runID.",
            )
        contents = {}
        for entry in manifest.files:
            # Rank 0 answers for all files; the others read what they need.
            if self._gang.is_leader or entry.name in files_of(self._gang.rank):
                contents[entry.name] = read_verified(folder, entry)
        own = rank_file(self._gang.rank)
        for name in files_of(self._gang.rank):
            manifest.entry(name)
        return Committed(manifest, digest), Content(
            weights=unpack_weights(contents[WEIGHTS_FILE]),
            shared=unpack(contents[STATE_FILE], name=STATE_FILE),
            own=unpack(contents[own], name=own),
        )

    def _make_folder(self) -> None:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.fence.check(self._identity.attempt)

    def _newest(self) -> Restored:
        corrupt: list[SetAside] = []
        for step in self._gang.from_leader(self._candidates() if self._gang.is_leader else []):
            found, damage = None, ""
            try:
                found = self.read(step)
            except DamagedCheckpointError as error:
                damage = str(error)
            reasons = [reason for reason in self._gang.gather(damage) if reason]
            if found and not reasons:
                self._check_unchanged(found[0].manifest)
                return Restored(found[0], found[1], tuple(corrupt))
            corrupt.append(SetAside(path=self._set_aside(step), reason=reasons[0]))
        had_corrupt = self._gang.from_leader(self.folder.has_corrupt())
        if corrupt or had_corrupt:
            newest = f"; the newest: {corrupt[0].reason}" if corrupt else ""
            raise NoValidCheckpointError(f"no checkpoint of the run verifies{newest}")
        return Restored(None, None, ())

    def _candidates(self) -> list[int]:
        """Returns the steps to try, newest first: those a fenced attempt committed do not count."""
        steps = []
        for step in self.folder.committed_steps():
            try:
                manifest, _ = read_manifest(self.folder.step(step))
            except DamagedCheckpointError:
                steps.append(step)
                continue
            if self.fence.admits(attempt=manifest.attempt, step=step):
                steps.append(step)
        return steps

    def _set_aside(self, step: int) -> str:
        name = self.folder.set_aside(step).name if self._gang.is_leader else ""
        return self._gang.from_leader(name)

    def _check_unchanged(self, manifest: Manifest) -> None:
        """Refuses to go on with something else than what the checkpoint was made with."""
        for part, digest in self._identity.fixed.items():
            if manifest.fixed.get(part) != digest:
                raise BadSpecError(
                    f"spec.{part} changed since step {manifest.step} of the run",
                    remedy=f"Put spec.{part} back, or set a new spec.runID to train anew with it.",
                )
        if manifest.data_digest != self._identity.data_digest:
            raise BadDataError(
                f"the data changed since step {manifest.step}: it was {manifest.data_digest},"
                f" now it is {self._identity.data_digest}",
                remedy="Put the former file back, or set a new spec.runID to train on the new one.",
            )
        # Another number of threads adds up in another order: a run keeps that of its first attempt,
        # whatever the pod's CPU limit says now.
        self._identity = replace(self._identity, threads=manifest.threads)

    @property
    def threads(self) -> int:
        """Threads of each rank in this run."""
        return self._identity.threads

    def prune(self, *, keep: Keep, objective: Objective) -> None:
        """Deletes the checkpoints that need not stay.

        Raises:
            FencedError: A higher attempt has started; nothing was deleted.
        """
        self._as_leader(
            lambda: prune(
                self.folder,
                fence=self.fence,
                attempt=self._identity.attempt,
                keep=keep,
                objective=objective,
            )
        )

    def _manifest(
        self,
        files: tuple[FileEntry, ...],
        *,
        step: int,
        epoch: int,
        final: bool,
        objective: float | None,
    ) -> Manifest:
        identity = self._identity
        return Manifest(
            uid=identity.uid,
            run=identity.run,
            attempt=identity.attempt,
            step=step,
            epoch=epoch,
            final=final,
            objective=objective,
            world_size=self._gang.world_size,
            threads=identity.threads,
            config_digest=identity.config_digest,
            fixed=identity.fixed,
            data_digest=identity.data_digest,
            time=format_time(datetime.now(UTC)),
            libraries=identity.libraries,
            files=tuple(sorted(files, key=lambda entry: entry.name)),
        )

    def _begin(self) -> None:
        self.fence.check(self._identity.attempt)
        _empty_folder(self.folder.attempt_staging(self._identity.attempt))

    def _publish(self, manifest: Manifest) -> None:
        staging = self.folder.attempt_staging(self._identity.attempt)
        target = self.folder.step(manifest.step)
        write_synced(staging / MANIFEST_FILE, manifest.to_bytes())
        sync_folder(staging)
        try:
            self.fence.check(self._identity.attempt)
            if target.exists():
                self._make_way(manifest.step)
        except FencedError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        staging.rename(target)
        sync_folder(self.folder.path)

    def _make_way(self, step: int) -> None:
        """Removes what an earlier attempt left at a step; never the work of a later one."""
        try:
            later: int | None = read_manifest(self.folder.step(step))[0].attempt
        except DamagedCheckpointError:
            later = None
        if later is None or later <= self._identity.attempt:
            later = discard(self.folder, step=step, attempt=self._identity.attempt)
        if later is not None:
            raise FencedError(f"attempt {later} has committed step {step} already")

    def _as_leader(self, action: Callable[[], None]) -> None:
        """Lets rank 0 act while the others wait; being fenced is known to all of them."""
        fenced = ""
        if self._gang.is_leader:
            try:
                action()
            except FencedError as error:
                fenced = str(error)
        fenced = self._gang.from_leader(fenced)
        if fenced:
            raise FencedError(fenced)


def _empty_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _write(folder: Path, name: str, content: bytes) -> FileEntry:
    write_synced(folder / name, content)
    return FileEntry(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
