"""From what is watched to the keys that are visited."""

from typing import Any

import msgspec
import pytest

from cabildo_api import names
from cabildo_operator.handlers.intake import Intake, decode
from cabildo_operator.kube.objects import (
    CustomResource,
    Event,
    Job,
    Node,
    ObjectMeta,
    PersistentVolumeClaim,
    Pod,
    StorageClass,
)
from cabildo_operator.kube.store import ObjectKey, Store
from cabildo_operator.reconcile.routes import Routes
from cabildo_operator.reconcile.stores import Stores
from support.operator_objects import pod, training_job

KEY = ObjectKey("ns", "job")


class Woken(list[ObjectKey]):
    def take(self) -> list[ObjectKey]:
        taken = sorted(self)
        self.clear()
        return taken


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
def routes(stores: Stores, woken: Woken) -> Routes:
    return Routes(stores=stores, wake=woken.append)


def raw(version: int) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "job",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": str(version),
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 9_000},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"nodes": 2},
    }


def test_events_fill_the_store_and_wake_the_key(woken: Woken) -> None:
    store: Store[CustomResource] = Store()
    gone: list[CustomResource] = []
    intake = Intake(store, wake=woken.append, gone=gone.append)
    intake.take(None, raw(1))
    intake.take("MODIFIED", raw(2))
    known = store.get(KEY)
    assert known is not None
    assert msgspec.json.decode(known.spec) == {"nodes": 2}
    assert bytes(known.status) == b"{}"
    assert len(bytes(known.spec)) < 100, "what is not read is not kept"
    intake.take("DELETED", raw(3))
    assert store.get(KEY) is None
    assert [obj.metadata.uid for obj in gone] == ["u"]
    assert woken == [KEY] * 3


def test_the_echo_of_an_own_status_write_wakes_nobody(woken: Woken) -> None:
    store: Store[CustomResource] = Store()
    intake = Intake(store, wake=woken.append, gone=lambda _: None)
    intake.take("ADDED", raw(1))
    store.upsert(decode(raw(2)))
    intake.take("MODIFIED", raw(2))
    assert woken.take() == [KEY]
    intake.take("MODIFIED", raw(3))
    assert woken == [KEY]


def test_a_change_of_what_nobody_reads_wakes_nobody(routes: Routes, woken: Woken) -> None:
    def at(version: str, *, node: str = "") -> Pod:
        made = pod(node=node)
        metadata = msgspec.structs.replace(made.metadata, resource_version=version)
        return msgspec.structs.replace(made, metadata=metadata)

    routes.child(at("1"), at("2"))
    assert woken == []
    routes.child(at("2"), at("3", node="n1"))
    assert woken == [KEY]


def test_a_child_wakes_the_object_its_labels_name(routes: Routes, woken: Woken) -> None:
    routes.child(None, pod())
    routes.child(pod(), None)
    assert woken == [KEY, KEY]


def test_an_object_of_others_wakes_nobody(routes: Routes, woken: Woken) -> None:
    bare = pod()
    bare = msgspec.structs.replace(bare, metadata=ObjectMeta(name="x", namespace="ns"))
    routes.child(None, bare)
    routes.child(None, None)
    assert woken == []


def node(*, ready: str) -> Node:
    conditions = [{"type": "Ready", "status": ready}]
    return msgspec.convert(
        {"metadata": {"name": "n1"}, "status": {"conditions": conditions}}, type=Node
    )


def test_a_node_wakes_the_objects_with_pods_on_it_when_its_readiness_changes(
    stores: Stores, routes: Routes, woken: Woken
) -> None:
    stores.pods.upsert(pod(node="n1"))
    routes.node(node(ready="True"), node(ready="True"))
    assert woken.take() == [], "a heartbeat concerns nobody"
    routes.node(node(ready="True"), node(ready="Unknown"))
    assert woken.take() == [KEY]
    routes.node(node(ready="True"), None)
    assert woken.take() == [KEY]
    routes.node(None, None)
    assert woken.take() == []


def storage_class(*, default: bool) -> StorageClass:
    annotations = {"storageclass.kubernetes.io/is-default-class": str(default).lower()}
    return msgspec.convert(
        {"metadata": {"name": "fast", "annotations": annotations}}, type=StorageClass
    )


def test_a_storage_class_wakes_those_who_wait(stores: Stores, routes: Routes, woken: Woken) -> None:
    stores.training_jobs.upsert(training_job("new"))
    stores.training_jobs.upsert(training_job("waits", phase="Pending"))
    stores.training_jobs.upsert(training_job("runs", phase="Running"))
    routes.storage_class(None, storage_class(default=False))
    assert woken.take() == [("ns", "new"), ("ns", "waits")]
    routes.storage_class(storage_class(default=False), storage_class(default=False))
    assert woken.take() == []
    routes.storage_class(storage_class(default=False), storage_class(default=True))
    assert len(woken.take()) == 2


def test_a_claim_wakes_its_owner_and_those_who_wait_in_its_namespace(
    stores: Stores, routes: Routes, woken: Woken
) -> None:
    stores.training_jobs.upsert(training_job("waits", phase="Pending"))
    users = PersistentVolumeClaim(metadata=ObjectMeta(name="data", namespace="ns"))
    routes.claim(None, users)
    assert woken.take() == [("ns", "waits")]
    elsewhere = PersistentVolumeClaim(metadata=ObjectMeta(name="data", namespace="far"))
    routes.claim(None, elsewhere)
    routes.claim(None, None)
    assert woken.take() == []
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_NAME: "job"}
    ours = PersistentVolumeClaim(
        metadata=ObjectMeta(name="job-checkpoints", namespace="ns", labels=labels)
    )
    routes.claim(ours, None)
    assert KEY in woken.take()


def failed_create(*, uid: str) -> Event:
    about = {"kind": "Job", "namespace": "ns", "name": "job-r1-a1", "uid": uid}
    return msgspec.convert({"metadata": {"name": "e"}, "regarding": about}, type=Event)


def test_a_pod_that_could_not_be_created_wakes_the_object_whose_job_it_is_of(
    stores: Stores, routes: Routes, woken: Woken
) -> None:
    routes.failed_create(None, failed_create(uid="u"))
    assert woken.take() == [], "most Jobs are others'"
    meta = msgspec.structs.replace(pod().metadata, name="job-r1-a1", uid="u")
    stores.jobs.upsert(Job(metadata=meta))
    routes.failed_create(None, failed_create(uid="u"))
    assert woken.take() == [KEY]
    routes.failed_create(failed_create(uid="u"), None)
    assert woken.take() == [KEY]
    routes.failed_create(None, failed_create(uid="of another of that name"))
    routes.failed_create(None, None)
    assert woken.take() == []
