"""What a local cluster is asked to be: one frozen tree, validated once.

Here: names, sizes, ports, ranges and folders, with their defaults from the environment.
Never here: what was found or allotted at run time (state.py, addresses.py). The CLI and
the tests make one `ClusterSettings` and hand it to `cluster.up`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cabildo_local.errors import NotACheckoutError, SettingsError

NAME_LIMIT = 24
NODE_LIMIT = 60
PORT_LIMIT = 65535


def check_name(name: str) -> None:
    """Check a cluster's name.

    Raises:
        SettingsError: It is no DNS label, or too long for what is named after it.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) or len(name) > NAME_LIMIT:
        raise SettingsError(
            f"name: {name!r} is no DNS label of at most {NAME_LIMIT} characters",
            remedy="use a-z, 0-9 and - between them",
        )


def default_cache() -> Path:
    """Return the cache folder: CABILDO_CACHE, else below XDG_CACHE_HOME, else ~/.cache."""
    return _folder("CABILDO_CACHE", "XDG_CACHE_HOME", ".cache")


def default_state_root() -> Path:
    """Return the state folder: CABILDO_STATE, else below XDG_STATE_HOME, else ~/.local/state."""
    return _folder("CABILDO_STATE", "XDG_STATE_HOME", ".local/state")


def find_checkout() -> Path:
    """Return the repository's root that this package was installed from.

    Raises:
        NotACheckoutError: It was installed without its sources.
    """
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / "local_cluster" / "tools").is_dir():
        raise NotACheckoutError(
            "a local cluster needs a checkout of the Cabildo repository",
            remedy="clone it and run `make cluster-up` or `.venv/bin/cabildo cluster up` in it",
        )
    return root


def _folder(variable: str, base_variable: str, base: str) -> Path:
    if own := os.environ.get(variable):
        return Path(own).absolute()
    if xdg := os.environ.get(base_variable):
        return Path(xdg).absolute() / "cabildo"
    return Path.home() / base / "cabildo"


def _check_cidr(cidr: str) -> None:
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise SettingsError(
            f"cidr: {cidr!r} is no IPv4 network: {error}", remedy="write for instance 10.200.0.0/16"
        ) from error
    if network.prefixlen > 16:  # noqa: PLR2004
        raise SettingsError(
            f"cidr: {cidr} is too small for links, services and pods",
            remedy="give a /16 or larger, for instance 10.200.0.0/16",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """A local cluster as it is wanted.

    Attributes:
        name: Tells clusters apart; a DNS label of at most 24 characters.
        nodes: Real nodes; 0 is a control plane alone.
        cidr: Address range of at least a /16 for links, services and pods; chosen
            among free private ones if None.
        api_port: Port of the API server on the control plane's address.
        registry_port: Port of the image registry on the control plane's address.
        binaries: Folder with binaries to use before any other place.
        fake_nodes: YAML file with pools of nodes that KWOK plays.
        cache: Folder that several clusters and checkouts share.
        state_root: Folder below which each cluster has its own.
        checkout: The repository's root, with `local_cluster/tools`.
    """

    name: str = "cabildo"
    nodes: int = 2
    cidr: str | None = None
    api_port: int = 6443
    registry_port: int = 5000
    binaries: Path | None = None
    fake_nodes: Path | None = None
    cache: Path = field(default_factory=default_cache)
    state_root: Path = field(default_factory=default_state_root)
    checkout: Path = field(default_factory=find_checkout)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SettingsError: One cannot be used; the message names it.
        """
        check_name(self.name)
        if not 0 <= self.nodes <= NODE_LIMIT:
            raise SettingsError(
                f"nodes: {self.nodes} is not between 0 and {NODE_LIMIT}",
                remedy="write 0 for a control plane alone, else the number of nodes",
            )
        for title, port in (("api port", self.api_port), ("registry port", self.registry_port)):
            if not 1 <= port <= PORT_LIMIT:
                raise SettingsError(f"{title}: {port} is not a port", remedy="write 1 to 65535")
        if self.api_port == self.registry_port:
            raise SettingsError(f"api port and registry port are both {self.api_port}")
        if self.cidr is not None:
            _check_cidr(self.cidr)

    @property
    def folder(self) -> Path:
        """The cluster's own state folder."""
        return self.state_root / self.name
