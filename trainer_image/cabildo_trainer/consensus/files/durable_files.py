"""A folder that is there whole or not at all, whatever happens to the program that writes it.

    .NAME.partial/        while it is written; locked, so that only one program writes
    NAME/                 after everything in it has reached the storage

Here: that folder's life. Never here: what is in it. Next: `file_sinks.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from cabildo_trainer.consensus.errors import ImpossibleSetting

if TYPE_CHECKING:
    from pathlib import Path


class StagedFolder:
    """A folder in the making.

    Args:
        target: Where it will be: nothing, or an empty folder.

    Raises:
        ImpossibleSetting: There is something, or another program is writing there, or the folder
            that is written first is a link or no folder.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        refuse_existing(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path = target.with_name(f".{target.name}.partial")
        self._lock: int | None = _open_own(self.path)
        if not _locked(self._lock):
            os.close(self._lock)
            raise ImpossibleSetting(
                f"another program is writing {target}", remedy="Wait for it, or end it."
            )
        self.clear()

    def clear(self) -> None:
        """Deletes what is in it, also what an earlier program left."""
        assert self._lock is not None
        # By the folder's descriptor: its name may lead elsewhere by now.
        with os.scandir(self._lock) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.name, dir_fd=self._lock)
                else:
                    os.unlink(entry.name, dir_fd=self._lock)

    def commit(self) -> None:
        """Puts the folder in its place; its files are on the storage already."""
        assert self._lock is not None
        os.fsync(self._lock)
        refuse_existing(self.target)
        self.path.rename(self.target)
        sync_folder(self.target.parent)
        self._release()

    def abandon(self) -> None:
        """Deletes the folder unless it was committed."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _open_own(path: Path) -> int:
    """Returns the descriptor of a folder, made if there is none, and never what a link leads to."""
    try:
        path.mkdir(exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
            raise
        what = "a symbolic link" if path.is_symlink() else "no folder"
        raise ImpossibleSetting(
            f"{path}, where the output is written first, is {what}",
            remedy="Delete it, or choose another output.",
        ) from error


def _locked(descriptor: int) -> bool:
    """Locks a folder; returns False where another program has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some network file systems have no locks: there, who starts two merges is on their own.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return True


def reserve(descriptor: int, size_bytes: int) -> None:
    """Makes a new file as long as it will be, with room on the storage where that can be asked for.

    Raises:
        OSError: The storage is full.
    """
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size_bytes)


def refuse_existing(target: Path) -> None:
    """Refuses a place where something is.

    Raises:
        ImpossibleSetting: It is a file, or a folder with something in it.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ImpossibleSetting(f"output {target} exists", remedy="Choose another folder.")
    if target.is_dir() and next(target.iterdir(), None) is not None:
        raise ImpossibleSetting(
            f"output {target} exists and is not empty",
            remedy="Choose another folder, or delete it; a merge never overwrites a model.",
        )


def sync_folder(path: Path) -> None:
    """Waits until the storage has the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a new file and waits until the storage has it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
