"""The whole operator as a process: who leads, what its probes say, how it ends."""

import contextlib
import json
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from support.audit_log import AuditLog
from support.kube import CLAIMS, JOBS, LEASES, PODS, SERVICES, Kube
from support.operator_process import LEASE, STOP_WITHIN_S, OperatorProcess
from support.training_jobs import E2E_SPEC, TrainingRun, condition

WITHIN_S = 60

Start = Callable[..., OperatorProcess]


def holder(kube: Kube, *, namespace: str) -> str:
    lease = kube.get(LEASES, LEASE, namespace=namespace)
    assert lease is not None
    return str(lease["spec"].get("holderIdentity", ""))


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def wait_answer(operator: OperatorProcess, port: int, path: str) -> str:
    """Ask until the answer is 200; before it listens there is nobody to wait for."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        operator.check_alive()
        with contextlib.suppress(URLError):
            code, text = ask(port, path)
            if code == 200:
                return text
        assert time.monotonic() < deadline, f"{path}; its log: {operator.log.read_text()}"
        time.sleep(0.1)


def wait_ready(operator: OperatorProcess) -> None:
    assert wait_answer(operator, operator.metrics_port, "/readyz") == "ok\n"


def await_renewals(kube: Kube, *, count: int, namespace: str) -> None:
    """Wait until the Lease was renewed so many times: the operator's own heartbeat."""
    times: set[str] = set()

    def enough(seen: dict[str, Any]) -> bool:
        times.add(seen[LEASE]["spec"]["renewTime"])
        return len(times) > count

    kube.wait(LEASES, enough, namespace=namespace, within_s=WITHIN_S, what="renewals")


def test_the_leader_is_alive_and_ready_and_ends_cleanly(
    kube: Kube, operator: OperatorProcess
) -> None:
    wait_ready(operator)
    alive = wait_answer(operator, operator.probe_port, "/healthz")
    assert json.loads(alive) == {"operator": "ok"}
    assert 'cabildo_leader_election_master_status{name="trainingjob"} 1.0' in operator.metrics()
    assert operator.stop() == 0
    assert holder(kube, namespace=operator.identity.namespace) == "", "the Lease is given back"


def test_a_follower_is_ready_and_takes_over_at_once(kube: Kube, start_operator: Start) -> None:
    first = start_operator("first")
    first.wait_leading(kube)
    second = start_operator("second")
    wait_ready(second)
    assert "master_status" in second.metrics()
    assert holder(kube, namespace=first.identity.namespace) == "first"
    assert first.stop() == 0
    second.wait_leading(kube, within_s=12)


def test_a_leader_whose_lease_is_taken_ends_with_an_error(
    kube: Kube, operator: OperatorProcess
) -> None:
    thief = {"spec": {"holderIdentity": "thief"}}
    kube.patch(LEASES, LEASE, thief, namespace=operator.identity.namespace)
    assert operator.wait_ended(within_s=STOP_WITHIN_S) == 1
    assert "'thief' holds it" in operator.log.read_text()


def test_wrong_settings_are_told_in_one_line(start_operator: Start) -> None:
    operator = start_operator(CABILDO_WORKERS="many")
    assert operator.wait_ended(within_s=STOP_WITHIN_S) == 2
    assert operator.log.read_text() == (
        "cabildo-operator: CABILDO_WORKERS='many': must be a whole number\n"
    )


def test_an_interrupt_ends_it_cleanly_whether_it_leads_or_not(start_operator: Start) -> None:
    operator = start_operator()
    wait_ready(operator)
    assert operator.process is not None
    operator.process.send_signal(signal.SIGINT)
    assert operator.wait_ended(within_s=STOP_WITHIN_S) == 0


def test_a_steady_object_causes_no_write_but_the_lease(
    control_plane: Any, kube: Kube, operator: OperatorProcess, namespace: str
) -> None:
    run = TrainingRun.start(kube, namespace=namespace, name="steady", spec=E2E_SPEC)
    kube.wait(
        PODS,
        lambda seen: len(seen) == 2,
        namespace=namespace,
        within_s=WITHIN_S,
        what="both pods",
    )
    run.wait_status(
        lambda status: condition(status, "Running").get("reason") == "Unschedulable",
        within_s=WITHIN_S,
        what="the scheduler's verdict",
    )
    # Longer than a change of progress alone may wait to be written.
    await_renewals(kube, count=2, namespace=operator.identity.namespace)
    log = AuditLog.from_now(control_plane.audit_log)
    await_renewals(kube, count=2, namespace=operator.identity.namespace)
    writes = [
        entry
        for entry in log.read(user=operator.identity.user)
        if entry.is_write and entry.namespace == namespace
    ]
    assert writes == []
    assert len(kube.list(JOBS, namespace=namespace)) == 1
    assert len(kube.list(SERVICES, namespace=namespace)) == 1
    assert len(kube.list(CLAIMS, namespace=namespace)) == 1


@pytest.mark.parametrize("count", [12])
def test_many_objects_at_once_each_get_their_children_once(
    kube: Kube, operator: OperatorProcess, namespace: str, count: int
) -> None:
    for number in range(count):
        TrainingRun.start(kube, namespace=namespace, name=f"many-{number}", spec=E2E_SPEC)
    kube.wait(
        JOBS,
        lambda seen: len(seen) == count,
        namespace=namespace,
        within_s=WITHIN_S,
        what="one Job each",
    )
    operator.check_alive()
    assert len(kube.list(SERVICES, namespace=namespace)) == count
