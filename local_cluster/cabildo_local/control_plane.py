"""The control plane: etcd, API server, controller manager and scheduler as programs.

Here: their command lines and files, in the order in which they start. Everything listens in
the control plane's network namespace, so fixed ports never clash. Never here: nodes
(node.py), DNS and what else pods expect (addons.py), starting processes (processes.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from cabildo_local.certificates import (
    Authority,
    Subject,
    service_account_key,
    write_kubeconfig,
)
from cabildo_local.configuration import write_configuration
from cabildo_local.processes import Program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cabildo_local.addresses import Addresses
    from cabildo_local.certificates import KeyPair
    from cabildo_local.state import State

ISSUER = "https://kubernetes.default.svc.cluster.local"
ETCD_URL = "http://127.0.0.1:2379"
ETCD_PEER_URL = "http://127.0.0.1:2380"
# 12 to 14 s after its last heartbeat a node is NotReady, so that tests of lost nodes are short.
NODE_GRACE_S = 12
NODE_CHECK_S = 2


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Everything that the control plane's programs are made of.

    Attributes:
        state: The cluster's folder.
        addresses: Its addresses.
        api_port: Port of the API server.
        binaries: Where each program is.
        namespace: Network namespace they run in.
    """

    state: State
    addresses: Addresses
    api_port: int
    binaries: Mapping[str, Path]
    namespace: str

    @property
    def server(self) -> str:
        """URL of the API server, the same from the host, the nodes and the pods."""
        return f"https://{self.addresses.control_plane}:{self.api_port}"

    def write_files(self) -> None:
        """Write certificates, kubeconfig files and configuration; what is there stays."""
        authority = self.authority()
        self._client(authority, "admin", Subject("cabildo-admin", ("system:masters",)))
        self._client(authority, "controller-manager", Subject("system:kube-controller-manager"))
        self._client(authority, "scheduler", Subject("system:kube-scheduler"))
        self._client(
            authority, "kubelet-client", Subject("cabildo-api-server", ("system:masters",))
        )
        authority.issue("api-server", subject=self._server_subject())
        front_proxy = Authority(self.state.pki, name="front-proxy-ca")
        front_proxy.issue("front-proxy", subject=Subject("front-proxy"))
        service_account_key(self.state.pki)
        admin = authority.issue("admin", subject=Subject("cabildo-admin", ("system:masters",)))
        write_kubeconfig(
            self.state.kubeconfig,
            cluster=self.state.name,
            server=self.server,
            authority=authority.pair,
            client=admin,
        )
        self._write("audit-policy.yaml", _AUDIT_POLICY)
        self._write("scheduler.yaml", self._scheduler_configuration())

    def authority(self) -> Authority:
        """Return the cluster's CA, made if it is not there."""
        return Authority(self.state.pki, name="ca")

    def kubeconfig_for(self, name: str, *, subject: Subject) -> Path:
        """Return a kubeconfig file for another user, made if it is not there."""
        self._client(self.authority(), name, subject)
        return self.state.configuration / f"{name}.kubeconfig"

    def etcd(self) -> Program:
        """Return etcd; it does not wait for the disk, as nothing here outlives the machine."""
        return self._program(
            "etcd",
            f"--data-dir={self.state.etcd}",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={ETCD_PEER_URL}",
            f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
            f"--initial-cluster=default={ETCD_PEER_URL}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
        )

    def api_server(self) -> Program:
        """Return the API server."""
        pki = self.state.pki
        return self._program(
            "kube-apiserver",
            f"--advertise-address={self.addresses.control_plane}",
            f"--secure-port={self.api_port}",
            f"--etcd-servers={ETCD_URL}",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,PodSecurity",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/api-server.crt",
            f"--tls-private-key-file={pki}/api-server.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key",
            # By name they would be looked up in a DNS that does not know them.
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={pki}/service-account.key",
            f"--service-account-signing-key-file={pki}/service-account.key",
            f"--service-cluster-ip-range={self.addresses.services}",
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki}/front-proxy.crt",
            f"--proxy-client-key-file={pki}/front-proxy.key",
            # There is no kube-proxy beside it: webhooks and APIs in pods are reached directly.
            "--enable-aggregator-routing=true",
            "--endpoint-reconciler-type=lease",
            f"--audit-policy-file={self.state.configuration}/audit-policy.yaml",
            f"--audit-log-path={self.state.audit_log}",
            "--audit-log-format=json",
            "--audit-log-maxsize=1024",
            "--audit-log-maxbackup=1",
        )

    def controller_manager(self) -> Program:
        """Return the controller manager."""
        pki = self.state.pki
        return self._program(
            "kube-controller-manager",
            *self._kubeconfig_flags("controller-manager"),
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki}/service-account.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--allocate-node-cidrs=false",
            f"--node-monitor-grace-period={NODE_GRACE_S}s",
            f"--node-monitor-period={NODE_CHECK_S}s",
            # Benchmarks measure the operator, not these limits.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--concurrent-job-syncs=20",
        )

    def scheduler(self) -> Program:
        """Return the scheduler."""
        configuration = f"{self.state.configuration}/scheduler.yaml"
        flags = [flag for flag in self._kubeconfig_flags("scheduler") if "--kubeconfig" not in flag]
        return self._program(
            "kube-scheduler", f"--config={configuration}", "--bind-address=127.0.0.1", *flags
        )

    def _kubeconfig_flags(self, user: str) -> list[str]:
        path = self.state.configuration / f"{user}.kubeconfig"
        return [
            f"--kubeconfig={path}",
            f"--authentication-kubeconfig={path}",
            f"--authorization-kubeconfig={path}",
        ]

    def _program(self, name: str, *flags: str) -> Program:
        return Program(name, (str(self.binaries[name]), *flags), namespace=self.namespace)

    def _client(self, authority: Authority, name: str, subject: Subject) -> KeyPair:
        pair = authority.issue(name, subject=subject)
        write_kubeconfig(
            self.state.configuration / f"{name}.kubeconfig",
            cluster=self.state.name,
            server=self.server,
            authority=authority.pair,
            client=pair,
        )
        return pair

    def _server_subject(self) -> Subject:
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        return Subject(
            "kube-apiserver",
            names=(*names, "kubernetes.default.svc.cluster.local", "localhost"),
            addresses=(self.addresses.control_plane, self.addresses.api_service, "127.0.0.1"),
        )

    def _scheduler_configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {
                "kubeconfig": str(self.state.configuration / "scheduler.kubeconfig"),
                "qps": 200,
                "burst": 400,
            },
        }

    def _write(self, name: str, document: Mapping[str, object]) -> None:
        text = yaml.safe_dump(dict(document))
        write_configuration(self.state.configuration / name, text=text)


_AUDIT_POLICY: dict[str, object] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # One line a request, written when its answer is known.
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version"]},
        {"level": "Metadata"},
    ],
}
