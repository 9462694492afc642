"""Clusters for the tests: a control plane alone, or the one with real nodes.

Here: bringing the local clusters up through their own Python API, the CRD, throw-away
namespaces, the operator's identity and rules as the chart grants them. Never here: how a
local cluster works (`cabildo_local`). Next: the fixtures in `tests/conftest.py`.
"""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from support.kube import CRDS, NAMESPACES, SERVICE_ACCOUNTS, Kube, Object, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cabildo_local.cluster import Cluster

CHECKOUT = Path(__file__).resolve().parents[2]
RBAC_KINDS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_RESOURCES = {
    "ServiceAccount": SERVICE_ACCOUNTS,
    "ClusterRole": Resource(_RBAC, "clusterroles", namespaced=False),
    "ClusterRoleBinding": Resource(_RBAC, "clusterrolebindings", namespaced=False),
    "Role": Resource(_RBAC, "roles"),
    "RoleBinding": Resource(_RBAC, "rolebindings"),
}
_counter = itertools.count(1)


def keep_clusters() -> bool:
    """Whether the developer wants clusters to stay up after the tests."""
    return os.environ.get("KEEP_CLUSTER", "") not in ("", "0")


@contextmanager
def local_cluster(name: str, *, nodes: int, fake_nodes: Path | None = None) -> Iterator[Cluster]:
    """Bring a local cluster up; take it down again if it was not there before.

    Args:
        name: The cluster's name.
        nodes: How many real nodes.
        fake_nodes: A file with pools of nodes that KWOK plays.
    """
    from cabildo_local import cluster  # noqa: PLC0415 - unit tests need none of this
    from cabildo_local.reporter import LineReporter  # noqa: PLC0415
    from cabildo_local.settings import ClusterSettings  # noqa: PLC0415

    was_up = is_up(name)
    settings = ClusterSettings(name=name, nodes=nodes, fake_nodes=fake_nodes, checkout=CHECKOUT)
    reporter = LineReporter(sys.stderr)
    try:
        yield cluster.up(settings, reporter=reporter)
    finally:
        if not (was_up or keep_clusters()):
            cluster.down(name, reporter=reporter)


def is_up(name: str) -> bool:
    """Whether a local cluster answers; its kubeconfig alone proves nothing."""
    from cabildo_local.settings import default_state_root  # noqa: PLC0415

    kubeconfig = default_state_root() / name / "kubeconfig"
    if not kubeconfig.exists():
        return False
    try:
        return Kube(kubeconfig).text("/readyz") == "ok"
    except Exception:  # noqa: BLE001 - whatever keeps it from answering, it is not up
        return False


def apply_crds(kube: Kube) -> None:
    """Apply the committed CRDs and wait until they are served."""
    for file in sorted((CHECKOUT / "crds").glob("*.yaml")):
        body = yaml.safe_load(file.read_text())
        name = body["metadata"]["name"]
        kube.apply(CRDS, body)
        kube.wait(
            CRDS,
            lambda seen, name=name: _is_established(seen.get(name, {})),
            within_s=20,
            what=f"CRD {name} is established",
        )


def _is_established(crd: Object) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


@contextmanager
def namespace(kube: Kube, *, prefix: str) -> Iterator[str]:
    """Make a namespace and delete it afterwards, without waiting for its end."""
    name = f"{prefix}-{os.getpid()}-{next(_counter)}"
    kube.create(NAMESPACES, {"metadata": {"name": name}})
    try:
        yield name
    finally:
        if not os.environ.get("KEEP_NAMESPACES"):
            kube.delete(NAMESPACES, name)


@dataclass(frozen=True, slots=True)
class OperatorIdentity:
    """The operator's ServiceAccount with exactly the chart's rules."""

    namespace: str
    user: str
    kubeconfig: Path


def rendered_chart(*, namespace: str, values: dict[str, str] | None = None) -> list[Object]:
    """Return the chart's objects as `helm template` renders them."""
    from cabildo_local.binaries import resolve  # noqa: PLC0415
    from cabildo_local.reporter import LineReporter  # noqa: PLC0415

    helm = resolve(["helm"], reporter=LineReporter(sys.stderr))["helm"]
    command = [str(helm), "template", "cabildo", str(CHECKOUT / "helm" / "cabildo")]
    command += ["--namespace", namespace, "--kube-version", "1.34.4"]
    for key, value in (values or {}).items():
        command += ["--set-string", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def operator_identity(kube: Kube, *, namespace: str, folder: Path) -> OperatorIdentity:
    """Install the chart's ServiceAccount and rules, and write a kubeconfig that uses them.

    The host process is then refused whatever the Deployment would be refused.
    """
    account = ""
    for body in rendered_chart(namespace=namespace):
        if body["kind"] in RBAC_KINDS:
            kube.apply(_RESOURCES[body["kind"]], body, namespace=namespace)
        if body["kind"] == "ServiceAccount":
            account = body["metadata"]["name"]
    assert account, "the chart has no ServiceAccount"
    path = SERVICE_ACCOUNTS.path(namespace=namespace, name=account, subresource="token")
    asked = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 7200},
    }
    token = kube.request("POST", path, body=asked)["status"]["token"]
    return OperatorIdentity(
        namespace=namespace,
        user=f"system:serviceaccount:{namespace}:{account}",
        kubeconfig=_token_kubeconfig(kube.kubeconfig, token=token, folder=folder),
    )


def _token_kubeconfig(admin: Path, *, token: str, folder: Path) -> Path:
    """Write a kubeconfig for the same server that carries a token."""
    config = yaml.safe_load(admin.read_text())
    context = next(one for one in config["contexts"] if one["name"] == config["current-context"])
    cluster = next(
        one for one in config["clusters"] if one["name"] == context["context"]["cluster"]
    )
    authority = cluster["cluster"].pop("certificate-authority", None)
    if authority:
        data = (admin.parent / authority).read_bytes()
        cluster["cluster"]["certificate-authority-data"] = base64.b64encode(data).decode()
    out = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{"name": "operator", "user": {"token": token}}],
        "contexts": [
            {"name": "operator", "context": {"cluster": cluster["name"], "user": "operator"}}
        ],
        "current-context": "operator",
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "operator.kubeconfig"
    file.write_text(yaml.safe_dump(out))
    file.chmod(0o600)
    return file
