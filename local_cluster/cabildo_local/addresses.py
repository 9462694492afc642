"""Which addresses a cluster uses: one /16, cut into links, services and pods.

Here: the cut, and the search for a range that neither a route of this machine nor another
cluster uses. Never here: making links and routes (network.py).
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cabildo_local.commands import run_command
from cabildo_local.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Seldom used by companies' networks, and by none of kind, minikube and kubeadm.
FIRST_CHOICES = [f"10.{second}.0.0/16" for second in (*range(201, 251), *range(130, 200))]


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of one cluster.

    Attributes:
        cidr: The whole range, such as 10.201.0.0/16.
    """

    cidr: str

    @property
    def link_prefix(self) -> int:
        """Prefix length of the subnet that host, control plane and nodes share."""
        return 24

    @property
    def host(self) -> str:
        """Address of this machine in the cluster's network."""
        return self._address(1)

    @property
    def control_plane(self) -> str:
        """Address of API server, registry and CoreDNS."""
        return self._address(2)

    @property
    def services(self) -> str:
        """Range of Service addresses."""
        return f"{self._address(16 * 256)}/20"

    @property
    def api_service(self) -> str:
        """Address of the Service `kubernetes`, the first of its range."""
        return self._address(16 * 256 + 1)

    @property
    def dns_service(self) -> str:
        """Address of the Service `kube-dns`."""
        return self._address(16 * 256 + 10)

    @property
    def pods(self) -> str:
        """Range of the pods of all nodes."""
        return f"{self._address(128 * 256)}/17"

    @property
    def fake_pods(self) -> str:
        """Range of the pods of played nodes; no real node's."""
        return f"{self._address(192 * 256)}/18"

    def node(self, number: int) -> str:
        """Return the address of the node with this number, counted from 1."""
        return self._address(10 + number)

    def node_pods(self, number: int) -> str:
        """Return the range of one node's pods."""
        return f"{self._address((128 + number) * 256)}/24"

    def _address(self, offset: int) -> str:
        return str(ipaddress.IPv4Network(self.cidr).network_address + offset)


def choose_cidr(*, wanted: str | None, kept: str | None, taken: Iterable[str]) -> str:
    """Choose a cluster's range.

    Args:
        wanted: The one that was asked for, if any.
        kept: The one the cluster had before, if any; kept as long as it is free.
        taken: Ranges that may not overlap with it.

    Raises:
        NetworkError: The wanted one is taken, or no candidate is free.
    """
    others = [ipaddress.IPv4Network(cidr) for cidr in taken]
    candidates = [wanted] if wanted else [*([kept] if kept else []), *FIRST_CHOICES]
    for candidate in candidates:
        network = ipaddress.IPv4Network(candidate)
        if not any(network.overlaps(other) for other in others):
            return str(network)
    if wanted:
        raise NetworkError(
            f"the range {wanted} overlaps with a route or another cluster",
            remedy="choose another with --cidr, or none to have a free one chosen",
        )
    raise NetworkError("no free /16 is left in 10.0.0.0/8", remedy="choose one with --cidr")


def host_routes(*, except_link: str) -> list[str]:
    """Return the networks this machine has routes for, without those over one link."""
    routes = json.loads(run_command(["ip", "-4", "-json", "route", "show", "table", "all"]))
    found = []
    for route in routes:
        destination = str(route.get("dst", "default"))
        if destination == "default" or route.get("dev") == except_link:
            continue
        found.append(destination if "/" in destination else f"{destination}/32")
    return found
