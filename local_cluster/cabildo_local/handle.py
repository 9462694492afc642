"""A local cluster as its users hold it: where things are, links to cut, how it is.

Here: the values that `cluster.up`, `cluster.find` and `cluster.status` return. Never here:
bringing a cluster up or down (cluster.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.state import Allotment
    from cabildo_local.steps import Parts


@dataclass(frozen=True, slots=True)
class Cluster:
    """A local cluster that is up.

    Attributes:
        name: Its name.
        kubeconfig: File with the administrator's access.
        registry: `host:port` of its image registry, the same for pushes and for pods.
        audit_log: The API server's audit log, JSON lines.
        nodes: The names of its real nodes.
        logs: Folder with the output of each program.
        parts: What it is changed through; for this package.
    """

    name: str
    kubeconfig: Path
    registry: str
    audit_log: Path
    nodes: tuple[str, ...]
    logs: Path
    parts: Parts = field(repr=False, compare=False)

    def cut_link(self, node: str) -> None:
        """Take a node's network cable out; its programs and pods go on.

        Raises:
            NetworkError: There is no such node.
        """
        self.parts.network.set_link(node, up=False)

    def restore_link(self, node: str) -> None:
        """Put a node's network cable back.

        Raises:
            NetworkError: There is no such node.
        """
        self.parts.network.set_link(node, up=True)

    def node_processes(self, node: str) -> dict[str, int]:
        """Return the process ids of a node's own programs by name."""
        names = [name for name in self.parts.processes.names() if name.startswith(f"{node}-")]
        pids = {name: self.parts.processes.pid(name) for name in names}
        return {name.removeprefix(f"{node}-"): pid for name, pid in pids.items() if pid}

    def containerd_socket(self, node: str) -> Path:
        """Return where a node's containerd listens, for `ctr --address`."""
        return self.parts.state.runtime / node / "containerd.sock"


@dataclass(frozen=True, slots=True)
class Status:
    """How a cluster is.

    Attributes:
        name: Its name.
        running: Programs that run.
        ended: Programs that should run and do not.
        allotment: What it was given; None if it never came up.
        ready: Whether its API server answers.
        kubeconfig: File with the administrator's access.
        registry: `host:port` of its image registry; empty if it never came up.
    """

    name: str
    running: tuple[str, ...]
    ended: tuple[str, ...]
    allotment: Allotment | None
    ready: bool
    kubeconfig: Path
    registry: str
