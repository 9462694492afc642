"""Mounts below a cluster's folders: made, found, and all of them ended.

Never here: mounts of pods and containers being made (kubelet and containerd do that).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.commands import run_command
from cabildo_local.errors import ProcessError

if TYPE_CHECKING:
    from collections.abc import Iterable

MOUNTINFO = Path("/proc/self/mountinfo")


def ensure_bind(source: Path, *, target: Path) -> None:
    """Show a folder at a second place, unless it is shown there already."""
    source.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    if target.resolve() in mounts_below([target.resolve()], mountinfo=MOUNTINFO.read_text()):
        return
    run_command(["mount", "--bind", str(source), str(target)])
    # What is mounted at one place must not appear, and stay, at the other.
    run_command(["mount", "--make-private", str(target)])


def unmount_below(folders: Iterable[Path]) -> None:
    """Unmount everything below some folders, the innermost first.

    Raises:
        ProcessError: A mount is still there afterwards.
    """
    roots = [folder.resolve() for folder in folders]
    for _ in range(3):
        mounts = mounts_below(roots, mountinfo=MOUNTINFO.read_text())
        if not mounts:
            return
        for mount in reversed(mounts):
            # Lazily: its users are dead, and what is busy now is gone in a moment.
            run_command(["umount", "--lazy", str(mount)], check=False)
    raise ProcessError(f"these cannot be unmounted: {', '.join(map(str, mounts))}")


def mounts_below(folders: Iterable[Path], *, mountinfo: str) -> list[Path]:
    """Return the mount points below some folders, in the order of mounting."""
    roots = list(folders)
    found = []
    for line in mountinfo.splitlines():
        escaped = line.split()[4]
        point = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), escaped))
        if any(point.is_relative_to(root) for root in roots):
            found.append(point)
    return found
