"""How many threads a call takes: the cgroup's quota of CPUs, and only for work that is worth it.

Here: reading the quota once. Never here: starting a thread; native/parallel.h does, for the length
of a call. How many there are changes no bit of a result.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Final

from cabildo_kernels.arguments import whole_number
from cabildo_kernels.errors import InvalidInput

WORTH_IT_BYTES: Final = 1 << 20
"""Input below this stays on one thread: starting another costs as much as reading it."""
MOST: Final = 256
"""As native/parallel.h."""
CGROUPS: Final = Path("/sys/fs/cgroup")


def quota_of(limits: str) -> float | None:
    """Return the CPUs of a cgroup v2 `cpu.max` ("200000 100000" is 2), None for no limit."""
    quota, _, period = limits.partition(" ")
    if quota.strip() == "max":
        return None
    return int(quota) / int(period)


def cgroup_quota(*, cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the least quota of this process's cgroup and those above it, None without one."""
    found: list[float] = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, name = line.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        root = cgroups / controllers if controllers else cgroups
        if not root.is_dir():  # v1 mounts may list the controllers in another order
            root = cgroups / "cpu"
        folder = root / name.lstrip("/")
        for place in (folder, *folder.parents):
            found.extend(_limit(place))
            if place == root:
                break
    return min(found, default=None)


def _limit(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").exists():
            limit = quota_of((folder / "cpu.max").read_text())
        else:  # cgroup v1, where -1 is no limit
            microseconds = int((folder / "cpu.cfs_quota_us").read_text())
            period = int((folder / "cpu.cfs_period_us").read_text())
            limit = None if microseconds <= 0 else microseconds / period
    except (OSError, ValueError):
        return []
    return [] if limit is None else [limit]


@functools.cache
def quota() -> int:
    """Return how many threads this process may keep busy, at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cgroup_quota()
    return max(1, min(MOST, cpus if limit is None else min(cpus, int(limit))))


def threads_for(size_bytes: int, *, asked: int | None) -> int:
    """Return how many threads to take for an input of so many bytes.

    Args:
        size_bytes: What the call reads.
        asked: The caller's own number, taken as it is; None for the quota, on large inputs only.

    Raises:
        InvalidInput: `asked` is below 1, or no whole number.
    """
    if asked is None:
        return quota() if size_bytes >= WORTH_IT_BYTES else 1
    count = whole_number("threads", asked)
    if count < 1:
        raise InvalidInput(f"threads={count}: 1 or more, or None for the CPU quota")
    return min(count, MOST)
