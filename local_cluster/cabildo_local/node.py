"""One real node: containerd, kubelet and kube-proxy in a network namespace of their own.

Here: their command lines and how their files are written; what the files say is in
node_files.py. Each node has its own folders, sockets, control group and address, so several
live on one machine. Never here: the namespace and its links (network.py), starting
processes (processes.py), images (images.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from cabildo_local import node_files
from cabildo_local.certificates import Subject
from cabildo_local.configuration import write_configuration
from cabildo_local.mounts import ensure_bind
from cabildo_local.processes import Program
from cabildo_local.registry import STABLE_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cabildo_local.control_plane import ControlPlane

PROXY_USER = "system:kube-proxy"


@dataclass(frozen=True, slots=True)
class Node:
    """Everything that a node's programs are made of.

    Attributes:
        number: Counted from 1.
        control_plane: The one it belongs to.
        namespace: Network namespace it lives in.
        slice_path: Control group of the cluster, below which the node's is.
        registry: `host:port` of the image registry.
        sandbox_image: Image of the container that holds a pod's namespaces.
    """

    number: int
    control_plane: ControlPlane
    namespace: str
    slice_path: str
    registry: str
    sandbox_image: str

    @property
    def name(self) -> str:
        """The Node object's name."""
        return f"node{self.number}"

    @property
    def address(self) -> str:
        """The node's address."""
        return self.control_plane.addresses.node(self.number)

    @property
    def folder(self) -> Path:
        """What the node keeps on disk."""
        return self.control_plane.state.nodes / self.name

    @property
    def runtime(self) -> Path:
        """Sockets and mounts of its containers."""
        return self.control_plane.state.runtime / self.name

    @property
    def kubelet_root(self) -> Path:
        """Where kubelet sees its folder: a short path, for the sockets that it makes there."""
        return self.runtime / "kubelet"

    @property
    def socket(self) -> Path:
        """Where its containerd listens."""
        return self.runtime / "containerd.sock"

    def write_files(self) -> None:
        """Write its certificates and configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runtime.mkdir(parents=True, exist_ok=True)
        self.control_plane.kubeconfig_for(self.name, subject=self._subject())
        self.control_plane.kubeconfig_for("kube-proxy", subject=Subject(PROXY_USER))
        network = node_files.cni_configuration(
            name=f"{self.control_plane.state.scope}.{self.name}",
            subnet=self.control_plane.addresses.node_pods(self.number),
            leases=self.runtime / "cni",
        )
        cni = self._configuration / "cni" / "10-cabildo.conflist"
        write_configuration(cni, text=json.dumps(network))
        for host in (self.registry, STABLE_NAME):
            hosts = self._configuration / "registries" / host / "hosts.toml"
            write_configuration(hosts, text=node_files.registry_hosts(self.registry))

    def mount_folders(self) -> None:
        """Show kubelet's folder, which may need room and lies in the state, at its short path."""
        ensure_bind(self.folder / "kubelet", target=self.kubelet_root)

    def containerd(self) -> Program:
        """Return containerd, with its configuration written."""
        text = node_files.containerd_configuration(
            root=self.folder / "containerd",
            runtime=self.runtime,
            socket=self.socket,
            configuration=self._configuration,
            sandbox_image=self.sandbox_image,
        )
        path = self._configuration / "containerd.toml"
        write_configuration(path, text=text)
        return self._program("containerd", "containerd", "--config", str(path), depends_on=text)

    def kubelet(self, binaries: Mapping[str, Path]) -> Program:
        """Return kubelet, with its configuration written."""
        pki = self.control_plane.state.pki
        document = node_files.kubelet_configuration(
            authority=pki / "ca.crt",
            certificate=pki / f"{self.name}.crt",
            key=pki / f"{self.name}.key",
            cgroup=f"{self.slice_path}/{self.name}",
            socket=self.socket,
            dns=self.control_plane.addresses.dns_service,
            logs=self.folder / "logs",
            plugins=self.kubelet_root / "volume-plugins",
        )
        text = self._write_yaml("kubelet.yaml", document)
        return self._program(
            "kubelet",
            str(binaries["kubelet"]),
            f"--config={self._configuration / 'kubelet.yaml'}",
            f"--kubeconfig={self._kubeconfig(self.name)}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--root-dir={self.kubelet_root}",
            f"--cert-dir={self.kubelet_root / 'pki'}",
            depends_on=text,
        )

    def kube_proxy(self, binaries: Mapping[str, Path]) -> Program:
        """Return kube-proxy, with its configuration written."""
        document = node_files.proxy_configuration(
            kubeconfig=self._kubeconfig("kube-proxy"),
            node=self.name,
            pods=self.control_plane.addresses.pods,
        )
        text = self._write_yaml("kube-proxy.yaml", document)
        configuration = self._configuration / "kube-proxy.yaml"
        return self._program(
            "kube-proxy", str(binaries["kube-proxy"]), f"--config={configuration}", depends_on=text
        )

    @property
    def _configuration(self) -> Path:
        return self.control_plane.state.configuration / self.name

    def _kubeconfig(self, user: str) -> Path:
        return self.control_plane.state.configuration / f"{user}.kubeconfig"

    def _subject(self) -> Subject:
        # One certificate for both of kubelet's roles: client of the API server, and server
        # for logs and exec, which the API server asks for by address.
        return Subject(
            f"system:node:{self.name}",
            groups=("system:nodes",),
            names=(self.name,),
            addresses=(self.address,),
        )

    def _program(self, name: str, *argv: str, depends_on: str) -> Program:
        return Program(f"{self.name}-{name}", argv, namespace=self.namespace, depends_on=depends_on)

    def _write_yaml(self, name: str, document: Mapping[str, object]) -> str:
        text = yaml.safe_dump(dict(document))
        write_configuration(self._configuration / name, text=text)
        return text
