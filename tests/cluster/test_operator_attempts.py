"""Attempts, causes and charges with the real Job, node and garbage controllers.

Only the kubelet is played (`support/kubelet.py`): this is about what Kubernetes' controllers say
and in which order, which the unit tests of planning take for given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cabildo_api.progress import CorruptCheckpoint
from cabildo_api.result import Outcome, Result
from support.kube import CLAIMS, CORE_EVENTS, JOBS, NODES, PODS, SERVICES, STORAGE_CLASSES
from support.kubelet import PlayedKubelet, now, played_kubelet
from support.training_jobs import E2E_SPEC, TrainingRun, condition, merged, rank_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.kube import Kube, Object
    from support.operator_process import OperatorProcess

SOON_S = 30


@pytest.fixture
def kubelet(kube: Kube, namespace: str) -> Iterator[PlayedKubelet]:
    with played_kubelet(kube, namespace=namespace) as one:
        yield one


@pytest.fixture
def apply(kube: Kube, namespace: str) -> Callable[..., TrainingRun]:
    def start(name: str = "net", **change: object) -> TrainingRun:
        spec = merged(E2E_SPEC, dict(change))
        return TrainingRun.start(kube, namespace=namespace, name=name, spec=spec)

    return start


def bound_pods(run: TrainingRun, *, attempt: int, run_number: int = 1) -> list[Object]:
    """Wait until the scheduler has bound the whole gang."""
    labels = f"cabildo.dev/uid={run.uid},cabildo.dev/run={run_number}"
    labels += f",cabildo.dev/attempt={attempt}"

    def bound(seen: dict[str, Object]) -> list[Object] | None:
        pods = [one for one in seen.values() if one["spec"].get("nodeName")]
        return sorted(pods, key=rank_of) if len(pods) == 2 else None

    return run.kube.wait(
        PODS, bound, namespace=run.namespace, labels=labels, within_s=SOON_S, what="bound pods"
    )


def started(
    run: TrainingRun, kubelet: PlayedKubelet, *, attempt: int = 1, run_number: int = 1
) -> list[Object]:
    """Bring an attempt to Running and return its pods by rank."""
    pods = bound_pods(run, attempt=attempt, run_number=run_number)
    for pod in pods:
        kubelet.run(pod)
    run.wait_status(
        lambda status: status.get("phase") == "Running" and status.get("attempt") == attempt,
        within_s=SOON_S,
        what=f"attempt {attempt} runs",
    )
    return pods


def finish(
    run: TrainingRun, kubelet: PlayedKubelet, pods: list[Object], *, attempt: int, number: int = 1
) -> Object:
    """End all ranks well and return the status of the finished object."""
    result = Result(outcome=Outcome.COMPLETE, run=number, attempt=attempt, exit_code=0)
    kubelet.end(pods[0], 0, message=result.to_bytes().decode())
    kubelet.end(pods[1], 0)
    run.wait_condition("Succeeded", within_s=SOON_S)
    return run.status


def job_names(run: TrainingRun) -> list[str]:
    return [one["metadata"]["name"] for one in run.jobs()]


def wait_event(run: TrainingRun, reason: str) -> None:
    """Wait until an Event about the object tells a reason."""

    def told(seen: dict[str, Object]) -> bool:
        return any(
            one["reason"] == reason and one["involvedObject"]["uid"] == run.uid
            for one in seen.values()
        )

    run.kube.wait(
        CORE_EVENTS, told, namespace=run.namespace, within_s=10, what=f"an Event {reason}"
    )


def test_a_run_goes_from_apply_to_success(
    operator: OperatorProcess, kubelet: PlayedKubelet, apply: Callable[..., TrainingRun]
) -> None:
    run = apply()
    pods = started(run, kubelet)
    assert {pod["spec"]["nodeName"] for pod in pods} != {pods[0]["spec"]["nodeName"]}, "not spread"
    status = finish(run, kubelet, pods, attempt=1)
    assert (status["restarts"], status["attempt"]) == (0, 1)
    assert condition(status, "Finished")["status"] == "True"
    assert job_names(run) == ["net-r1-a1"]
    reasons = [one["reason"] for one in run.events()]
    assert reasons.count("Running") == 1
    operator.check_alive()


@pytest.mark.parametrize(
    "first",
    [pytest.param(0, id="69 first"), pytest.param(1, id="137 first", marks=pytest.mark.long)],
)
def test_a_killed_rank_costs_one_restart_in_whatever_order_it_is_told(
    first: int,
    operator: OperatorProcess,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    run = apply()
    pods = started(run, kubelet)
    # What a kubelet tells late about a rank that was killed before.
    kubelet.obedient, kubelet.died_at = 137, now()
    if first == 0:
        kubelet.end(pods[0], 69)
    else:
        kubelet.end(pods[1], 137)
        kubelet.end(pods[0], 69)
    pods = started(run, kubelet, attempt=2)
    status = finish(run, kubelet, pods, attempt=2)
    assert status["restarts"] == 1, status["attempts"]
    assert status["attempts"][0]["reason"] == "Killed"
    assert job_names(run) == ["net-r1-a1", "net-r1-a2"]
    operator.check_alive()


def test_a_deleted_pod_costs_no_restart(
    operator: OperatorProcess,
    kube: Kube,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    run = apply()
    pods = started(run, kubelet)
    kube.delete(PODS, pods[0]["metadata"]["name"], namespace=run.namespace)
    pods = started(run, kubelet, attempt=2)
    status = finish(run, kubelet, pods, attempt=2)
    assert status["restarts"] == 0, status["attempts"]
    operator.check_alive()


def test_bad_data_is_final_with_the_trainers_words(
    operator: OperatorProcess, kubelet: PlayedKubelet, apply: Callable[..., TrainingRun]
) -> None:
    run = apply()
    pods = started(run, kubelet)
    said = "prices.csv row 7 column Close: 'n/a' is not a number"
    result = Result(
        outcome=Outcome.FAILED,
        run=1,
        attempt=1,
        exit_code=65,
        reason="InvalidData",
        message=said,
    )
    kubelet.end(pods[1], 69)
    kubelet.end(pods[0], 65, message=result.to_bytes().decode())
    failed = run.wait_condition("Failed", within_s=SOON_S, reason="InvalidData")
    assert said in failed["message"]
    assert job_names(run) == ["net-r1-a1"]
    operator.check_alive()


def test_a_damaged_checkpoint_is_told_when_the_termination_message_alone_knows_of_it(
    operator: OperatorProcess, kubelet: PlayedKubelet, apply: Callable[..., TrainingRun]
) -> None:
    run = apply()
    pods = started(run, kubelet)
    damage = CorruptCheckpoint(path="step-000000000020.corrupt", reason="digest")
    result = Result(
        outcome=Outcome.COMPLETE, run=1, attempt=1, exit_code=0, corrupt_checkpoints=(damage,)
    )
    kubelet.end(pods[0], 0, message=result.to_bytes().decode())
    kubelet.end(pods[1], 0)
    run.wait_condition("Succeeded", within_s=SOON_S)
    wait_event(run, "CheckpointCorrupt")
    (told,) = [one for one in run.events() if one["reason"] == "CheckpointCorrupt"]
    assert damage.path in told["message"]
    assert run.status["attempts"][0]["corruptCheckpoints"] == [damage.path]
    assert "progress" not in run.status or "lastReportTime" not in run.status["progress"]
    operator.check_alive()


@pytest.mark.parametrize("node_deleted", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_node_that_is_cut_for_good_costs_no_restart(
    node_deleted: bool,
    operator: OperatorProcess,
    kube: Kube,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    run = apply()
    pods = started(run, kubelet)
    lost = pods[0]["spec"]["nodeName"]
    kubelet.cut.add(lost)
    kubelet.end(pods[1], 69)  # before the node controller knows anything
    if node_deleted:
        kube.delete(NODES, lost)
    pods = started(run, kubelet, attempt=2)
    run.wait_status(
        lambda status: status["attempts"][0].get("charged") is not None,
        within_s=60,
        what="a verdict about the silent rank",
    )
    status = finish(run, kubelet, pods, attempt=2)
    assert status["restarts"] == 0, status["attempts"]
    operator.check_alive()


def test_suspend_ends_the_pods_and_resume_starts_the_next_attempt(
    operator: OperatorProcess, kubelet: PlayedKubelet, apply: Callable[..., TrainingRun]
) -> None:
    run = apply()
    started(run, kubelet)
    run.suspend(value=True)
    run.wait_condition("Suspended", within_s=SOON_S)
    assert job_names(run) == []
    assert run.pods() == []
    run.suspend(value=False)
    pods = started(run, kubelet, attempt=2)
    status = finish(run, kubelet, pods, attempt=2)
    assert status["restarts"] == 0
    assert status["attempts"][0]["cause"] == "Suspended"
    operator.check_alive()


@pytest.mark.long
def test_a_new_run_id_trains_again_and_a_deleted_child_does_not(
    operator: OperatorProcess,
    kube: Kube,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    run = apply()
    pods = started(run, kubelet)
    finish(run, kubelet, pods, attempt=1)
    kube.delete(JOBS, "net-r1-a1", namespace=run.namespace)
    run.change({"runID": "2"})
    pods = started(run, kubelet, run_number=2)
    status = finish(run, kubelet, pods, attempt=1, number=2)
    assert (status["run"], status["attempt"]) == (2, 1)
    assert job_names(run) == ["net-r2-a1"]
    operator.check_alive()


def test_deleting_the_object_removes_all_but_its_claim(
    operator: OperatorProcess,
    kube: Kube,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    run = apply()
    started(run, kubelet)
    run.delete()
    for resource in (JOBS, PODS, SERVICES):
        kube.wait(
            resource,
            lambda seen: not seen,
            namespace=run.namespace,
            labels="app.kubernetes.io/managed-by=cabildo",
            within_s=60,
            what=f"no {resource} left",
        )
    assert [one["metadata"]["name"] for one in kube.list(CLAIMS, namespace=run.namespace)] == [
        "net-checkpoints"
    ]
    operator.check_alive()


def test_a_service_of_somebody_else_is_left_alone_and_named(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    theirs = {"metadata": {"name": "net"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}}
    kube.create(SERVICES, theirs, namespace=namespace)
    run = apply()
    told = run.wait_condition("Running", within_s=10, status="False", reason="ChildNameConflict")
    assert "Service net" in told["message"]
    wait_event(run, "ChildNameConflict")
    assert condition(run.status, "Stalled")["status"] == "True"
    found = kube.get(SERVICES, "net", namespace=namespace)
    assert found is not None
    assert found["spec"]["selector"] == {"a": "b"}
    kube.delete(SERVICES, "net", namespace=namespace)
    finish(run, kubelet, started(run, kubelet), attempt=1)
    operator.check_alive()


def test_a_job_that_the_api_server_refuses_is_explained_in_its_words(
    operator: OperatorProcess, apply: Callable[..., TrainingRun]
) -> None:
    wrong = {"key": "a", "operator": "Exists", "value": "b"}
    run = apply(scheduling={"tolerations": [wrong]})
    told = run.wait_condition("Running", within_s=10, status="False", reason="CreateRefused")
    assert "tolerations[0]" in told["message"]
    wait_event(run, "CreateRefused")
    operator.check_alive()


@pytest.mark.long
def test_a_storage_class_is_awaited_and_the_job_goes_on_when_it_appears(
    operator: OperatorProcess,
    kube: Kube,
    namespace: str,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    late = f"{namespace}-late"
    storage = {"claimTemplate": {"storageClassName": late}}
    run = apply(checkpoint={"storage": storage})
    told = run.wait_condition("Running", within_s=10, status="False", reason="StorageClassNotFound")
    assert late in told["message"]
    assert job_names(run) == []
    kube.create(STORAGE_CLASSES, {"metadata": {"name": late}, "provisioner": "cabildo.dev/local"})
    try:
        bound_pods(run, attempt=1)
    finally:
        kube.delete(STORAGE_CLASSES, late)
    operator.check_alive()
    assert kubelet.nodes


@pytest.mark.parametrize(
    "writes", [3, *(pytest.param(number, marks=pytest.mark.long) for number in (1, 2, 4, 5))]
)
def test_an_operator_killed_after_any_write_duplicates_and_loses_nothing(
    writes: int,
    start_operator: Callable[..., OperatorProcess],
    kube: Kube,
    kubelet: PlayedKubelet,
    apply: Callable[..., TrainingRun],
) -> None:
    first = start_operator(CABILDO_EXIT_AFTER_WRITES=str(writes))
    first.wait_leading(kube)
    run = apply()
    if writes > 4:
        # Pods that ran before the first status would be told in it, and there is no fifth write.
        run.wait_status(lambda status: "phase" in status, within_s=SOON_S, what="a first status")
        for pod in bound_pods(run, attempt=1):
            kubelet.run(pod)
    first.wait_ended(within_s=SOON_S)
    second = start_operator("operator-1")
    second.wait_leading(kube)
    pods = started(run, kubelet)
    status = finish(run, kubelet, pods, attempt=1)
    assert (status["restarts"], status["attempt"]) == (0, 1)
    assert job_names(run) == ["net-r1-a1"]
    assert [one["metadata"]["name"] for one in run.services()] == ["net"]
    assert [one["metadata"]["name"] for one in run.claims()] == ["net-checkpoints"]
