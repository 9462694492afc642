"""Children as they are POSTed, to the letter: golden YAML beside this file.

After a wanted change: `UPDATE_GOLDEN=1 pytest tests/unit/operator/training_job/test_render.py`,
then read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cabildo_api import names
from cabildo_api.pods import Resources
from cabildo_api.run_spec import RunSpec
from cabildo_api.training_job import TrainingJobSpec
from cabildo_operator.kube.objects import ObjectMeta, Service, ServiceSpec
from cabildo_operator.reconcile.training_job.render.claim import render_claim
from cabildo_operator.reconcile.training_job.render.environment import thread_count
from cabildo_operator.reconcile.training_job.render.job import failure_rules, render_job
from cabildo_operator.reconcile.training_job.render.metadata import Owner
from cabildo_operator.reconcile.training_job.render.service import has_drifted, render_service
from unit.operator.training_job.world import SETTINGS, SPEC, UID, merged

GOLDEN = Path(__file__).parent / "golden"
OWNER = Owner(namespace="lab", name="net", uid=UID)
FULL: dict[str, Any] = {
    "runID": "second",
    "image": "registry.example/own:2",
    "resources": {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "1500m", "nvidia.com/gpu": 1},
    },
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "pull"}],
    "data": {
        "sources": [{"name": "prices", "file": {"uri": "pvc://prices/daily/sp500.csv"}}],
    },
    "checkpoint": {"storage": {"claimTemplate": None, "claimName": "mine"}},
    "runPolicy": {"terminationGracePeriodSeconds": 120},
    "scheduling": {
        "nodeSelector": {"pool": "gpu"},
        "priorityClassName": "high",
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 5,
            },
        ],
    },
}


def spec_of(**change: Any) -> TrainingJobSpec:
    return TrainingJobSpec.model_validate(merged(SPEC, change))


def job(**change: Any) -> dict[str, Any]:
    return render_job(OWNER, spec=spec_of(**change), run=2, attempt=3, settings=SETTINGS)


def claim(**template: Any) -> dict[str, Any]:
    spec = spec_of(checkpoint={"storage": {"claimTemplate": template}})
    assert spec.checkpoint.storage.claim_template is not None
    return render_claim(spec.checkpoint.storage.claim_template, owner=OWNER)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("job-least.yaml", job()),
        ("job-full.yaml", job(**FULL)),
        ("service.yaml", render_service(OWNER)),
        ("claim-retain.yaml", claim(size="5Gi")),
        (
            "claim-delete.yaml",
            claim(retentionPolicy="Delete", storageClassName="fast", accessModes=["ReadWriteOnce"]),
        ),
    ],
)
def test_a_child_is_as_agreed(name: str, body: dict[str, Any]) -> None:
    text = yaml.safe_dump(body, sort_keys=False, width=100)
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert json.dumps(job(**FULL)) == json.dumps(job(**FULL))


def test_the_run_spec_in_the_annotation_is_what_the_trainer_reads() -> None:
    text = job(**FULL)["spec"]["template"]["metadata"]["annotations"][names.ANNOTATION_RUN]
    run = RunSpec.model_validate_json(text)
    assert (run.uid, run.run, run.run_id, run.attempt, run.nodes) == (UID, 2, "second", 3, 2)
    assert run.checkpoint.uri_prefix == "pvc://mine"
    assert run.collective_timeout_seconds == SETTINGS.collective_timeout_s


def test_every_mount_has_its_volume() -> None:
    pod = job(**FULL)["spec"]["template"]["spec"]
    mounts = {item["name"] for item in pod["containers"][0]["volumeMounts"]}
    assert mounts == {item["name"] for item in pod["volumes"]}


def test_the_longest_name_still_makes_a_hostname() -> None:
    longest = "n" * names.NAME_MAX_LENGTH
    assert len(names.pod_hostname(longest, 999, 9999, 1023)) <= 63


def test_exactly_one_rule_speaks_for_each_exit_code() -> None:
    rules = [rule["onExitCodes"] for rule in failure_rules() if "onExitCodes" in rule]
    for code in range(1, 256):
        matching = [
            rule for rule in rules if (code in rule["values"]) == (rule["operator"] == "In")
        ]
        assert len(matching) == 1, code


def test_no_rule_ignores_a_pod_and_values_are_ordered() -> None:
    rules = failure_rules()
    assert {rule["action"] for rule in rules} == {"FailJob"}
    for rule in rules:
        values = rule.get("onExitCodes", {}).get("values", [])
        assert values == sorted(set(values))


def test_final_codes_speak_before_a_disruption_and_that_before_all_others() -> None:
    kinds = [
        rule["onExitCodes"]["values"][0] if "onExitCodes" in rule else "disruption"
        for rule in failure_rules()
    ]
    assert kinds[:4] == [65, 76, 78, "disruption"]


@pytest.mark.parametrize(
    ("limits", "threads"),
    [({}, 1), ({"cpu": "100m"}, 1), ({"cpu": "1500m"}, 2), ({"cpu": 4}, 4), ({"cpu": 0}, 1)],
)
def test_threads_follow_the_cpu_limit(limits: dict[str, int | str], threads: int) -> None:
    assert thread_count(Resources(limits=limits)) == threads


def test_a_service_drifts_when_its_selector_or_its_unready_addresses_change() -> None:
    def service(selector: dict[str, str], *, publish: bool) -> Service:
        spec = ServiceSpec(selector=selector, publish_not_ready_addresses=publish)
        return Service(metadata=ObjectMeta(name="net"), spec=spec)

    mine = {names.LABEL_UID: UID}
    assert not has_drifted(service(mine, publish=True), owner=OWNER)
    assert has_drifted(service(mine, publish=False), owner=OWNER)
    assert has_drifted(service({}, publish=True), owner=OWNER)
