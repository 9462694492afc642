"""Pods that the real Job controller may not create: it tells so in its Events and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.kube import RESOURCE_QUOTAS
from support.training_jobs import E2E_SPEC, TrainingRun, condition

if TYPE_CHECKING:
    from support.kube import Kube, Object
    from support.operator_process import OperatorProcess

HEALS_WITHIN_S = 90
"""The Job controller's longest pause between two tries is a minute."""


def has_room(seen: dict[str, Object]) -> bool:
    """Whether the quota counts by now: before that it refuses whatever comes."""
    return "hard" in seen.get("few", {}).get("status", {})


def test_pods_over_the_quota_are_explained_until_it_is_lifted(
    operator: OperatorProcess, kube: Kube, namespace: str
) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    kube.create(RESOURCE_QUOTAS, quota, namespace=namespace)
    kube.wait(RESOURCE_QUOTAS, has_room, namespace=namespace, within_s=30, what="the quota counts")
    run = TrainingRun.start(kube, namespace=namespace, name="net", spec=E2E_SPEC)
    told = run.wait_condition("Running", within_s=10, status="False", reason="CreateRefused")
    assert told["message"].startswith("rank 1: the pod is forbidden: exceeded quota: few")
    assert "change the policy or the spec" in told["message"]
    stalled = condition(run.status, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "CreateRefused")
    assert run.status["phase"] == "Pending"

    kube.delete(RESOURCE_QUOTAS, "few", namespace=namespace)
    run.wait_condition("Stalled", within_s=HEALS_WITHIN_S, status="False")
    assert condition(run.status, "Running")["reason"] != "CreateRefused"
    assert len(run.pods()) == 2
    assert [job["metadata"]["name"] for job in run.jobs()] == ["net-r1-a1"]
    operator.check_alive()
