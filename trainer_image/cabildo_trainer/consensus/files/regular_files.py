"""Opening files that somebody else put there: a pipe would wait for ever, a device never end.

Here: opening, reading and hashing what is a regular file, and refusing all else. Never here: what
is in it. Next: `safetensors_files.py`, `file_sources.py` and `companions.py` open models with it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from cabildo_trainer.consensus.errors import ManifestMismatch

if TYPE_CHECKING:
    from pathlib import Path

_NOT_TO_BE_OPENED: Final = frozenset({errno.ENXIO, errno.ENODEV})
"""What opening a socket, or a device that is not there, gives."""


def open_regular(path: Path) -> int:
    """Returns the descriptor of a regular file, or of one that a link leads to, for reading.

    Raises:
        ManifestMismatch: It is a pipe, a device, a socket or a folder.
        OSError: It cannot be opened.
    """
    try:
        # Without O_NONBLOCK opening a pipe waits for its writer. Regular files know no difference.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in _NOT_TO_BE_OPENED:
            raise _not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


def read_regular(path: Path, *, most_bytes: int = sys.maxsize) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: The file.
        most_bytes: A longer one is refused.

    Raises:
        ManifestMismatch: It is longer, or no regular file.
        OSError: It cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > most_bytes:
            raise ManifestMismatch(
                f"{path} has {size_bytes} bytes, more than {most_bytes}",
                remedy="Copy or export the model again.",
            )
        return file.read(size_bytes)


def sha256_of_regular(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a regular file.

    Raises:
        ManifestMismatch: It is none.
        OSError: It cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_regular(path: Path) -> ManifestMismatch:
    return ManifestMismatch(
        f"{path} is no regular file", remedy="Copy or export the model again: it is made of files."
    )
