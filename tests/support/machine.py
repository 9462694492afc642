"""What is on this machine that a local cluster could leave behind.

Here: a snapshot of mounts, links, routes, namespaces, rules, control groups, processes and
files, to compare before and after. Other clusters may come and go meanwhile: what bears
their name is left out, and what bears nobody's is compared only when there are none.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.kernel_settings import CHANGED
from cabildo_local.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cabildo_local.state import State

Snapshot = dict[str, set[str]]


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine, as seen by one cluster.

    Attributes:
        state: The cluster's state, which need not exist.
    """

    state: State

    def snapshot(self) -> Snapshot:
        """Return everything that the cluster could leave behind."""
        host_link = Network(f"cabildo.{self.state.scope}").host_link
        seen = {
            "mounts": self._ours(line.split()[4] for line in _lines("/proc/self/mountinfo")),
            "links": {name for name in _links() if not name.startswith("cb-") or name == host_link},
            "routes": {
                line
                for line in _output("ip", "-4", "route", "show", "table", "all").splitlines()
                if " dev cb-" not in line or host_link in line
            },
            "namespaces": self._ours(path.name for path in Path("/run/netns").glob("*")),
            "rules": {
                line
                for line in _output("iptables-save").splitlines()
                if not line.startswith(("#", ":"))
            },
            "groups": self._ours(str(path) for path in _groups()),
            "processes": {line for line in _processes() if str(self.state.folder) in line},
            "runtime": {str(path) for path in [self.state.runtime] if path.exists()},
        }
        seen["results"] = {
            str(path)
            for path in Path("/var/lib/cni/results").glob("*")
            if self.state.scope in path.read_text(errors="replace")
        }
        seen["logs"] = {
            str(path)
            for path in Path("/var/log/containers").glob("*")
            if path.is_symlink() and path.readlink().is_relative_to(self.state.folder)
        }
        if not self.others_are_up():
            seen["sockets"] = {str(path) for path in Path("/run/containerd/s").glob("*")}
            seen["kernel"] = {
                f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in CHANGED
            }
            seen["kubelet"] = {str(path) for path in Path("/var/lib/kubelet").glob("**/*")}
        return seen

    def others_are_up(self) -> bool:
        """Whether another cluster is on this machine."""
        own = f"cabildo.{self.state.scope}."
        names = [path.name for path in Path("/run/netns").glob("cabildo.*")]
        return any(not name.startswith(own) for name in names)

    def _ours(self, names: Iterable[str]) -> set[str]:
        return {
            name
            for name in names
            if self.state.scope in name
            or self._folder in name
            # Of other clusters, and of tests and image builds that run at the same time.
            or not any(mark in name.lower() for mark in ("cabildo", "/tmp/"))
        }

    @property
    def _folder(self) -> str:
        return str(self.state.folder)


def left_behind(before: Snapshot, after: Snapshot) -> Snapshot:
    """Return what is there now and was not, and what was there and is not, by its kind."""
    kinds = before.keys() & after.keys()
    return {kind: before[kind] ^ after[kind] for kind in kinds if before[kind] != after[kind]}


def _links() -> set[str]:
    return {link["ifname"] for link in json.loads(_output("ip", "-json", "link"))}


def _groups() -> set[Path]:
    roots = [
        Path(line.split()[4])
        for line in _lines("/proc/self/mountinfo")
        if line.partition(" - ")[2].startswith("cgroup")
    ]
    return {path for root in roots for path in root.glob("cabildo.*")}


def _processes() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
