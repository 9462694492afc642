"""The progress API of a real operator, asked with the real tokens of real pods."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest
import urllib3

from support.kube import PODS, SECRETS, SERVICE_ACCOUNTS, TRAINING_JOBS, Kube, Object
from support.operator_process import OperatorProcess
from support.training_jobs import E2E_SPEC, TrainingRun

AUDIENCE = "cabildo.dev/progress"
WITHIN_S = 60
REPORT = {
    "trainerStatus": {
        "progressPercentage": 40,
        "estimatedRemainingSeconds": 95,
        "metrics": [{"name": "loss", "value": "0.25"}],
    },
    "cabildo": {"epoch": 3, "step": 120, "totalSteps": 300, "loss": "0.25", "attempt": 1},
}


@dataclass
class Bench:
    """A TrainingJob with its pods, and the way to the progress API."""

    kube: Kube
    operator: OperatorProcess
    run: TrainingRun

    def pod(self, rank: int) -> Object:
        label = "batch.kubernetes.io/job-completion-index"
        pods = self.kube.list(PODS, namespace=self.run.namespace, labels=f"{label}={rank}")
        return pods[0]

    def token(self, pod: Object, *, audience: str = AUDIENCE) -> str:
        """The token that a kubelet would project into the pod."""
        path = SERVICE_ACCOUNTS.path(
            namespace=self.run.namespace, name="default", subresource="token"
        )
        bound = {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        }
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "boundObjectRef": bound},
        }
        return str(self.kube.request("POST", path, body=asked)["status"]["token"])

    def post(
        self, body: object, *, token: str = "", name: str = "", scheme: str = "Bearer"
    ) -> tuple[int, Any]:
        """POST as a trainer does: TLS checked against the CA, by the Service's name."""
        namespace = self.operator.identity.namespace
        secret = self.kube.get(SECRETS, "cabildo-certificates", namespace=namespace)
        assert secret is not None
        pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1",
            self.operator.progress_port,
            ca_cert_data=base64.b64decode(secret["data"]["ca.crt"]).decode(),
            server_hostname=f"cabildo-progress.{namespace}.svc",
            assert_hostname=f"cabildo-progress.{namespace}.svc",
            retries=False,
            timeout=20,
        )
        where = f"namespaces/{self.run.namespace}/trainingjobs/{name or self.run.name}/status"
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"{scheme} {token}"} if token else {}
        with pool:
            answer = pool.request("POST", f"/v1alpha1/{where}", body=raw, headers=headers)
        return answer.status, json.loads(answer.data)


@pytest.fixture
def bench(kube: Kube, operator: OperatorProcess, namespace: str) -> Bench:
    run = TrainingRun.start(kube, namespace=namespace, name="one", spec=E2E_SPEC)
    kube.wait(
        PODS, lambda seen: len(seen) == 2, namespace=namespace, within_s=WITHIN_S, what="the pods"
    )
    kube.wait(
        TRAINING_JOBS,
        lambda seen: seen["one"].get("status", {}).get("nodes") == 2,
        namespace=namespace,
        within_s=WITHIN_S,
        what="both pods in the status: the operator knows them",
    )
    return Bench(kube=kube, operator=operator, run=run)


def test_a_report_of_rank_0_reaches_status_and_metrics_until_the_object_goes(
    bench: Bench,
) -> None:
    token = bench.token(bench.pod(0))
    assert bench.post(REPORT, token=token) == (200, {"directive": "none"})
    progress = bench.kube.wait(
        TRAINING_JOBS,
        lambda seen: seen["one"]["status"].get("progress"),
        namespace=bench.run.namespace,
        within_s=WITHIN_S,
        what="progress in the status",
    )
    assert (progress["percentage"], progress["step"]) == (40, 120)
    labels = f'{{name="one",namespace="{bench.run.namespace}"}}'
    assert f"cabildo_training_progress_ratio{labels} 0.4" in bench.operator.metrics()
    bench.kube.delete(TRAINING_JOBS, "one", namespace=bench.run.namespace)
    bench.kube.wait(PODS, lambda seen: not seen, namespace=bench.run.namespace, within_s=WITHIN_S)
    assert labels not in bench.operator.metrics()


def test_kubeflows_own_body_is_enough(bench: Bench) -> None:
    body = {"trainerStatus": {"progressPercentage": 10, "lastUpdatedTime": "2026-01-01T00:00:00Z"}}
    assert bench.post(body, token=bench.token(bench.pod(0)))[0] == 200


def test_who_is_not_rank_0_of_this_object_is_refused_with_a_reason(bench: Bench) -> None:
    rank_0, rank_1 = bench.token(bench.pod(0)), bench.token(bench.pod(1))
    other_audience = bench.token(bench.pod(0), audience="https://kubernetes.default.svc")
    cases = [
        ({"token": ""}, 401, "Unauthenticated"),
        ({"token": "nonsense"}, 401, "Unauthenticated"),
        ({"token": rank_0, "scheme": "Basic"}, 401, "Unauthenticated"),
        ({"token": other_audience}, 401, "Unauthenticated"),
        ({"token": rank_1}, 403, "Forbidden"),
        ({"token": rank_0, "name": "nobody"}, 404, "NotFound"),
    ]
    for request, code, reason in cases:
        answered, body = bench.post(REPORT, **request)
        assert (answered, body["reason"]) == (code, reason), body
        assert body["error"]


def test_a_bad_body_is_refused_with_the_field(bench: Bench) -> None:
    token = bench.token(bench.pod(0))
    code, body = bench.post({"trainerStatus": {"progressPercentage": 140}}, token=token)
    assert (code, body["reason"]) == (422, "InvalidReport")
    assert "trainerStatus.progressPercentage" in body["error"]
    code, body = bench.post(b"not json", token=token)
    assert (code, body["reason"]) == (422, "InvalidReport")
    code, body = bench.post(b"x" * 100_000, token=token)
    assert code == 413


def test_a_token_is_reviewed_once_a_minute_not_once_a_report(bench: Bench) -> None:
    token = bench.token(bench.pod(0))

    def reviews() -> float:
        lines = bench.operator.metrics().splitlines()
        name = 'cabildo_rest_client_requests_total{code="201",method="POST"}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    assert bench.post(REPORT, token=token)[0] == 200
    before = reviews()
    for _ in range(3):
        assert bench.post(REPORT, token=token)[0] == 200
    assert reviews() == before
