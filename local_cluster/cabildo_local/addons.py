"""What a bare control plane lacks: storage, names of Services, played nodes.

Here: the objects and programs of the StorageClass `cabildo-local`, of CoreDNS and of KWOK.
Their programs run on this machine, not in pods, so that they are there before any node and
need no image. Never here: how volumes are made (provisioner.py), how fake nodes are
described (fake_nodes.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabildo_local.certificates import Subject
from cabildo_local.configuration import write_configuration
from cabildo_local.fake_nodes import (
    ANNOTATION,
    POOL_LABEL,
    FakeNodes,
    kwok_configuration,
    node_objects,
)
from cabildo_local.processes import Program
from cabildo_local.provisioner import CLASSES, storage_class

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cabildo_local.addresses import Addresses
    from cabildo_local.api import Api
    from cabildo_local.control_plane import ControlPlane
    from cabildo_local.state import State

MASTERS = "system:masters"
NODES = "/api/v1/nodes"
# KWOK renews a played node's heartbeat every quarter of it.
FAKE_LEASE_S = 20
DNS_DOMAIN = "cluster.local"
DNS_USER = "cabildo-coredns"
SYSTEM = "/api/v1/namespaces/kube-system"


def storage_program(state: State) -> Program:
    """Return the provisioner."""
    sources = Path(__file__).resolve().parent.parent
    return Program(
        "storage",
        (
            sys.executable,
            "-m",
            "cabildo_local.provisioner",
            str(state.kubeconfig),
            str(state.volumes),
        ),
        environment={"PYTHONPATH": str(sources), "PYTHONUNBUFFERED": "1"},
        depends_on=Path(sources, "cabildo_local", "provisioner.py").read_text(),
    )


def apply_storage_class(api: Api) -> None:
    """Make the default StorageClass."""
    class_ = storage_class()
    api.apply(f"{CLASSES}/{class_['metadata']['name']}", class_)


def dns_program(control_plane: ControlPlane, *, binaries: Mapping[str, Path]) -> Program:
    """Return CoreDNS, with its configuration written."""
    user = control_plane.kubeconfig_for("coredns", subject=Subject(DNS_USER))
    text = corefile(address=control_plane.addresses.control_plane, kubeconfig=user)
    path = control_plane.state.configuration / "Corefile"
    write_configuration(path, text=text)
    return Program(
        "coredns",
        (str(binaries["coredns"]), "-conf", str(path)),
        namespace=control_plane.namespace,
        depends_on=text,
    )


def corefile(*, address: str, kubeconfig: Path) -> str:
    """Return CoreDNS's configuration: Services and pods, and nothing outside the cluster."""
    return f"""\
.:53 {{
    bind {address}
    errors
    ready 127.0.0.1:8181
    kubernetes {DNS_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    # Whatever else is asked for does not exist; without this it would be an error.
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
    cache 5
}}
"""


def apply_dns(api: Api, *, addresses: Addresses) -> None:
    """Make the Service `kube-dns` that leads to CoreDNS, and CoreDNS's permissions."""
    for path, document in dns_objects(addresses):
        api.apply(path, document)


def dns_objects(addresses: Addresses) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects of the cluster's DNS with their paths."""
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": addresses.dns_service, "ports": ports},
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-host",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [addresses.control_plane]}],
    }
    read = ["list", "watch"]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": DNS_USER},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": DNS_USER},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": DNS_USER,
        },
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": DNS_USER}],
    }
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    slices = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
    return [
        (f"{rbac}/clusterroles/{DNS_USER}", role),
        (f"{rbac}/clusterrolebindings/{DNS_USER}", binding),
        (f"{SYSTEM}/services/kube-dns", service),
        (f"{slices}/kube-dns-host", slice_),
    ]


def kwok_program(
    control_plane: ControlPlane, *, fake: FakeNodes, binaries: Mapping[str, Path]
) -> Program:
    """Return KWOK, with its configuration written."""
    # It is the kubelet of any number of nodes; no role of Kubernetes' own says that.
    user = control_plane.kubeconfig_for("kwok", subject=Subject("cabildo-kwok", (MASTERS,)))
    text = kwok_configuration(fake)
    path = control_plane.state.configuration / "kwok.yaml"
    write_configuration(path, text=text)
    return Program(
        "kwok",
        (
            str(binaries["kwok"]),
            f"--config={path}",
            f"--kubeconfig={user}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={ANNOTATION}=fake",
            f"--node-lease-duration-seconds={FAKE_LEASE_S}",
            f"--cidr={control_plane.addresses.fake_pods}",
        ),
        namespace=control_plane.namespace,
        depends_on=text,
    )


def apply_fake_nodes(api: Api, *, fake: FakeNodes) -> None:
    """Make the played nodes, and remove those that are no longer described."""
    version = str(api.get("/version")["gitVersion"])
    wanted = node_objects(fake, version=version)
    for node in wanted:
        path = f"{NODES}/{node['metadata']['name']}"
        api.apply(path, {key: value for key, value in node.items() if key != "status"})
        api.apply(f"{path}/status", {key: value for key, value in node.items() if key != "spec"})
    names = {node["metadata"]["name"] for node in wanted}
    for node in api.get(f"{NODES}?labelSelector={POOL_LABEL}")["items"]:
        if node["metadata"]["name"] not in names:
            api.request("DELETE", f"{NODES}/{node['metadata']['name']}")
