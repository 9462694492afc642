"""Children that others made or changed: named, never taken over, and mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cabildo_api.reasons import remedy
from support.kube import JOBS, SERVICES
from support.outcome import assert_nothing_left_over, finish
from support.training_jobs import condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.kube import Kube, Object, Resource
    from support.site import Site
    from support.training_jobs import TrainingRun

SHORT = {"maxSteps": 20}


def foreign_job(name: str) -> Object:
    """Return somebody else's Job, suspended so that it runs nothing."""
    container = {"name": "c", "image": "registry.invalid/none"}
    return {
        "metadata": {"name": name},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def foreign_service(name: str) -> Object:
    """Return somebody else's Service."""
    return {"metadata": {"name": name}, "spec": {"selector": {"app": "x"}, "ports": [{"port": 1}]}}


def wait_conflict(run: TrainingRun, *, name: str) -> None:
    """Wait until the status names the object in the way."""

    def in_conflict(status: Object) -> bool:
        return condition(status, "Running").get("reason") == "ChildNameConflict"

    status = run.wait_status(in_conflict, within_s=30)
    message = condition(status, "Running")["message"]
    assert name in message
    assert remedy("ChildNameConflict") in message


def uid_of(kube: Kube, resource: Resource, name: str, *, namespace: str) -> str:
    """Return the UID of an object that must exist."""
    found = kube.get(resource, name, namespace=namespace)
    assert found is not None
    return str(found["metadata"]["uid"])


def test_objects_of_others_under_our_names_are_left_alone_and_named(
    site: Site, namespace: str, train: Callable[..., TrainingRun]
) -> None:
    kube = site.kube
    kube.create(SERVICES, foreign_service("net"), namespace=namespace)
    kube.create(JOBS, foreign_job("net-r1-a1"), namespace=namespace)
    uids = [
        uid_of(kube, resource, name, namespace=namespace)
        for resource, name in ((SERVICES, "net"), (JOBS, "net-r1-a1"))
    ]
    run = train("net", limits=SHORT)
    wait_conflict(run, name="net")
    kube.delete(SERVICES, "net", namespace=namespace)
    wait_conflict_on_job(run)
    assert uid_of(kube, JOBS, "net-r1-a1", namespace=namespace) == uids[1]
    kube.delete(JOBS, "net-r1-a1", namespace=namespace)
    finish(run, within_s=600)
    assert_nothing_left_over(run, attempts=1)


def wait_conflict_on_job(run: TrainingRun) -> None:
    """Wait until the Job, not the Service, is what is in the way."""

    def on_job(status: Object) -> bool:
        found = condition(status, "Running")
        return found.get("reason") == "ChildNameConflict" and "net-r1-a1" in found["message"]

    run.wait_status(on_job, within_s=60)


def test_a_service_that_somebody_changed_is_put_right(
    site: Site, namespace: str, train: Callable[..., TrainingRun]
) -> None:
    run = train("net", limits=SHORT)
    run.wait_pods(lambda pods: len(pods) == 2, within_s=60)
    before = run.services()[0]["spec"]["selector"]
    change = {"spec": {"selector": dict.fromkeys(before, "somebody-elses")}}
    site.kube.patch(SERVICES, "net", change, namespace=namespace)
    site.kube.wait(
        SERVICES,
        lambda seen: all(
            seen["net"]["spec"]["selector"].get(key) == value for key, value in before.items()
        ),
        namespace=namespace,
        within_s=30,
        what="the Service selects our pods again",
    )
    finish(run, within_s=600)
