"""The network of one cluster: namespaces, a bridge, links and routes.

    host ── veth ──┐
                   ├─ bridge (a namespace of its own)
    control plane ─┤
    node1, node2 ──┘   (each in a namespace of its own)

Nothing but one link and its routes is ever on the host, so kube-proxy's rules stay inside
the nodes' namespaces and taking a cluster away is deleting its namespaces. Pods have no way
out of the machine. Never here: pods' own links (the CNI plugins) and Service rules
(kube-proxy).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.commands import NAMESPACES, run_command
from cabildo_local.errors import CommandError, NetworkError

if TYPE_CHECKING:
    from cabildo_local.addresses import Addresses

BRIDGE_MEMBER = "bridge"
CONTROL_PLANE_MEMBER = "control-plane"
# A link's name has at most 15 characters.
_HOST_PORT = "host"


class Network:
    """The network of one cluster.

    Args:
        scope: Prefix of its namespaces, unique on this machine, such as `cabildo.demo.1f2e3d`.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self.host_link = "cb-" + hashlib.sha256(scope.encode()).hexdigest()[:8]

    def namespace(self, member: str) -> str:
        """Return the namespace's name of `control-plane`, `bridge` or a node."""
        return f"{self._scope}.{member}"

    def ensure(self, addresses: Addresses, *, nodes: int) -> None:
        """Make whatever is missing, and bring back links that were taken down.

        Raises:
            CommandError: A step failed.
        """
        bridge = self.namespace(BRIDGE_MEMBER)
        if not self._has_namespace(BRIDGE_MEMBER):
            self._add_namespace(BRIDGE_MEMBER)
            self._ip("link", "add", "bridge", "type", "bridge", namespace=bridge)
            self._ip("link", "set", "bridge", "up", namespace=bridge)
            # Frames between members are switched, never filtered.
            _sysctl("net.bridge.bridge-nf-call-iptables", "0", namespace=bridge)
        self._ensure_host_link(addresses)
        self._ensure_member(CONTROL_PLANE_MEMBER, addresses.control_plane, addresses)
        for number in range(1, nodes + 1):
            self._ensure_member(f"node{number}", addresses.node(number), addresses)
            self._ensure_node_rules(number, addresses)
        self._ensure_routes(addresses, nodes=nodes)

    def intact(self, *, nodes: int) -> bool:
        """Whether every namespace and link is there (up or not)."""
        members = [CONTROL_PLANE_MEMBER, *(f"node{n}" for n in range(1, nodes + 1))]
        if not all(self._has_namespace(member) for member in (BRIDGE_MEMBER, *members)):
            return False
        try:
            ports = self._links(namespace=self.namespace(BRIDGE_MEMBER))
            inner = [self._links(namespace=self.namespace(member)) for member in members]
            return (
                {"bridge", _HOST_PORT, *members} <= ports
                and self.host_link in self._links(namespace=None)
                and all("eth0" in links for links in inner)
            )
        except (CommandError, ValueError):
            return False

    def set_link(self, member: str, *, up: bool) -> None:
        """Take a member's cable out, or put it back.

        Raises:
            NetworkError: There is no such member.
        """
        if not self._has_namespace(member):
            raise NetworkError(f"{member!r} is no node of this cluster")
        state = "up" if up else "down"
        self._ip("link", "set", member, state, namespace=self.namespace(BRIDGE_MEMBER))

    def remove(self) -> None:
        """Remove every namespace, link and route of this cluster; nothing there is fine."""
        if self.host_link in self._links(namespace=None):
            self._ip("link", "delete", self.host_link)
        for name in self.leftover_namespaces():
            run_command(["ip", "netns", "delete", name], check=False)
            Path(NAMESPACES, name).unlink(missing_ok=True)

    def leftover_namespaces(self) -> list[str]:
        """Return the names of this cluster's namespaces that are there."""
        return sorted(path.name for path in Path(NAMESPACES).glob(f"{self._scope}.*"))

    def _ensure_host_link(self, addresses: Addresses) -> None:
        bridge = self.namespace(BRIDGE_MEMBER)
        if self.host_link not in self._links(namespace=None):
            self._ip(
                *("link", "add", self.host_link, "type", "veth"),
                *("peer", "name", _HOST_PORT, "netns", bridge),
            )
        self._ip("link", "set", _HOST_PORT, "master", "bridge", "up", namespace=bridge)
        address = f"{addresses.host}/{addresses.link_prefix}"
        self._ip("address", "replace", address, "dev", self.host_link)
        self._ip("link", "set", self.host_link, "up")

    def _ensure_member(self, member: str, address: str, addresses: Addresses) -> None:
        own = self.namespace(member)
        bridge = self.namespace(BRIDGE_MEMBER)
        if not self._has_namespace(member):
            self._add_namespace(member)
        if member not in self._links(namespace=bridge):
            self._ip(
                *("link", "add", member, "type", "veth"),
                *("peer", "name", "eth0", "netns", own),
                namespace=bridge,
            )
        self._ip("link", "set", member, "master", "bridge", "up", namespace=bridge)
        cidr = f"{address}/{addresses.link_prefix}"
        self._ip("address", "replace", cidr, "dev", "eth0", namespace=own)
        self._ip("link", "set", "eth0", "up", namespace=own)
        # The node's own processes reach Services too: the route only has to exist, kube-proxy
        # changes the destination before the packet leaves.
        services = addresses.services
        self._ip("route", "replace", services, "dev", "eth0", namespace=own)

    def _ensure_node_rules(self, number: int, addresses: Addresses) -> None:
        own = self.namespace(f"node{number}")
        _sysctl("net.ipv4.ip_forward", "1", namespace=own)
        # Without it a pod's answer to a pod of the same node would bypass kube-proxy's rules.
        _sysctl("net.bridge.bridge-nf-call-iptables", "1", namespace=own)
        rule = ["POSTROUTING", "-s", addresses.node_pods(number), "!", "-d", addresses.cidr]
        rule += ["-j", "MASQUERADE"]
        try:
            run_command(["iptables", "-w", "-t", "nat", "-C", *rule], namespace=own)
        except CommandError:
            run_command(["iptables", "-w", "-t", "nat", "-A", *rule], namespace=own)

    def _ensure_routes(self, addresses: Addresses, *, nodes: int) -> None:
        for number in range(1, nodes + 1):
            route = [addresses.node_pods(number), "via", addresses.node(number)]
            self._ip("route", "replace", *route)
            members = [CONTROL_PLANE_MEMBER, *(f"node{n}" for n in range(1, nodes + 1))]
            for member in members:
                if member != f"node{number}":
                    self._ip("route", "replace", *route, namespace=self.namespace(member))

    def _has_namespace(self, member: str) -> bool:
        name = self.namespace(member)
        try:
            run_command(["true"], namespace=name)
        except CommandError:
            return False
        return True

    def _add_namespace(self, member: str) -> None:
        name = self.namespace(member)
        # A file without a namespace behind it is what a reboot or a killed `ip` leaves.
        Path(NAMESPACES, name).unlink(missing_ok=True)
        run_command(["ip", "netns", "add", name])
        self._ip("link", "set", "lo", "up", namespace=name)

    def _links(self, *, namespace: str | None) -> set[str]:
        listed = run_command(["ip", "-json", "link", "show"], namespace=namespace)
        return {str(link["ifname"]) for link in json.loads(listed or "[]")}

    def _ip(self, *arguments: str, namespace: str | None = None) -> None:
        run_command(["ip", *arguments], namespace=namespace)


def _sysctl(name: str, value: str, *, namespace: str) -> None:
    # Not every kernel has the bridge filter; where it has not, frames are never filtered.
    path = "/proc/sys/" + name.replace(".", "/")
    script = '[ ! -e "$1" ] || echo "$2" >"$1"'
    run_command(["sh", "-c", script, "sh", path, value], namespace=namespace)
