"""A cluster with the operator installed on it, as the end-to-end tests see it.

Here: finding the operator's pod, Deployment and user. Never here: installing it (the
fixtures of `tests/e2e`) or breaking it (`disruption.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from support.disruption import node_ready
from support.kube import DEPLOYMENTS, LEASES, NODES, PODS, Kube, Object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cabildo_local.cluster import Cluster
    from cabildo_local.deploy import Deployed
    from support.audit_log import AuditLog


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster with the operator on it.

    Attributes:
        kube: A client with the developer's rights.
        deployed: What Helm installed.
        cluster: The local cluster; None on the developer's own.
        audit: The audit log since before the installation; None on the developer's own.
    """

    kube: Kube
    deployed: Deployed
    cluster: Cluster | None
    audit: AuditLog | None

    def local_cluster(self) -> Cluster:
        """Return the local cluster, or skip: the fault needs this machine's processes."""
        if self.cluster is None:
            pytest.skip("needs the local cluster: it works on links, processes or folders")
        return self.cluster

    @property
    def operator_user(self) -> str:
        """The user name behind the operator's ServiceAccount."""
        account = self.operator_deployment["spec"]["template"]["spec"]["serviceAccountName"]
        return f"system:serviceaccount:{self.deployed.namespace}:{account}"

    @property
    def operator_deployment(self) -> Object:
        """The operator's Deployment."""
        (found,) = self.kube.list(DEPLOYMENTS, namespace=self.deployed.namespace)
        return found

    def operator_pod(self, *, within_s: float = 120) -> Object:
        """Wait for the pod that leads, and return it."""
        namespace = self.deployed.namespace

        def leads(seen: Mapping[str, Object]) -> Object | None:
            leases = self.kube.list(LEASES, namespace=namespace)
            holders = {one["spec"].get("holderIdentity") for one in leases}
            for name, pod in seen.items():
                if name in holders and pod["metadata"]["labels"].get("cabildo.dev/leader"):
                    ready = [one.get("ready") for one in pod["status"].get("containerStatuses", [])]
                    if ready and all(ready) and "deletionTimestamp" not in pod["metadata"]:
                        return pod
            return None

        return self.kube.wait(
            PODS, leads, namespace=namespace, within_s=within_s, what="an operator leads"
        )

    def worker_nodes(self) -> list[str]:
        """Return the names of the nodes."""
        return sorted(one["metadata"]["name"] for one in self.kube.list(NODES))

    def open_nodes(self) -> list[str]:
        """Return the names of the nodes that are ready and take pods."""
        nodes = {one["metadata"]["name"]: one for one in self.kube.list(NODES)}
        return sorted(
            name
            for name, node in nodes.items()
            if node_ready(nodes, name) and not node["spec"].get("unschedulable")
        )

    def change_operator(self, environment: Mapping[str, str | None]) -> None:
        """Set (or, with None, remove) variables of the operator's container; wait for it.

        The new pod leads when this returns.
        """
        deployment = self.operator_deployment
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        kept = [one for one in container["env"] if one["name"] not in environment]
        added = [{"name": key, "value": value} for key, value in environment.items() if value]
        change = [
            {
                "op": "replace",
                "path": "/spec/template/spec/containers/0/env",
                "value": [*kept, *added],
            }
        ]
        self._patch_operator(change)

    def scale_operator(self, replicas: int) -> None:
        """Set the number of operators and wait for them."""
        self._patch_operator([{"op": "replace", "path": "/spec/replicas", "value": replicas}])

    def _patch_operator(self, change: list[Object]) -> None:
        name = self.operator_deployment["metadata"]["name"]
        namespace = self.deployed.namespace
        changed = self.kube.request(
            "PATCH",
            DEPLOYMENTS.path(namespace=namespace, name=name),
            body=change,
            content_type="application/json-patch+json",
        )
        generation = changed["metadata"]["generation"]
        self.kube.wait(
            DEPLOYMENTS,
            lambda seen: _rolled_out(seen.get(name, {}), generation=generation),
            namespace=namespace,
            within_s=120,
            what="the operator is rolled out",
        )
        self.operator_pod()


def _rolled_out(deployment: Object, *, generation: int) -> bool:
    status = deployment.get("status", {})
    wanted = deployment.get("spec", {}).get("replicas", 1)
    return (
        status.get("observedGeneration", 0) >= generation
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )
