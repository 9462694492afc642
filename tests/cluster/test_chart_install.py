"""The chart on the real API server: install, upgrade, uninstall, and what people may then do.

Without nodes no operator pod runs here; that it works is the e2e tests' part.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from support.helm import CHART, helm
from support.kube import CLUSTER_ROLES, CRDS, DEPLOYMENTS, NAMESPACES, PODS, Kube

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

RELEASE = "chart-test"
NAME = f"{RELEASE}-cabildo"
RESTRICTED = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}

Helm = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture
def run_helm(kube: Kube, namespace: str) -> Iterator[Helm]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = helm(*arguments, "--namespace", namespace, kubeconfig=kube.kubeconfig)
        assert done.returncode == 0, done.stderr
        return done

    yield run
    helm("uninstall", RELEASE, "--namespace", namespace, kubeconfig=kube.kubeconfig)


@pytest.fixture
def installed(run_helm: Helm, kube: Kube, namespace: str) -> Helm:
    """A release in a namespace that enforces restricted pods; it takes the CRD over."""
    kube.patch(NAMESPACES, namespace, RESTRICTED)
    run_helm("install", RELEASE, str(CHART), "--take-ownership")
    return run_helm


def test_its_pods_pass_restricted_pod_security(installed: Helm, kube: Kube, namespace: str) -> None:
    def admitted(pods: dict[str, Any]) -> bool:
        return any(name.startswith(NAME) for name in pods)

    kube.wait(PODS, admitted, within_s=20, namespace=namespace, what="an operator pod")


def test_an_upgrade_changes_the_deployment_and_nothing_needs_force(
    installed: Helm, kube: Kube, namespace: str
) -> None:
    installed("upgrade", RELEASE, str(CHART), "--set", "replicas=2,settings.workers=4")
    deployment = kube.get(DEPLOYMENTS, NAME, namespace=namespace)
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 2
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "CABILDO_WORKERS", "value": "4"} in container["env"]


def test_uninstalling_keeps_the_crd_and_leaves_no_rule(installed: Helm, kube: Kube) -> None:
    before = kube.get(CRDS, "trainingjobs.cabildo.dev")
    assert before is not None
    installed("uninstall", RELEASE)
    after = kube.get(CRDS, "trainingjobs.cabildo.dev")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "deletionTimestamp" not in after["metadata"]
    left = [one["metadata"]["name"] for one in kube.list(CLUSTER_ROLES)]
    assert not [name for name in left if name.startswith(NAME)]


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("view", {("get", ""), ("list", ""), ("get", "status")}, {("create", ""), ("delete", "")}),
        (
            "edit",
            {("get", ""), ("create", ""), ("patch", ""), ("delete", ""), ("patch", "scale")},
            {("patch", "status"), ("deletecollection", "")},
        ),
        (
            "admin",
            {("list", ""), ("create", ""), ("deletecollection", "")},
            {("patch", "status")},
        ),
    ],
)
def test_the_clusters_own_roles_cover_training_jobs(
    installed: Helm,
    kube: Kube,
    namespace: str,
    role: str,
    may: set[tuple[str, str]],
    may_not: set[tuple[str, str]],
) -> None:
    def is_aggregated(roles: dict[str, Any]) -> bool:
        rules = roles[role].get("rules") or []
        return any("trainingjobs" in rule.get("resources", []) for rule in rules)

    kube.wait(CLUSTER_ROLES, is_aggregated, within_s=20, what=f"{role} covers trainingjobs")
    binding = {
        "metadata": {"name": "someone"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": role,
        },
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"some-{role}"}
        ],
    }
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    kube.request("POST", bindings, body=binding)
    allowed: set[tuple[str, str]] = set()
    deadline = time.monotonic() + 10.0
    while not may <= allowed and time.monotonic() < deadline:
        # The authoriser sees a binding some moments after it was stored; nothing tells when.
        time.sleep(0.05)
        allowed = {
            asked
            for asked in may | may_not
            if _may(kube, f"some-{role}", namespace=namespace, asked=asked)
        }
    assert allowed == may


def _may(kube: Kube, user: str, *, namespace: str, asked: tuple[str, str]) -> bool:
    """Whether the API server would let a user do it now."""
    verb, subresource = asked
    review = {
        "spec": {
            "user": user,
            "resourceAttributes": {
                "namespace": namespace,
                "group": "cabildo.dev",
                "resource": "trainingjobs",
                "subresource": subresource,
                "verb": verb,
            },
        }
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(kube.request("POST", path, body=review)["status"]["allowed"])
