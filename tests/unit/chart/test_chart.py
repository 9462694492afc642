"""The chart renders what the operator needs, the same each time, and refuses bad values."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cabildo_operator.settings import Settings
from support.helm import CHART, helm, only, rendered, template

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING = (
    "replicas=2",
    "podDisruptionBudget.enabled=true",
    "imagePullSecrets={registry-key}",
    "rbac.ownerReferencesPermissionEnforcement=true",
    "metrics.annotations.a=b",
    "podAnnotations.c=d",
    "podLabels.e=f",
    "nodeSelector.g=h",
    "priorityClassName=system",
    "serviceAccount.name=other",
    "serviceAccount.annotations.i=j",
)


def pod(*settings: str) -> dict[str, Any]:
    return dict(only(rendered(*settings), "Deployment")["spec"]["template"])


def container(*settings: str) -> dict[str, Any]:
    (found,) = pod(*settings)["spec"]["containers"]
    return dict(found)


def test_helm_finds_no_fault_in_it() -> None:
    done = helm("lint", "--strict", "--kube-version", "1.34.4", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("settings", [(), EVERYTHING], ids=["defaults", "everything"])
def test_it_renders_the_same_each_time(settings: tuple[str, ...]) -> None:
    assert template(*settings).stdout == template(*settings).stdout


def test_nothing_in_it_is_random_or_looked_up_or_a_hook() -> None:
    text = "".join(file.read_text() for file in CHART.glob("templates/*") if file.is_file())
    functions = r"\b(rand\w+|gen\w+|uuidv4|now|lookup|derivePassword|htpasswd)\b"
    actions = "".join(re.findall(r"{{.*?}}", text, flags=re.DOTALL))
    assert re.findall(functions, actions) == []
    assert "helm.sh/hook" not in text


def test_an_older_kubernetes_is_refused() -> None:
    done = template(kube_version="1.32.9")
    assert done.returncode != 0
    assert "kubeVersion: >=1.33.0-0" in done.stderr
    assert template(kube_version="1.33.0-gke.1").returncode == 0


def test_the_crds_are_kept_and_can_be_left_out() -> None:
    crd = only(rendered(), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    kinds = {one["kind"] for one in rendered("crds.enabled=false")}
    assert "CustomResourceDefinition" not in kinds


def test_pod_security_is_restricted() -> None:
    spec = pod()["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_operator_understands_its_environment() -> None:
    environment = {
        one["name"]: one.get("value", "from-the-pod")
        for one in container("settings.workers=3", "settings.logFormat=text")["env"]
    }
    settings = Settings.from_environment(environment)
    assert settings.workers == 3
    assert settings.log_format == "text"
    assert settings.trainer_image == "cabildo/trainer:0.1.0"
    assert settings.progress_service == "cabildo-progress"
    ports = {one["name"]: one["containerPort"] for one in container()["ports"]}
    assert ports == {
        "metrics": settings.metrics_port,
        "probes": settings.probe_port,
        "progress": settings.progress_port,
    }


def test_every_variable_is_one_that_the_operator_reads() -> None:
    known = set(re.findall(r"CABILDO_[A-Z_]+", _settings_source()))
    assert {one["name"] for one in container()["env"]} <= known


def _settings_source() -> str:
    return (CHART.parents[1] / "operator/cabildo_operator/settings.py").read_text()


def test_identity_comes_from_the_pod() -> None:
    fields = {
        one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"]
        for one in container()["env"]
        if "valueFrom" in one
    }
    assert fields == {
        "CABILDO_NAMESPACE": "metadata.namespace",
        "CABILDO_POD_NAME": "metadata.name",
    }


def test_the_progress_service_selects_the_leader() -> None:
    service = only(rendered(), "Service", "cabildo-progress")
    selector = service["spec"]["selector"]
    assert selector.pop("cabildo.dev/leader") == "true"
    assert selector.items() <= pod()["metadata"]["labels"].items()
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "progress"}]


def test_the_rules_name_what_the_environment_names() -> None:
    objects = rendered(release="other")
    named = {
        rule["resources"][0]: rule["resourceNames"]
        for rule in only(objects, "Role")["rules"]
        if "resourceNames" in rule
    }
    (operator,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in operator["env"]}
    assert named == {
        "leases": [environment["CABILDO_LEASE_NAME"]],
        "secrets": [environment["CABILDO_CERTIFICATE_SECRET"]],
    }


def test_the_rules_are_narrow() -> None:
    objects = rendered()
    everywhere = only(objects, "ClusterRole", "cabildo")["rules"]
    for rule in [*everywhere, *only(objects, "Role")["rules"]]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    touched = {resource for rule in everywhere for resource in rule["resources"]}
    assert "secrets" not in touched
    writes = {
        resource: set(rule["verbs"]) - {"get", "list", "watch"}
        for rule in everywhere
        for resource in rule["resources"]
    }
    assert writes["trainingjobs"] == set()
    assert writes["pods"] == set()
    assert writes["trainingjobs/status"] == {"patch"}


def test_people_may_read_edit_and_administer() -> None:
    roles = {
        label: one
        for one in rendered()
        if one["kind"] == "ClusterRole"
        for label in one["metadata"]["labels"]
        if "aggregate-to" in label
    }
    assert sorted(roles) == [
        f"rbac.authorization.k8s.io/aggregate-to-{who}" for who in ("admin", "edit", "view")
    ]
    names = {one["metadata"]["name"] for one in rendered("rbac.aggregate=false")}
    assert not names & {"cabildo-view", "cabildo-edit", "cabildo-admin"}


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ((), "cabildo/operator:0.1.0"),
        (
            ("image.repository=registry.example:5000/op", "image.tag=t1"),
            "registry.example:5000/op:t1",
        ),
        (
            (f"image.digest=sha256:{'0' * 64}", "image.tag=t1"),
            f"cabildo/operator@sha256:{'0' * 64}",
        ),
    ],
    ids=["appVersion", "tag", "digest"],
)
def test_an_image_is_named_by_tag_or_digest(settings: tuple[str, ...], reference: str) -> None:
    assert container(*settings)["image"] == reference


def test_every_value_has_an_effect() -> None:
    spec = pod(*EVERYTHING)
    assert spec["metadata"]["annotations"] == {"c": "d"}
    assert spec["metadata"]["labels"]["e"] == "f"
    assert spec["spec"]["nodeSelector"] == {"g": "h"}
    assert spec["spec"]["priorityClassName"] == "system"
    assert spec["spec"]["imagePullSecrets"] == [{"name": "registry-key"}]
    assert spec["spec"]["serviceAccountName"] == "other"
    objects = rendered(*EVERYTHING)
    assert only(objects, "Deployment")["spec"]["replicas"] == 2
    assert only(objects, "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert only(objects, "ServiceAccount")["metadata"]["annotations"] == {"i": "j"}
    assert only(objects, "Service", "cabildo-metrics")["metadata"]["annotations"] == {"a": "b"}
    (finalizers,) = [
        rule
        for rule in only(objects, "ClusterRole", "cabildo")["rules"]
        if rule["resources"] == ["trainingjobs/finalizers"]
    ]
    assert finalizers["verbs"] == ["update"]
    for binding in ("ClusterRoleBinding", "RoleBinding"):
        assert only(objects, binding)["subjects"][0]["name"] == "other"
    assert "metrics" not in str(
        [one["metadata"]["name"] for one in rendered("metrics.service=false")]
    )


def test_nothing_empty_is_rendered() -> None:
    """Argo CD shows what the API server drops as a difference for ever."""

    def empties(value: Any, path: str) -> Iterator[str]:
        if value in ({}, [], "", None):
            yield path
        children = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        for name, inner in children:
            yield from empties(inner, f"{path}.{name}")

    objects = [one for one in rendered() if one["kind"] != "CustomResourceDefinition"]
    found = [path for one in objects for path in empties(one, one["kind"])]
    assert [path for path in found if not path.endswith("apiGroups.0")] == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("replicas=0", "replicas"),
        ("settings.workers=0", "workers"),
        ("settings.logFormat=xml", "logFormat"),
        ("image.digest=latest", "digest"),
        ("image.repositry=x", "repositry"),
        ("unknown=1", "unknown"),
    ],
)
def test_bad_values_are_refused_by_name(setting: str, words: str) -> None:
    done = template(setting)
    assert done.returncode != 0
    assert words in done.stderr


def test_every_value_is_described_and_every_description_has_a_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def leaves(node: dict[str, Any], path: str) -> Iterator[str]:
        for name, inner in node.get("properties", {}).items():
            if inner.get("properties"):
                yield from leaves(inner, f"{path}{name}.")
            else:
                assert inner["description"].endswith((".", "..."))
                yield f"{path}{name}"

    def written(node: dict[str, Any], described: set[str], path: str) -> Iterator[str]:
        for name, inner in node.items():
            if isinstance(inner, dict) and f"{path}{name}" not in described:
                yield from written(inner, described, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    described = set(leaves(schema, ""))
    assert set(written(values, described, "")) == described - {"global"}
