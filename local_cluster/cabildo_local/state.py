"""What a cluster leaves on disk: one folder below the state root, and its lock.

    <state root>/<name>/
        cluster.json     range and nodes that were allotted
        kubeconfig       administrator's access
        audit.log        the API server's audit log, JSON lines, level Metadata
        pki/ etcd/ processes/ logs/ configuration/    gone after `down`
        volumes/         one folder a claim; after `down` only those to be retained
        nodes/<node>/    containerd's images stay after `down`, the rest does not

Here: paths, the lock that makes `up` and `down` of one cluster wait for each other, and the
little that is remembered. Never here: anything about running processes (processes.py).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.file_lock import file_lock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cabildo_local.reporter import Reporter

# One for the machine, because ranges of addresses belong to the machine.
ADDRESS_LOCK = Path("/run/lock/cabildo-addresses.lock")
RUNTIME = Path("/run/cabildo")


@dataclass(frozen=True, slots=True)
class Allotment:
    """What a cluster was given when it came up.

    Attributes:
        cidr: Its address range.
        nodes: How many real nodes it has.
        api_port: Port of its API server.
        registry_port: Port of its registry.
    """

    cidr: str
    nodes: int
    api_port: int
    registry_port: int


class State:
    """The state folder of one cluster.

    Args:
        root: Folder below which each cluster has its own.
        name: The cluster's name.
    """

    def __init__(self, root: Path, *, name: str) -> None:
        self._root = root
        self.name = name
        self.folder = root / name
        self.kubeconfig = self.folder / "kubeconfig"
        self.audit_log = self.folder / "audit.log"
        self.pki = self.folder / "pki"
        self.etcd = self.folder / "etcd"
        self.logs = self.folder / "logs"
        self.processes = self.folder / "processes"
        self.configuration = self.folder / "configuration"
        self.volumes = self.folder / "volumes"
        self.nodes = self.folder / "nodes"
        # Sockets: their paths must be short. Mounts of containers: they must not last.
        self.runtime = RUNTIME / self.scope
        self._allotment = self.folder / "cluster.json"

    @property
    def scope(self) -> str:
        """Prefix for namespaces and control groups, unique on this machine.

        The same name below another state root is another cluster.
        """
        digest = hashlib.sha256(str(self._root.resolve()).encode()).hexdigest()[:6]
        return f"{self.name}.{digest}"

    def create(self) -> None:
        """Make the folders."""
        self.runtime.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.logs, self.configuration, self.volumes, self.nodes):
            folder.mkdir(parents=True, exist_ok=True)
        # Keys and service account tokens lie below it.
        self.folder.chmod(0o700)

    def allotment(self) -> Allotment | None:
        """Return what the cluster was given, or None if it never came up."""
        try:
            return Allotment(**json.loads(self._allotment.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def allot(self, allotment: Allotment) -> None:
        """Remember what the cluster is given."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._allotment.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(allotment)))
        temporary.rename(self._allotment)

    def other_cidrs(self) -> list[str]:
        """Return the ranges of the other clusters below the same root."""
        names = [path.parent.name for path in self._root.glob("*/cluster.json")]
        others = [State(self._root, name=name).allotment() for name in names if name != self.name]
        return [allotment.cidr for allotment in others if allotment]

    def forget_life(self) -> None:
        """Remove what belongs to one life of the cluster; images and retained volumes stay."""
        for folder in (self.pki, self.etcd, self.processes, self.configuration):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.kubeconfig, self.audit_log):
            file.unlink(missing_ok=True)
        for rotated in self.folder.glob("audit-*.log"):
            rotated.unlink()
        for node in self.nodes.glob("*"):
            for child in node.iterdir():
                if child.name != "containerd":
                    shutil.rmtree(child, ignore_errors=True)

    def purge(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self._root.rmdir()

    def lock(self, *, reporter: Reporter) -> AbstractContextManager[None]:
        """Return a context that holds the cluster's lock; it ends with this process."""
        # Not in the cluster's folder, which `down --purge` removes while others may wait.
        path = self._root / ".locks" / self.name
        return file_lock(path, waiting_for=f"`up` or `down` of {self.name}", reporter=reporter)


def address_lock(*, reporter: Reporter) -> AbstractContextManager[None]:
    """Return a context that holds the machine's lock on choosing address ranges."""
    return file_lock(ADDRESS_LOCK, waiting_for="its network", reporter=reporter)
