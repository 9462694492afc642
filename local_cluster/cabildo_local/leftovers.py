"""Clearing what a cluster left on the machine: after `down`, and after it was killed.

Here: processes, mounts, namespaces, links, control groups, sockets, and the few files that
container software insists on putting elsewhere. Every step is fine with nothing there, so
clearing twice, or clearing what was half made, works the same. Never here: the state folder
(state.py), and anything that is not named after the cluster.
"""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.mounts import unmount_below

if TYPE_CHECKING:
    from cabildo_local.cgroups import Slice
    from cabildo_local.network import Network
    from cabildo_local.state import State

CONTAINER_LINKS = Path("/var/log/containers")
CNI_RESULTS = Path("/var/lib/cni/results")
DEVICE_SOCKET = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
SHIM_SOCKETS = Path("/run/containerd/s")


def clear(state: State, *, slice_: Slice, network: Network) -> None:
    """Leave nothing of a cluster running, mounted or routed.

    Raises:
        ProcessError: A process or a mount cannot be got rid of.
    """
    slice_.kill()
    _remove_shim_sockets(state.runtime)
    _remove_network_results(state)
    unmount_below([state.folder, state.runtime])
    network.remove()
    slice_.remove()
    shutil.rmtree(state.runtime, ignore_errors=True)
    with suppress(OSError):
        state.runtime.parent.rmdir()
    _remove_strays(state)


def found(state: State, *, slice_: Slice, network: Network) -> bool:
    """Whether anything of a cluster is on the machine."""
    return slice_.exists() or state.runtime.exists() or bool(network.leftover_namespaces())


def _remove_shim_sockets(runtime: Path) -> None:
    # containerd keeps them in one fixed folder for all its instances; each shim's own
    # folder says which one is its.
    for file in runtime.glob("*/containerd/io.containerd.runtime.v2.task/*/*/address"):
        with suppress(OSError):
            socket = Path(file.read_text().removeprefix("unix://"))
            if socket.parent == SHIM_SOCKETS:
                socket.unlink()


def _remove_strays(state: State) -> None:
    # kubelet links every container's log here, wherever its own folders are.
    for link in CONTAINER_LINKS.glob("*.log"):
        with suppress(OSError):
            if link.is_symlink() and link.readlink().is_relative_to(state.folder):
                link.unlink()
    _remove_device_socket()


def _remove_device_socket() -> None:
    # kubelet makes it for device plugins, at this place alone; another one may live here.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(DEVICE_SOCKET))
        except ConnectionRefusedError:
            DEVICE_SOCKET.unlink()
        except OSError:
            return
    for folder in (DEVICE_SOCKET.parent, DEVICE_SOCKET.parent.parent):
        with suppress(OSError):
            folder.rmdir()


def _remove_network_results(state: State) -> None:
    # CNI keeps what it did for every pod in one folder of the machine, and the network within
    # the pod has one name in all clusters: whose it is, its text says.
    mark = f'"{state.runtime}/'
    for result in CNI_RESULTS.glob("*"):
        with suppress(OSError):
            if mark in result.read_text(errors="replace"):
                result.unlink()
