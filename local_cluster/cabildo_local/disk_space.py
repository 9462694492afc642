"""Whether a disk has room for what comes next.

Here: one check with a message that names folder, need and what is there. Never here: the
figures, which stand beside what needs the room.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cabildo_local.errors import PrerequisiteError

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def require_space(folder: Path, *, size_bytes: int, purpose: str) -> None:
    """Refuse to begin what would fill the disk.

    Args:
        folder: Where it would be written; made when it is missing.
        size_bytes: What it needs at its peak, as measured.
        purpose: What needs it, such as `the trainer image`.

    Raises:
        PrerequisiteError: There is less; the message says how much of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < size_bytes:
        raise PrerequisiteError(
            f"{folder}: {purpose} needs {size_bytes / GIB:.1f} GiB of free space while it is"
            f" made, {free_bytes / GIB:.1f} GiB are free",
            remedy="Free some, or set CABILDO_CACHE to a folder on a larger disk",
        )
