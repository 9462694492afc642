"""Who may report: rank 0 of the current attempt, and nobody else."""

import msgspec
import pytest

from cabildo_operator.errors import ReportRefusedError
from cabildo_operator.kube.objects import Pod
from cabildo_operator.kube.store import ObjectKey
from cabildo_operator.progress.access import Reporter, admit
from cabildo_operator.progress.token_review import Caller
from cabildo_operator.reconcile.stores import Stores
from support.operator_objects import pod, training_job

KEY = ObjectKey("ns", "job")


def ask(caller_pod: Pod, *, key: ObjectKey = KEY, namespace: str = "ns") -> Reporter:
    stores = Stores()
    stores.training_jobs.upsert(training_job(run=1, attempt=2))
    stores.pods.upsert(pod())
    if caller_pod.metadata.name != "unknown":
        stores.pods.upsert(caller_pod)
    caller = Caller(
        namespace=namespace,
        pod_name=caller_pod.metadata.name,
        pod_uid=caller_pod.metadata.uid,
    )
    return admit(key, caller=caller, objects=stores.training_jobs, pods=stores.pods)


def test_rank_0_of_the_current_attempt_is_admitted() -> None:
    assert ask(pod()) == Reporter(uid="uid-1", pod_uid="pod-1", run=1, attempt=2)


@pytest.mark.parametrize(
    ("caller", "code", "reason"),
    [
        (pod("r1", uid="pod-2", rank="1"), 403, "Forbidden"),
        (pod("other", uid="pod-3", owner="uid-9"), 403, "Forbidden"),
        (pod("zombie", uid="pod-4", attempt="1"), 409, "AttemptOver"),
        (pod("early", uid="pod-5", run="0"), 409, "AttemptOver"),
        (pod("unknown", uid="pod-6"), 503, "PodUnknown"),
    ],
)
def test_others_are_turned_away_with_a_reason(caller: Pod, code: int, reason: str) -> None:
    with pytest.raises(ReportRefusedError) as refused:
        ask(caller)
    assert (refused.value.code, refused.value.reason) == (code, reason)


def test_a_pod_of_another_uid_under_the_same_name_is_not_that_pod() -> None:
    stores = Stores()
    stores.training_jobs.upsert(training_job(run=1, attempt=2))
    stores.pods.upsert(pod(uid="now"))
    caller = Caller(namespace="ns", pod_name=pod().metadata.name, pod_uid="before")
    with pytest.raises(ReportRefusedError) as refused:
        admit(KEY, caller=caller, objects=stores.training_jobs, pods=stores.pods)
    assert refused.value.code == 503


def test_a_report_on_an_object_that_is_not_there_is_a_404() -> None:
    with pytest.raises(ReportRefusedError) as refused:
        ask(pod(), key=ObjectKey("ns", "nobody"))
    assert refused.value.code == 404


def test_a_pod_of_another_namespace_is_forbidden() -> None:
    stores = Stores()
    stores.training_jobs.upsert(training_job(run=1, attempt=2))
    far = pod("far")
    far = msgspec.structs.replace(
        far, metadata=msgspec.structs.replace(far.metadata, namespace="far")
    )
    stores.pods.upsert(far)
    caller = Caller(namespace="far", pod_name="far", pod_uid="pod-1")
    with pytest.raises(ReportRefusedError) as refused:
        admit(KEY, caller=caller, objects=stores.training_jobs, pods=stores.pods)
    assert refused.value.code == 403
