"""A folder or file that is there whole or not at all, whatever happens to who writes it.

    .NAME.partial         while it is written; locked, so that only one program writes
    NAME                  after everything in it has reached the storage

Here: their life. Never here: what is in them. Next: `file_sinks.py`, the command line's record.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

from cabildo_trainer.consensus.errors import ImpossibleSetting


class StagedFolder:
    """A folder in the making.

    Args:
        target: Where it will be: nothing, or an empty folder.

    Raises:
        ImpossibleSetting: There is something, the path ends in no name, another program is writing
            there, or the folder that is written first is a link or no folder.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        refuse_nameless(target)
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


class StagedFile:
    """A file in the making, which replaces the one before it.

    It is made before the work whose outcome it takes: a place where nothing can be written is
    found out before, not after.

    Args:
        target: Where it will be; where a link leads, if it is one.

    Raises:
        ImpossibleSetting: No file can be there, or another program is writing it.
    """

    def __init__(self, target: Path) -> None:
        refuse_nameless(target)
        # Not Path.resolve, which raises RuntimeError where links lead in a circle.
        self.target = Path(os.path.realpath(target))
        if self.target.exists() and not self.target.is_file():
            raise ImpossibleSetting(f"{target} is no file", remedy="Give a file's path.")
        self.path = self.target.with_name(f".{self.target.name}.partial")
        try:
            self._file: int | None = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
            )
        except OSError as error:
            raise ImpossibleSetting(
                f"{target} cannot be written: {error.strerror}",
                remedy="Give a file in a folder that can be written, with a name that leaves room"
                " for '.' and '.partial'.",
            ) from error
        if not _locked(self._file):
            os.close(self._file)
            raise ImpossibleSetting(
                f"another program is writing {target}", remedy="Wait for it, or end it."
            )

    def commit(self, content: bytes) -> None:
        """Puts the file in its place with this content, after the storage has it."""
        assert self._file is not None
        os.ftruncate(self._file, 0)  # of what an earlier program left
        with open(self._file, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(self._file)
        self.path.replace(self.target)
        sync_folder(self.target.parent)
        self._release()

    def abandon(self) -> None:
        """Deletes the file unless it was committed."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._release()

    def _release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


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
    """Locks a folder or file; returns False where another program has it."""
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


def refuse_nameless(target: Path) -> None:
    """Refuses a path without a last name (empty, `.`, `/`, or ending in `..`).

    What is being written lies beside it under that name, and takes its place at the end: it cannot
    take that of the folder where the program runs.

    Raises:
        ImpossibleSetting: There is no name.
    """
    if target.name in {"", ".."}:
        raise ImpossibleSetting(
            f"output {str(target)!r} has no name of its own", remedy="Give it a new name."
        )


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
