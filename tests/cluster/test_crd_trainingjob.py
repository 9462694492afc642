"""The CRD on the real API server: what it takes, what it refuses and in which words.

The cases are shared with the unit tests of the models (`support/api_cases.py`).
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cabildo_api.schema import root_schema
from cabildo_api.training_job import TrainingJob, TrainingJobSpec
from support.api_cases import FULL, MINIMAL, RULES, SCHEMA, Refused, changed
from support.kube import CRDS, TRAINING_JOBS, ApiRefusedError, Kube

if TYPE_CHECKING:
    from collections.abc import Callable

Spec = dict[str, Any]

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def training_job(spec: Spec, *, name: str = "job") -> dict[str, Any]:
    return {
        "apiVersion": "cabildo.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.fixture
def create(kube: Kube, namespace: str) -> Callable[..., dict[str, Any]]:
    def create(spec: Spec, *, name: str = "job") -> dict[str, Any]:
        return kube.create(TRAINING_JOBS, training_job(spec, name=name), namespace=namespace)

    return create


@pytest.fixture
def update(kube: Kube, namespace: str) -> Callable[[Spec], dict[str, Any]]:
    """Write a spec over the one that is there, defaults included, as `kubectl replace` does."""

    def update(spec: Spec) -> dict[str, Any]:
        seen = kube.get(TRAINING_JOBS, "job", namespace=namespace)
        assert seen is not None
        path = TRAINING_JOBS.path(namespace=namespace, name="job")
        return kube.request("PUT", path, body={**seen, "spec": spec})

    return update


def refusal(change: Callable[[], object]) -> str:
    with pytest.raises(ApiRefusedError) as refused:
        change()
    assert refused.value.status == 422
    return refused.value.message


def test_the_crd_has_no_complaints(kube: Kube) -> None:
    """Cost limits of CEL, structure and defaults are judged here."""
    crd = kube.get(CRDS, "trainingjobs.cabildo.dev")
    assert crd is not None
    conditions = {one["type"]: one["status"] for one in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_the_spec_may_be_embedded_in_a_list(kube: Kube) -> None:
    """Other kinds will carry templates of it; a list multiplies the estimated cost of its rules."""
    spec = copy.deepcopy(root_schema()["properties"]["spec"])
    spec["x-kubernetes-validations"] = [
        rule for rule in spec["x-kubernetes-validations"] if "oldSelf" not in rule["rule"]
    ]
    member = {"type": "object", "properties": {"template": spec}}
    members = {"type": "array", "maxItems": 256, "items": member}
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "embeddings.cabildo.dev"},
        "spec": {
            "group": "cabildo.dev",
            "scope": "Namespaced",
            "names": {"kind": "Embedding", "plural": "embeddings"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "properties": {"members": members}}
                    },
                }
            ],
        },
    }
    kube.request("POST", CRDS.path(), query={"dryRun": "All"}, body=body)


@pytest.mark.parametrize("spec", [MINIMAL, FULL], ids=["minimal", "full"])
def test_defaults_of_the_server_are_those_of_the_models(
    create: Callable[..., dict[str, Any]], spec: Spec
) -> None:
    stored = create(spec)
    assert TrainingJob.model_validate(stored).spec == TrainingJobSpec.model_validate(spec)


def test_every_default_is_written_by_the_server(create: Callable[..., dict[str, Any]]) -> None:
    """A model's default that the schema forgot would differ between server and operator."""
    stored = create(MINIMAL)["spec"]
    model = TrainingJobSpec.model_validate(MINIMAL).to_object()
    assert _without_empty(model) == _without_empty(stored)


def _without_empty(value: Any) -> Any:
    """Drop what parses to the same whether it is written or not: empty texts, lists and maps."""
    if not isinstance(value, dict):
        return value
    maps = {"requests", "limits", "nodeSelector"}
    return {
        name: _without_empty(item)
        for name, item in value.items()
        if item not in ("", []) and not (item == {} and name in maps)
    }


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_every_example_is_taken_whole(kube: Kube, namespace: str, file: Path) -> None:
    jobs = [one for one in yaml.safe_load_all(file.read_text()) if one["kind"] == "TrainingJob"]
    assert jobs
    for body in jobs:
        stored = kube.create(TRAINING_JOBS, body, namespace=namespace)
        assert TrainingJob.model_validate(stored).spec == TrainingJobSpec.model_validate(
            body["spec"]
        )


@pytest.mark.parametrize("case", RULES, ids=lambda case: case.what)
def test_a_broken_rule_is_named_with_field_value_and_remedy(
    create: Callable[..., dict[str, Any]], case: Refused
) -> None:
    message = refusal(lambda: create(case.spec()))
    assert f" {case.field}: Invalid value" in message
    assert [words for words in case.words if words not in message] == []
    assert message.count("Invalid value") == 1, message


@pytest.mark.parametrize("case", SCHEMA, ids=lambda case: case.what)
def test_a_broken_schema_is_named_by_the_server(
    create: Callable[..., dict[str, Any]], case: Refused
) -> None:
    message = refusal(lambda: create(case.spec()))
    assert case.field in message
    assert [words for words in case.words if words not in message] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 46, "use at most 45 characters"),
        ("with.dot", "cannot name a Service: start with a lower-case letter"),
        ("1st", "cannot name a Service: start with a lower-case letter"),
    ],
)
def test_names_that_cannot_name_pods_and_services_are_refused(
    create: Callable[..., dict[str, Any]], name: str, words: str
) -> None:
    message = refusal(lambda: create(MINIMAL, name=name))
    assert f"metadata.name '{name}'" in message
    assert words in message


def test_the_longest_name_is_taken(create: Callable[..., dict[str, Any]]) -> None:
    assert create(MINIMAL, name="a" * 45)["metadata"]["name"] == "a" * 45


def test_features_of_the_same_name_are_refused(create: Callable[..., dict[str, Any]]) -> None:
    twice = [{"name": "range", "logRange": {}}, {"name": "range", "log": {"column": "Close"}}]
    message = refusal(lambda: create(changed(MINIMAL, {"data.features": twice})))
    assert 'spec.data.features[1]: Duplicate value: {"name":"range"}' in message


@pytest.fixture
def kubectl(kube: Kube) -> Callable[..., subprocess.CompletedProcess[str]]:
    from cabildo_local.binaries import resolve  # noqa: PLC0415 - slow where it is not used
    from cabildo_local.reporter import SilentReporter  # noqa: PLC0415

    program = resolve(["kubectl"], reporter=SilentReporter())["kubectl"]

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *arguments],
            input=text,
            env={**os.environ, "KUBECONFIG": str(kube.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_unknown_fields_are_refused_by_kubectl(
    kubectl: Callable[..., subprocess.CompletedProcess[str]], namespace: str
) -> None:
    body = json.dumps(training_job({**MINIMAL, "learningRate": 0.1}))
    done = kubectl("apply", "--namespace", namespace, "-f", "-", text=body)
    assert done.returncode != 0
    assert 'strict decoding error: unknown field "spec.learningRate"' in done.stderr


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "spec",
            "nodes\t<integer>\n    Number of pods; each is one rank. Default 1. From 1 to 1024.",
        ),
        ("spec.optimizer.adamW.learningRate", "Step size at its highest"),
        ("spec.runPolicy.backoffSeconds", "in seconds"),
        ("status.progress", "percentage\t<integer>"),
    ],
)
def test_kubectl_explains_a_field(
    kubectl: Callable[..., subprocess.CompletedProcess[str]], path: str, words: str
) -> None:
    assert words in kubectl("explain", f"trainingjob.{path}").stdout


def test_kubectl_lists_the_columns(
    kubectl: Callable[..., subprocess.CompletedProcess[str]],
    create: Callable[..., dict[str, Any]],
    kube: Kube,
    namespace: str,
) -> None:
    create(MINIMAL)
    now = "2026-11-22T12:00:00Z"
    running = {"type": "Running", "status": "True", "reason": "Running", "message": ""}
    status = {
        "phase": "Running",
        "runID": "1",
        "attempt": 2,
        "restarts": 1,
        "ready": "2/2",
        "progress": {"percentage": 40, "etaSeconds": 95, "loss": "0.231"},
        "checkpoint": {"last": {"step": 1200, "uri": "pvc://a/b", "digest": "sha256:0"}},
        "conditions": [{**running, "lastTransitionTime": now}],
    }
    kube.patch(TRAINING_JOBS, "job", {"status": status}, namespace=namespace, sub="status")
    done = kubectl("get", "cbtj", "--namespace", namespace, "-o", "wide")
    head, row = (line.split() for line in done.stdout.strip().splitlines())
    columns = "NAME PHASE PROGRESS ETA LOSS READY RESTARTS AGE RUN ATTEMPT CHECKPOINT REASON"
    assert " ".join(head) == columns
    values = dict(zip(head, row, strict=True))
    del values["AGE"]
    assert values == {
        "NAME": "job",
        "PHASE": "Running",
        "PROGRESS": "40",
        "ETA": "95",
        "LOSS": "0.231",
        "READY": "2/2",
        "RESTARTS": "1",
        "RUN": "1",
        "ATTEMPT": "2",
        "CHECKPOINT": "1200",
        "REASON": "Running",
    }
    narrow = kubectl("get", "training", "--namespace", namespace).stdout.splitlines()[0]
    assert narrow.split() == columns.split(" RUN", maxsplit=1)[0].split()


FIXED = [
    {"nodes": 2},
    {"seed": 1},
    {"image": "other:1"},
    {"model": {"gru": {}}},
    {"model": {"lstmAttention": {"hiddenSize": 32}}},
    {"data.window": {"length": 30, "horizon": 1}},
    {"resources": {"limits": {"cpu": "1"}}},
    {"imagePullSecrets": [{"name": "key"}]},
    {"serviceAccountName": "other"},
    {"limits.maxEpochs": 21},
    {"checkpoint.keep": {"last": 5, "best": 1}},
    {"runPolicy.maxRestarts": 9},
    {"runPolicy.backoffSeconds": 9},
    {"scheduling.nodeSelector": {"pool": "a"}},
]


@pytest.mark.parametrize("change", FIXED, ids=str)
def test_a_running_spec_cannot_change_in_either_direction(
    create: Callable[..., dict[str, Any]],
    update: Callable[[Spec], dict[str, Any]],
    change: dict[str, Any],
) -> None:
    (path,) = change
    field = path if path.startswith("runPolicy") else path.split(".")[0]
    create(MINIMAL)
    forth = refusal(lambda: update(changed(MINIMAL, change)))
    assert f" spec.{field}: Invalid value" in forth
    assert f"{field} cannot change" in forth
    assert "set suspend: true in the same update, or a new runID" in forth
    update(changed(MINIMAL, {**change, "suspend": True}))
    back = refusal(lambda: update(MINIMAL))
    assert f" spec.{field}: Invalid value" in back


def test_the_message_names_both_values(
    create: Callable[..., dict[str, Any]], update: Callable[[Spec], dict[str, Any]]
) -> None:
    create(MINIMAL)
    message = refusal(lambda: update(changed(MINIMAL, {"nodes": 2})))
    assert "nodes cannot change from 1 to 2 during a run" in message


def test_a_suspended_spec_may_change(
    create: Callable[..., dict[str, Any]], update: Callable[[Spec], dict[str, Any]]
) -> None:
    create(changed(MINIMAL, {"suspend": True}))
    other = changed(FULL, {"suspend": True, "runID": "1"})
    assert update(other)["metadata"]["generation"] == 2
    assert update(changed(other, {"suspend": False}))["spec"]["suspend"] is False


def test_resuming_and_changing_at_once_is_refused(
    create: Callable[..., dict[str, Any]], update: Callable[[Spec], dict[str, Any]]
) -> None:
    create(changed(MINIMAL, {"suspend": True}))
    assert "spec.nodes" in refusal(lambda: update(changed(MINIMAL, {"nodes": 2})))


def test_a_new_run_may_change_everything(
    create: Callable[..., dict[str, Any]], update: Callable[[Spec], dict[str, Any]]
) -> None:
    create(MINIMAL)
    stored = update(changed(MINIMAL, {"runID": "2", "nodes": 2, "model": {"gru": {}}}))
    assert stored["spec"]["nodes"] == 2


@pytest.mark.parametrize(
    "change", [{"suspend": True}, {"runPolicy": {"activeDeadlineSeconds": 60}}], ids=str
)
def test_suspension_and_the_deadline_may_always_change(
    create: Callable[..., dict[str, Any]],
    update: Callable[[Spec], dict[str, Any]],
    change: dict[str, Any],
) -> None:
    create(MINIMAL)
    update(changed(MINIMAL, change))
    update(MINIMAL)


def test_the_scale_subresource_follows_the_same_rules(
    kubectl: Callable[..., subprocess.CompletedProcess[str]],
    create: Callable[..., dict[str, Any]],
    namespace: str,
) -> None:
    create(MINIMAL, name="going")
    create(changed(MINIMAL, {"suspend": True}), name="paused")
    scale = ("scale", "--namespace", namespace, "--replicas=4")
    refused = kubectl(*scale, "trainingjob/going")
    assert "nodes cannot change from 1 to 4 during a run" in refused.stderr
    assert kubectl(*scale, "trainingjob/paused").returncode == 0


def test_a_status_may_be_written_on_a_running_job(
    create: Callable[..., dict[str, Any]], kube: Kube, namespace: str
) -> None:
    create(MINIMAL)
    status = {"phase": "Pending", "attempts": [{"run": 1, "attempt": 1}]}
    written = kube.patch(
        TRAINING_JOBS, "job", {"status": status}, namespace=namespace, sub="status"
    )
    assert TrainingJob.model_validate(written).status.phase == "Pending"


def test_jobs_are_selected_by_phase(
    kubectl: Callable[..., subprocess.CompletedProcess[str]],
    create: Callable[..., dict[str, Any]],
    kube: Kube,
    namespace: str,
) -> None:
    create(MINIMAL, name="one")
    create(MINIMAL, name="two")
    failed = {"status": {"phase": "Failed"}}
    kube.patch(TRAINING_JOBS, "two", failed, namespace=namespace, sub="status")
    done = kubectl(
        "get", "cbtj", "-n", namespace, "-o", "name", "--field-selector", "status.phase=Failed"
    )
    assert done.stdout.split() == ["trainingjob.cabildo.dev/two"]
