"""The operator's client, informer, writes and Events against a real API server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_operator import errors
from cabildo_operator.kube.actions import Apply, Create, Delete, EmitEvent
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.events import EventRecorder, Regarding
from cabildo_operator.kube.informer import WATCH_TIMEOUT_S, Informer
from cabildo_operator.kube.resources import JOBS, SERVICES, Resource
from cabildo_operator.kube.store import Store
from cabildo_operator.kube.writes import WriteCounter, Writer
from support.kube import CORE_EVENTS, NAMESPACES, Kube, Object
from support.kube import JOBS as RAW_JOBS
from support.kube import SERVICES as RAW_SERVICES

if TYPE_CHECKING:
    from cabildo_operator.kube.objects import Job, Service

STRANGER = "11111111-2222-3333-4444-555555555555"
WITHIN_S = 20


def owner_reference(namespace: Object) -> Object:
    """A namespace owns as well as any object; the garbage collector must find it."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "name": namespace["metadata"]["name"],
        "uid": namespace["metadata"]["uid"],
        "controller": True,
    }


def job(namespace: str, *, name: str = "child", owner: Object | None = None) -> dict[str, Any]:
    container = {"name": "c", "image": "registry.invalid/nothing"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"test": namespace},
            "ownerReferences": [owner_reference(owner)] if owner else [],
        },
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def service(namespace: str, *, port: int = 1) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "svc", "namespace": namespace},
        "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": port}]},
    }


class Workbench:
    """A writer with its stores, for children of a namespace."""

    def __init__(self, api: ApiClient, *, owner: Object) -> None:
        self.owner = owner
        self.uid = owner["metadata"]["uid"]
        self.namespace = namespace = owner["metadata"]["name"]
        self.jobs: Store[Job] = Store()
        self.services: Store[Service] = Store()
        self.events = EventRecorder(api, controller="cabildo.dev/test", instance="test")
        self.counter = WriteCounter()
        self.writer = Writer(
            api,
            field_manager="cabildo-test",
            children={"Job": (JOBS, self.jobs), "Service": (SERVICES, self.services)},
            events=self.events,
            counter=self.counter,
        )
        self.regarding = Regarding(
            api_version="v1", kind="Namespace", namespace=namespace, name="owner", uid=self.uid
        )

    async def do(self, *actions: Create | Apply | Delete | EmitEvent) -> None:
        for action in actions:
            await self.writer.execute(action, regarding=self.regarding)

    @property
    def create_job(self) -> Create:
        return Create(body=job(self.namespace, owner=self.owner), owner_uid=self.uid)


@pytest.fixture
def bench(api: ApiClient, kube: Kube, namespace: str) -> Workbench:
    return Workbench(api, owner=kube.request("GET", NAMESPACES.path(name=namespace)))


async def test_a_created_child_is_known_before_the_watch_tells(bench: Workbench) -> None:
    await bench.do(bench.create_job)
    known = bench.jobs.get((bench.namespace, "child"))
    assert known is not None
    assert known.metadata.uid
    assert known.metadata.controller_uid == bench.uid
    assert bench.counter.count == 1


async def test_creating_again_after_a_crash_changes_nothing(
    bench: Workbench, api: ApiClient
) -> None:
    await bench.do(bench.create_job)
    after_crash = Workbench(api, owner=bench.owner)
    await after_crash.do(after_crash.create_job)
    first = bench.jobs.get((bench.namespace, "child"))
    again = after_crash.jobs.get((bench.namespace, "child"))
    assert first is not None
    assert again is not None
    assert again.metadata.uid == first.metadata.uid
    assert after_crash.counter.count == 0


async def test_a_name_taken_by_a_stranger_is_a_conflict_and_the_stranger_stays(
    bench: Workbench, kube: Kube
) -> None:
    default = kube.request("GET", NAMESPACES.path(name="default"))
    theirs = job(bench.namespace, owner=default)
    before = kube.create(RAW_JOBS, theirs, namespace=bench.namespace)
    with pytest.raises(errors.ChildNameConflictError, match="belongs to somebody else"):
        await bench.do(bench.create_job)
    after = kube.get(RAW_JOBS, "child", namespace=bench.namespace)
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]


async def test_drift_is_repaired_but_only_on_that_very_object(bench: Workbench, kube: Kube) -> None:
    await bench.do(Create(body=service(bench.namespace)))
    known = bench.services.get((bench.namespace, "svc"))
    assert known is not None
    change = {"spec": {"selector": {"a": "stolen"}}}
    kube.patch(RAW_SERVICES, "svc", change, namespace=bench.namespace)
    await bench.do(Apply(body=service(bench.namespace), uid=known.metadata.uid))
    repaired = bench.services.get((bench.namespace, "svc"))
    assert repaired is not None
    assert repaired.spec.selector == {"a": "b"}
    with pytest.raises(errors.ConflictError):
        await bench.do(Apply(body=service(bench.namespace), uid=STRANGER))


async def test_deleting_takes_that_very_object_and_is_content_when_it_is_gone(
    bench: Workbench, kube: Kube
) -> None:
    await bench.do(bench.create_job)
    known = bench.jobs.get((bench.namespace, "child"))
    assert known is not None

    def deletion(uid: str) -> Delete:
        return Delete(kind="Job", namespace=bench.namespace, name="child", uid=uid)

    await bench.do(deletion(STRANGER))
    assert kube.get(RAW_JOBS, "child", namespace=bench.namespace) is not None
    await bench.do(deletion(known.metadata.uid))
    assert kube.get(RAW_JOBS, "child", namespace=bench.namespace) is None
    await bench.do(deletion(known.metadata.uid))
    assert bench.counter.count == 2, "deletions of nothing are no writes"


async def test_an_unowned_child_that_is_there_already_must_be_observed_first(
    bench: Workbench,
) -> None:
    await bench.do(bench.create_job)
    with pytest.raises(errors.ConflictError, match="exists"):
        await bench.do(Create(body=job(bench.namespace)))


async def test_a_body_the_server_does_not_take_is_refused_with_its_words(
    bench: Workbench,
) -> None:
    body = job(bench.namespace)
    body["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    with pytest.raises(errors.RefusedError, match="restartPolicy") as refused:
        await bench.do(Create(body=body, owner_uid=STRANGER))
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")


async def test_a_fact_becomes_one_event_however_often_it_is_told(
    bench: Workbench, api: ApiClient, kube: Kube
) -> None:
    posting = asyncio.create_task(bench.events.run())
    fact = EmitEvent(type="Warning", reason="Broken", message="it " + "ö" * 2_000, fact="r1-a1")
    await bench.do(fact, fact, EmitEvent(type="Normal", reason="Started", message="again"))
    await bench.events.drain(timeout_s=WITHIN_S)
    restarted = Workbench(api, owner=bench.owner)
    posting_again = asyncio.create_task(restarted.events.run())
    await restarted.do(fact)
    await restarted.events.drain(timeout_s=WITHIN_S)
    for task in (posting, posting_again):
        task.cancel()
    told = kube.list(CORE_EVENTS, namespace=bench.namespace)
    ours = [one for one in told if one["involvedObject"].get("uid") == bench.uid]
    assert sorted(one["reason"] for one in ours) == ["Broken", "Started"]
    assert all(len(one["message"].encode()) <= 1024 for one in ours)
    assert {one["reportingComponent"] for one in ours} == {"cabildo.dev/test"}


async def test_events_that_cannot_be_posted_are_no_trouble(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    posting = asyncio.create_task(bench.events.run())
    elsewhere = Regarding(
        api_version="v1", kind="Namespace", namespace="nowhere", name="owner", uid=STRANGER
    )
    fact = EmitEvent(type="Normal", reason="Started", message="m")
    await bench.writer.execute(fact, regarding=elsewhere)
    await bench.events.drain(timeout_s=WITHIN_S)
    posting.cancel()
    assert "is refused" in caplog.text


class Mirror:
    """An informer that runs, and what it told."""

    def __init__(
        self, api: ApiClient, *, resource: Resource[Any], selector: str, watch_timeout_s: int
    ) -> None:
        self.store: Store[Any] = Store(departed_for_s=60.0, indexes={"all": lambda _: "all"})
        self.changes: list[tuple[str | None, str | None]] = []
        self._changed = asyncio.Event()
        self.informer = Informer(
            api,
            resource=resource,
            store=self.store,
            on_change=self._note,
            label_selector=selector,
            watch_timeout_s=watch_timeout_s,
        )

    def _note(self, before: Any, after: Any) -> None:
        self.changes.append((before and before.metadata.name, after and after.metadata.name))
        self._changed.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not done():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def mirror(
    api: ApiClient,
    *,
    resource: Resource[Any] = JOBS,
    selector: str,
    watch_timeout_s: int = WATCH_TIMEOUT_S,
) -> AsyncIterator[Mirror]:
    made = Mirror(api, resource=resource, selector=selector, watch_timeout_s=watch_timeout_s)
    task = asyncio.create_task(made.informer.run())
    try:
        await asyncio.wait_for(made.informer.synced.wait(), timeout=WITHIN_S)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_informer_knows_what_was_there_and_what_comes_and_goes(
    api: ApiClient, kube: Kube, namespace: str
) -> None:
    kube.create(RAW_JOBS, job(namespace, name="old"), namespace=namespace)
    stranger = job(namespace, name="stranger")
    stranger["metadata"]["labels"] = {}
    kube.create(RAW_JOBS, stranger, namespace=namespace)
    async with mirror(api, selector=f"test={namespace}") as seen:
        assert {one.metadata.name for one in seen.store} == {"old"}
        kube.create(RAW_JOBS, job(namespace, name="new"), namespace=namespace)
        await seen.until(lambda: seen.store.get((namespace, "new")) is not None)
        change = {"spec": {"suspend": False}}
        kube.patch(RAW_JOBS, "old", change, namespace=namespace)
        await seen.until(lambda: not seen.store.get((namespace, "old")).spec.suspend)
        kube.delete(RAW_JOBS, "new", namespace=namespace)
        await seen.until(lambda: seen.store.get((namespace, "new")) is None)
        assert [one.metadata.name for one in seen.store.departed("all", index="all")] == ["new"]
        assert seen.informer.silent_s < WITHIN_S


async def test_a_list_of_several_pages_is_read_whole(
    api: ApiClient, kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cabildo_operator.kube.informer.PAGE_SIZE", 2)
    for number in range(5):
        kube.create(RAW_JOBS, job(namespace, name=f"job-{number}"), namespace=namespace)
    async with mirror(api, selector=f"test={namespace}") as seen:
        assert len(seen.store) == 5


async def test_a_watch_that_ends_is_opened_again_where_it_ended(
    api: ApiClient, kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cabildo_operator.kube.informer.backoff_s", lambda _: 0.0)
    lists = []
    original = api.list_page

    async def counted(*args: Any, **kwargs: Any) -> Any:
        lists.append(args)
        return await original(*args, **kwargs)

    monkeypatch.setattr(api, "list_page", counted)
    watches: asyncio.Queue[None] = asyncio.Queue()
    watch = api.watch

    def opened(*args: Any, **kwargs: Any) -> Any:
        watches.put_nowait(None)
        return watch(*args, **kwargs)

    monkeypatch.setattr(api, "watch", opened)
    async with mirror(api, selector=f"test={namespace}", watch_timeout_s=1) as seen:
        for number in range(3):
            kube.create(RAW_JOBS, job(namespace, name=f"job-{number}"), namespace=namespace)
            wanted = number + 1
            await seen.until(lambda wanted=wanted: len(seen.store) == wanted)
            await asyncio.wait_for(watches.get(), timeout=WITHIN_S)
        assert len(lists) == 1
        assert seen.changes.count((None, "job-0")) == 1


async def test_an_object_of_a_name_that_is_not_there_is_not_found(
    api: ApiClient, namespace: str
) -> None:
    with pytest.raises(errors.NotFoundError) as missing:
        await api.get(JOBS, namespace=namespace, name="nobody")
    assert (missing.value.code, missing.value.reason) == (404, "NotFound")
