"""What keeps pods from running is in the conditions within 10 s: reason, message, remedy."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cabildo_api.reasons import remedy
from support.kube import CLAIMS, STORAGE_CLASSES
from support.training_jobs import condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.kube import Object
    from support.site import Site
    from support.training_jobs import TrainingRun

pytestmark = pytest.mark.long

WITHIN_S = 10
LATE_CLASS = "e2e-late-class"


def running_reason(reason: str) -> Callable[[Object], bool]:
    """Return the question whether the Running condition has a reason."""
    return lambda status: condition(status, "Running").get("reason") == reason


def seconds_since(instant: datetime) -> float:
    """Return how long ago something was."""
    return (datetime.now(tz=UTC) - instant).total_seconds()


@pytest.fixture
def late_class(site: Site) -> Iterator[Callable[[], None]]:
    """A function that makes a storage class like the default one."""

    def make() -> None:
        (default,) = [
            one
            for one in site.kube.list(STORAGE_CLASSES)
            if one["metadata"]
            .get("annotations", {})
            .get("storageclass.kubernetes.io/is-default-class")
            == "true"
        ]
        body = {key: value for key, value in default.items() if key != "metadata"}
        site.kube.create(STORAGE_CLASSES, {**body, "metadata": {"name": LATE_CLASS}})

    site.kube.delete(STORAGE_CLASSES, LATE_CLASS)
    yield make
    site.kube.delete(STORAGE_CLASSES, LATE_CLASS)


def test_a_missing_storage_class_is_named_and_healed_when_it_appears(
    late_class: Callable[[], None], train: Callable[..., TrainingRun]
) -> None:
    storage = {"claimTemplate": {"size": "1Gi", "storageClassName": LATE_CLASS}}
    run = train(checkpoint={"storage": storage}, limits={"maxSteps": 20})
    status = run.wait_status(running_reason("StorageClassNotFound"), within_s=WITHIN_S)
    assert status["phase"] == "Pending"
    message = condition(status, "Running")["message"]
    assert LATE_CLASS in message
    assert remedy("StorageClassNotFound") in message
    assert not [*run.jobs(), *run.services(), *run.claims()], "something was created"
    assert run.kube.get(CLAIMS, f"{run.name}-checkpoints", namespace=run.namespace) is None
    late_class()
    run.wait_condition("Succeeded", within_s=300)


def test_an_image_that_does_not_exist_is_named(
    site: Site, train: Callable[..., TrainingRun]
) -> None:
    image = site.deployed.trainer_image.rpartition(":")[0] + ":no-such-tag"
    run = train(image=image)
    run.wait_pods(lambda pods: any(waiting_for_image(one) for one in pods), within_s=90)
    since = time.monotonic()
    status = run.wait_status(running_reason("ImageUnavailable"), within_s=WITHIN_S)
    print(f"ImageUnavailable {time.monotonic() - since:.1f} s after the fact")
    message = condition(status, "Running")["message"]
    assert image in message
    assert remedy("ImageUnavailable") in message


def waiting_for_image(pod: Object) -> bool:
    """Whether the kubelet says that it cannot pull."""
    statuses = pod["status"].get("containerStatuses", [])
    reasons = [one["state"].get("waiting", {}).get("reason") for one in statuses]
    return any(one in ("ErrImagePull", "ImagePullBackOff") for one in reasons)


def test_a_pod_that_fits_no_node_carries_the_schedulers_words(
    train: Callable[..., TrainingRun],
) -> None:
    run = train(resources={"requests": {"cpu": "1000"}})
    run.wait_pods(lambda pods: any(unschedulable(one) for one in pods), within_s=30)
    status = run.wait_status(running_reason("Unschedulable"), within_s=WITHIN_S)
    message = condition(status, "Running")["message"]
    assert "Insufficient cpu" in message
    assert remedy("Unschedulable") in message
    change = {"suspend": True, "resources": {"requests": {"cpu": "100m"}}}
    run.change({**change, "limits": {"maxSteps": 20}})
    run.wait_condition("Suspended", within_s=60)
    run.suspend(value=False)
    run.wait_condition("Succeeded", within_s=300)


def unschedulable(pod: Object) -> bool:
    """Whether the scheduler says that it finds no node."""
    return any(
        one["type"] == "PodScheduled" and one.get("reason") == "Unschedulable"
        for one in pod["status"].get("conditions", [])
    )


def test_a_trainer_killed_for_memory_is_told_apart_and_ends_at_the_restart_limit(
    train: Callable[..., TrainingRun],
) -> None:
    run = train(resources={"limits": {"memory": "96Mi"}}, runPolicy={"maxRestarts": 0})
    pods = run.wait_pods(lambda pods: any(oom_killed_at(one) for one in pods), within_s=300)
    at = min(found for found in map(oom_killed_at, pods) if found)
    failed = run.wait_condition("Failed", within_s=60, reason="RestartLimitReached")
    assert seconds_since(at) <= WITHIN_S + 1, "the kubelet's clock has whole seconds"
    assert "OutOfMemory" in failed["message"]
    assert "spec.resources.limits.memory" in failed["message"]
    assert run.status["attempts"][-1]["reason"] == "OutOfMemory"


def oom_killed_at(pod: Object) -> datetime | None:
    """Return when a container of the pod was killed for memory."""
    for one in pod["status"].get("containerStatuses", []):
        end = one["state"].get("terminated", {})
        if end.get("reason") == "OOMKilled":
            return datetime.fromisoformat(end["finishedAt"])
    return None
