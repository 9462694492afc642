"""The machine-wide kernel settings that kubelet changes: noted before, put back after.

They are not in any namespace, so all clusters of a machine share them: the first one notes
them and the last one to go puts them back. Never here: settings inside the namespaces,
which end with them (network.py).
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from cabildo_local.state import RUNTIME

NOTE = RUNTIME / "kernel-settings.json"
# What kubelet sets when `protectKernelDefaults` is false.
CHANGED_BY_KUBELET = (
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
    values = {name: (sysctl / name).read_text().strip() for name in CHANGED_BY_KUBELET}
    temporary = note.with_suffix(".new")
    temporary.write_text(json.dumps(values))
    temporary.rename(note)


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
