"""The machine-wide kernel settings that nodes need or change: noted before, put back after.

They are not in any namespace, so all clusters of a machine share them: the first one notes
them and the last one to go puts them back. Never here: settings inside the namespaces,
which end with them (network.py).
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from cabildo_local.errors import PrerequisiteError
from cabildo_local.state import RUNTIME

NOTE = RUNTIME / "kernel-settings.json"
# kubelet, containerd and every container watch files; Linux's default of 128 watchers is
# used up by two clusters.
WATCHERS = "fs/inotify/max_user_instances"
WATCHERS_NEEDED = 8192
# Ours, and what kubelet sets when `protectKernelDefaults` is false.
CHANGED = (
    WATCHERS,
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def save(*, note: Path = NOTE, sysctl: Path = Path("/proc/sys")) -> None:
    """Note the settings, unless another cluster did before it changed them."""
    if note.exists():
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    values = {name: (sysctl / name).read_text().strip() for name in CHANGED}
    temporary = note.with_suffix(".new")
    temporary.write_text(json.dumps(values))
    temporary.rename(note)


def raise_limits(*, sysctl: Path = Path("/proc/sys")) -> None:
    """Allow as many watchers of files as nodes need; more than that stays.

    Raises:
        PrerequisiteError: The kernel does not let us.
    """
    limit = sysctl / WATCHERS
    if int(limit.read_text()) >= WATCHERS_NEEDED:
        return
    try:
        limit.write_text(str(WATCHERS_NEEDED))
    except OSError as error:
        raise PrerequisiteError(
            f"{limit} is {limit.read_text().strip()} and cannot be raised: {error}",
            remedy=f"set it to {WATCHERS_NEEDED} where it can be, or run with --nodes 0",
        ) from error


def restore(*, note: Path = NOTE, sysctl: Path = Path("/proc/sys")) -> None:
    """Put the settings back when no cluster with nodes is left, and forget the note."""
    if not note.exists() or any(note.parent.glob("*/node*")):
        return
    for name, value in json.loads(note.read_text()).items():
        if (sysctl / name).read_text().strip() != value:
            # The kernel may refuse one; the others still go back.
            with suppress(OSError):
                (sysctl / name).write_text(value)
    note.unlink()
    with suppress(OSError):
        note.parent.rmdir()
