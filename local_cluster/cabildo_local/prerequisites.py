"""What a machine must have before anything is started; each lack with its remedy.

Here: checks that change nothing. Never here: installing packages (packages.py) or getting
binaries (binaries.py), which find out by themselves what is missing.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.cgroups import find_hierarchies
from cabildo_local.commands import run_command
from cabildo_local.errors import CommandError, PrerequisiteError

if TYPE_CHECKING:
    from cabildo_local.cgroups import Hierarchies
    from cabildo_local.settings import ClusterSettings

GIB = 1024**3
# A control plane's data and logs; with nodes also room for small pods. What building the
# product's images takes is checked there (images.py), what unpacking them takes in node_space.py.
SPACE_CONTROL_PLANE_BYTES = 1 * GIB
SPACE_NODES_BYTES = 2 * GIB


def check_machine(settings: ClusterSettings) -> Hierarchies:
    """Check that a cluster can run here.

    Returns:
        The control group hierarchies.

    Raises:
        PrerequisiteError: Something is missing.
    """
    check_system()
    check_root()
    hierarchies = read_hierarchies()
    _check_namespaces()
    needed = SPACE_NODES_BYTES if settings.nodes else SPACE_CONTROL_PLANE_BYTES
    check_space(settings.state_root, needed_bytes=needed)
    if settings.fake_nodes is not None and not settings.fake_nodes.is_file():
        raise PrerequisiteError(
            f"the file with fake nodes {settings.fake_nodes} is not there",
            remedy="see docs/local-cluster.md for one",
        )
    return hierarchies


def check_system() -> None:
    """Check the operating system.

    Raises:
        PrerequisiteError: It is not Linux on x86-64 or arm64.
    """
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in {"x86_64", "aarch64"}:
        raise PrerequisiteError(
            f"a local cluster needs Linux on x86-64 or arm64, this is {system} on {machine}",
            remedy="use a Linux virtual machine, or any cluster through KUBECONFIG",
        )


def check_root() -> None:
    """Check that this is root, who alone may make namespaces, mounts and control groups.

    Raises:
        PrerequisiteError: It is somebody else.
    """
    if os.geteuid() != 0:
        raise PrerequisiteError(
            "a local cluster needs root: it makes namespaces, mounts and control groups",
            remedy="use sudo",
        )


def read_hierarchies() -> Hierarchies:
    """Return the control group hierarchies of this machine.

    Raises:
        PrerequisiteError: There is none, or it cannot be written.
    """
    hierarchies = find_hierarchies(Path("/proc/self/mountinfo").read_text())
    if not os.access(hierarchies.tracking, os.W_OK):
        raise PrerequisiteError(
            f"the control groups in {hierarchies.tracking} are read-only",
            remedy="in a container: run it privileged and with a writable /sys/fs/cgroup",
        )
    return hierarchies


def check_space(folder: Path, *, needed_bytes: int, purpose: str = "a cluster's state") -> None:
    """Check that a file system has room.

    Args:
        folder: Where it is needed; need not exist yet.
        needed_bytes: How much, as measured.
        purpose: What for.

    Raises:
        PrerequisiteError: It has less than needed.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise PrerequisiteError(
            f"{existing} has {free_bytes / GIB:.1f} GiB free, {purpose} needs"
            f" {needed_bytes / GIB:.1f} GiB",
            remedy="free some, or set CABILDO_STATE and CABILDO_CACHE to folders on another disk",
        )


def _check_namespaces() -> None:
    try:
        run_command(["unshare", "--net", "--mount", "true"])
    except CommandError as error:
        raise PrerequisiteError(
            f"network and mount namespaces cannot be made here: {error}",
            remedy="in a container: run it privileged; else check the kernel's CONFIG_NET_NS",
        ) from error
