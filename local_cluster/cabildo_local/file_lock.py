"""One writer at a time, over all processes of this machine that share the cache.

Here: a lock on a file that ends with its process, however that ends. Never here: what the
lock protects (binaries.py, image_store.py).
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cabildo_local.reporter import Reporter


@contextmanager
def file_lock(
    path: Path, *, waiting_for: str, reporter: Reporter, shared: bool = False
) -> Iterator[None]:
    """Hold the lock while the context lasts.

    The kernel drops the lock when its holder dies, so a killed `up` blocks nobody. Each call
    opens the file anew, so that threads of one process exclude each other too.

    Args:
        path: The lock's file; made when it is missing, never removed (a removed file would
            let two processes hold "the same" lock).
        waiting_for: What another holder is doing, for the line that says why we wait.
        reporter: Receives that line.
        shared: Hold it together with others who share it, to keep out those who do not.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.note(f"waiting for another process: {waiting_for}")
            fcntl.flock(file, mode)
        yield
