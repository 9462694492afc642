"""The control groups of one cluster: where its processes are put and found again.

Every process of a cluster is a member of `/cabildo.<name>` in one hierarchy, which also
holds through forks and when the parent dies: so this is how a cluster's processes are told
from all others, and no process id from a file is ever trusted. Works with cgroup v1, with
the hybrid of v1 and v2, and with v2 alone. Never here: limits of pods (kubelet's business).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.errors import PrerequisiteError, ProcessError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Without these kubelet does not start.
NEEDED_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The cgroup hierarchies of this machine.

    Attributes:
        roots: The mount point of each.
        tracking: The one by which processes are found.
        unified: Whether it is cgroup v2 alone.
    """

    roots: tuple[Path, ...]
    tracking: Path
    unified: bool


def find_hierarchies(mountinfo: str) -> Hierarchies:
    """Read the hierarchies from the text of /proc/self/mountinfo.

    Raises:
        PrerequisiteError: No cgroup hierarchy is mounted, or a controller is missing.
    """
    version_1: dict[Path, set[str]] = {}
    version_2: list[Path] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount_point = Path(left.split()[4])
        kind, _, options = right.split()[:3]
        if kind == "cgroup":
            version_1[mount_point] = set(options.split(","))
        elif kind == "cgroup2":
            version_2.append(mount_point)
    if version_1:
        missing = [c for c in NEEDED_CONTROLLERS if not any(c in o for o in version_1.values())]
        if missing:
            raise PrerequisiteError(
                f"the cgroup controllers {', '.join(missing)} are not mounted",
                remedy="mount them below /sys/fs/cgroup, or boot with cgroup v2",
            )
        tracking = next(mount for mount, options in version_1.items() if "pids" in options)
        return Hierarchies((*version_1, *version_2), tracking, unified=False)
    if version_2:
        return Hierarchies((version_2[0],), version_2[0], unified=True)
    raise PrerequisiteError(
        "no cgroup hierarchy is mounted",
        remedy="run on a machine, virtual machine or privileged container with /sys/fs/cgroup",
    )


class Slice:
    """The subtree `/cabildo.<name>` in every hierarchy.

    Args:
        name: The cluster's name.
        hierarchies: Those of this machine.
    """

    def __init__(self, name: str, *, hierarchies: Hierarchies) -> None:
        self.path = f"/cabildo.{name}"
        self._hierarchies = hierarchies

    def create(self, child: str) -> None:
        """Make the subtree's child group in every hierarchy, ready for processes."""
        for root in self._hierarchies.roots:
            directory = root
            for part in f"{self.path}/{child}".strip("/").split("/"):
                if self._hierarchies.unified:
                    _delegate_controllers(directory)
                directory /= part
                directory.mkdir(exist_ok=True)
                _fill_cpuset(directory)
            if self._hierarchies.unified:
                _require_controllers(directory)

    def process_files(self, child: str, *, leaf: str) -> list[Path]:
        """Return the files that a process writes itself into to join the slice.

        Args:
            child: A child group made by `create`, joined in every hierarchy.
            leaf: A group below it in the tracking hierarchy alone, made if missing.
        """
        files = []
        for root in self._hierarchies.roots:
            directory = root / self.path.strip("/") / child
            if root == self._hierarchies.tracking:
                directory /= leaf
                directory.mkdir(exist_ok=True)
            files.append(directory / "cgroup.procs")
        return files

    def pids(self, child: str = "") -> set[int]:
        """Return the ids of all living processes in the slice, or below one child of it."""
        found: set[int] = set()
        for directory in self._directories(self._hierarchies.tracking, child):
            with suppress(OSError):
                found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
        return {pid for pid in found if not is_zombie(pid)}

    def kill(self, child: str = "", *, timeout_s: float = 20.0) -> None:
        """Kill every process in the slice or below one child, until there is none.

        Raises:
            ProcessError: Some could not be killed in time.
        """
        deadline = time.monotonic() + timeout_s
        while pids := self.pids(child):
            if time.monotonic() > deadline:
                raise ProcessError(
                    f"the processes {sorted(pids)} cannot be killed",
                    remedy="look for hanging file systems with `cat /proc/<pid>/stack`",
                )
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def remove(self, *, timeout_s: float = 20.0) -> None:
        """Remove the empty slice from every hierarchy.

        Raises:
            ProcessError: A group stays busy.
        """
        deadline = time.monotonic() + timeout_s
        for root in self._hierarchies.roots:
            top = root / self.path.strip("/")
            while top.exists():
                for directory in sorted(self._directories(root, ""), reverse=True):
                    with suppress(OSError):
                        directory.rmdir()
                if top.exists() and time.monotonic() > deadline:
                    raise ProcessError(f"the control group {top} stays busy")
                if top.exists():
                    time.sleep(0.02)

    def exists(self) -> bool:
        """Whether the slice is there in any hierarchy."""
        return any((root / self.path.strip("/")).exists() for root in self._hierarchies.roots)

    def _directories(self, root: Path, child: str) -> Iterator[Path]:
        for directory, _, _ in os.walk(root / self.path.strip("/") / child):
            yield Path(directory)


def is_zombie(pid: int) -> bool:
    """Whether a process is gone, or has ended and only waits for its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def _delegate_controllers(directory: Path) -> None:
    available = (directory / "cgroup.controllers").read_text().split()
    for controller in available:
        with suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _require_controllers(directory: Path) -> None:
    available = (directory / "cgroup.controllers").read_text().split()
    missing = [name for name in ("cpu", "cpuset", "memory", "pids") if name not in available]
    if missing:
        raise PrerequisiteError(
            f"the cgroup controllers {', '.join(missing)} are not handed down to {directory}",
            remedy="in a container: move its processes out of the root of its cgroup namespace",
        )


def _fill_cpuset(directory: Path) -> None:
    # In v1 a new cpuset is empty and takes no process before it has both.
    if not (directory / "cgroup.clone_children").exists():
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = directory / name
        if file.exists() and not file.read_text().strip():
            file.write_text((directory.parent / name).read_text())
