"""The loop on a real API server, with a kind so small that only the loop is seen.

The kind counts: each visit plans what a test told it to. TrainingJob's own planning has its
tests in `tests/unit/operator/training_job`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cabildo_operator import errors
from cabildo_operator.app import TRAINING_JOBS
from cabildo_operator.handlers.intake import decode
from cabildo_operator.kube.actions import Create, EmitEvent
from cabildo_operator.kube.client import ApiClient
from cabildo_operator.kube.events import EventRecorder, Regarding
from cabildo_operator.kube.objects import CustomResource, Job
from cabildo_operator.kube.resources import JOBS
from cabildo_operator.kube.store import ObjectKey, Store
from cabildo_operator.kube.writes import WriteCounter, Writer
from cabildo_operator.reconcile import loop as loop_module
from cabildo_operator.reconcile.kind import Kind, Plan, Refusal
from cabildo_operator.reconcile.loop import Loop, Registration
from cabildo_operator.work_queue import Key, WorkQueue
from support.kube import JOBS as RAW_JOBS
from support.kube import TRAINING_JOBS as RAW_TRAINING_JOBS
from support.kube import Kube, Object
from support.training_jobs import E2E_SPEC, training_job

Planner = Callable[[CustomResource, Refusal | None], Plan]


class Results:
    """How visits went."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def visited(self, kind: str, result: str, seconds: float) -> None:
        self.all.append(result)


class Told(EventRecorder):
    """Notes Events instead of posting them."""

    def __init__(self, api: ApiClient, *, controller: str, instance: str) -> None:
        super().__init__(api, controller=controller, instance=instance)
        self.told: list[EmitEvent] = []

    def emit(self, event: EmitEvent, *, regarding: Regarding) -> None:
        assert regarding.name == "one"
        self.told.append(event)


class Workbench:
    """One object, a loop, and a plan that the test sets."""

    def __init__(self, api: ApiClient, *, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.api = api
        self.key = Key("TrainingJob", namespace, "one")
        self.objects: Store[CustomResource] = Store()
        self.jobs: Store[Job] = Store()
        self.queue = WorkQueue(clock=asyncio.get_running_loop())
        self.counter = WriteCounter()
        self.results = Results()
        self.events = Told(self.api, controller="test", instance="test")
        self.plan: Planner = lambda _obj, _refusal: Plan()
        body = training_job("one", spec=E2E_SPEC)
        self.raw: Object = kube.create(RAW_TRAINING_JOBS, body, namespace=namespace)
        self.observe_again()
        self.loop = self._make_loop()

    def _make_loop(self) -> Loop:
        kind: Kind[CustomResource] = Kind(
            name="TrainingJob",
            objects=self.objects,
            observe=self.objects.get,
            plan=self._plan,
            progress_fields=frozenset({"progress"}),
        )
        registration = Registration(
            kind=kind,
            resource=TRAINING_JOBS,
            writer=Writer(
                self.api,
                field_manager="cabildo-test",
                children={"Job": (JOBS, self.jobs)},
                events=self.events,
                counter=self.counter,
            ),
        )
        return Loop(
            self.api,
            queue=self.queue,
            registrations={"TrainingJob": registration},
            observer=self.results,
        )

    def _plan(
        self, observed: CustomResource, *, now: datetime, refusal: Refusal | None = None
    ) -> Plan:
        return self.plan(observed, refusal)

    def observe_again(self) -> None:
        self.objects.upsert(decode(self.server_side))

    @property
    def server_side(self) -> Object:
        found = self.kube.get(RAW_TRAINING_JOBS, "one", namespace=self.key.namespace)
        assert found is not None
        return found

    def job(self, obj: CustomResource, name: str = "one-r1-a1", **spec: Any) -> Create:
        reference = {
            "apiVersion": "cabildo.dev/v1alpha1",
            "kind": "TrainingJob",
            "name": "one",
            "uid": obj.metadata.uid,
            "controller": True,
        }
        container = {"name": "c", "image": "registry.invalid/nothing"}
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": self.key.namespace,
                "ownerReferences": [reference],
            },
            "spec": {
                "suspend": True,
                "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
                **spec,
            },
        }
        return Create(body=body, owner_uid=obj.metadata.uid, requires_fresh_read=True)

    def created(self) -> bool:
        return self.kube.get(RAW_JOBS, "one-r1-a1", namespace=self.key.namespace) is not None

    async def visit(self) -> str:
        await self.loop.visit(self.key)
        return self.results.all[-1]


@pytest.fixture
async def bench(api: ApiClient, kube: Kube, namespace: str) -> Workbench:
    return Workbench(api, kube=kube, namespace=namespace)


async def test_a_visit_acts_then_writes_the_status_and_the_next_does_nothing(
    bench: Workbench,
) -> None:
    def plan(obj: CustomResource, _: Refusal | None) -> Plan:
        known = bench.jobs.get((bench.key.namespace, "one-r1-a1"))
        actions = () if known else (bench.job(obj),)
        return Plan(actions=actions, status={"phase": "Running", "run": 1})

    bench.plan = plan
    assert await bench.visit() == "success"
    assert bench.created()
    assert bench.server_side["status"] == {"phase": "Running", "run": 1}
    assert bench.counter.count == 2
    assert await bench.visit() == "success"
    assert bench.counter.count == 2, "a steady object is not written"


async def test_an_unknown_object_is_nothing_to_do(bench: Workbench) -> None:
    bench.objects.remove(ObjectKey(bench.key.namespace, "one"))
    assert await bench.visit() == "success"


async def test_a_wake_up_time_brings_the_key_back(bench: Workbench) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    bench.plan = lambda _obj, _refusal: Plan(wake_at=soon)
    assert await bench.visit() == "requeue_after"
    assert await asyncio.wait_for(bench.queue.get(), timeout=10) == bench.key


async def test_a_field_no_longer_in_the_status_is_removed(bench: Workbench) -> None:
    bench.plan = lambda _obj, _refusal: Plan(status={"phase": "Pending", "restarts": 1})
    await bench.visit()
    bench.plan = lambda _obj, _refusal: Plan(status={"phase": "Pending"})
    await bench.visit()
    assert bench.server_side["status"] == {"phase": "Pending"}


async def test_progress_alone_is_written_every_few_seconds_only(bench: Workbench) -> None:
    def progress(percentage: int, phase: str = "Running") -> Planner:
        status = {"phase": phase, "progress": {"percentage": percentage}}
        return lambda _obj, _refusal: Plan(status=status)

    bench.plan = progress(1)
    await bench.visit()
    bench.plan = progress(2)
    assert await bench.visit() == "requeue_after"
    assert bench.server_side["status"]["progress"] == {"percentage": 1}
    assert await asyncio.wait_for(bench.queue.get(), timeout=10) == bench.key
    assert await bench.visit() == "success"
    assert bench.server_side["status"]["progress"] == {"percentage": 2}
    bench.plan = progress(3, phase="Succeeded")
    assert await bench.visit() == "success"
    assert bench.server_side["status"]["progress"] == {"percentage": 3}


@pytest.mark.parametrize("change", ["suspended", "finished", "deleted", "recreated"])
async def test_an_attempt_is_not_started_on_what_is_no_longer_true(
    bench: Workbench, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "YOUNG_S", 0.0)
    seen: list[CustomResource] = []

    def plan(obj: CustomResource, _: Refusal | None) -> Plan:
        seen.append(obj)
        fresh = obj.metadata.resource_version != bench.raw["metadata"]["resourceVersion"]
        return Plan() if fresh else Plan(actions=(bench.job(obj),))

    bench.plan = plan
    where: dict[str, Any] = {"namespace": bench.key.namespace}
    if change == "suspended":
        bench.kube.patch(RAW_TRAINING_JOBS, "one", {"spec": {"suspend": True}}, **where)
    elif change == "finished":
        finished = {"status": {"phase": "Succeeded"}}
        bench.kube.patch(RAW_TRAINING_JOBS, "one", finished, sub="status", **where)
    else:
        bench.kube.delete(RAW_TRAINING_JOBS, "one", **where)
    if change == "recreated":
        bench.kube.create(RAW_TRAINING_JOBS, training_job("one", spec=E2E_SPEC), **where)
    assert await bench.visit() == "success"
    assert not bench.created()
    if change == "deleted":
        assert bench.objects.get((bench.key.namespace, "one")) is None
        assert len(seen) == 1
    else:
        assert len(seen) == 2, "planned again at once, on what is true"


async def test_one_fresh_read_serves_a_visit_unless_it_has_grown_old(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    get = bench.api.get

    async def counted(*args: Any, **kwargs: Any) -> Any:
        reads.append(kwargs["name"])
        return await get(*args, **kwargs)

    monkeypatch.setattr(bench.api, "get", counted)
    bench.plan = lambda obj, _refusal: Plan(actions=(bench.job(obj, "one-first"), bench.job(obj)))

    async def visit_anew() -> int:
        reads.clear()
        await bench.visit()
        for name in ("one-first", "one-r1-a1"):
            bench.kube.delete(RAW_JOBS, name, namespace=bench.key.namespace)
        return reads.count("one")

    assert await visit_anew() == 0, "no view of an object is older than the object"
    monkeypatch.setattr(loop_module, "YOUNG_S", 0.0)
    assert await visit_anew() == 1
    monkeypatch.setattr(loop_module, "FRESH_FOR_S", 0.0)
    assert await visit_anew() == 2


async def test_creates_side_by_side_go_at_a_time_and_before_one_that_demands_a_read(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now: set[str] = set()
    seen: list[set[str]] = []
    create = bench.api.create

    async def watched(resource: Any, *, body: Any) -> Any:
        open_now.add(body["metadata"]["name"])
        seen.append(set(open_now))
        answer = await create(resource, body=body)
        open_now.discard(body["metadata"]["name"])
        return answer

    monkeypatch.setattr(bench.api, "create", watched)

    def plan(obj: CustomResource, _: Refusal | None) -> Plan:
        beside = replace(bench.job(obj, "one-second"), requires_fresh_read=False)
        return Plan(actions=(bench.job(obj, "one-first"), beside, bench.job(obj)))

    bench.plan = plan
    assert await bench.visit() == "success"
    assert seen == [{"one-first"}, {"one-first", "one-second"}, {"one-r1-a1"}]


async def test_of_two_creates_at_a_time_a_refused_one_does_not_undo_the_other(
    bench: Workbench,
) -> None:
    def plan(obj: CustomResource, refusal: Refusal | None) -> Plan:
        if refusal is not None:
            return Plan(status={"phase": "Pending"})
        bad = bench.job(obj, "one-first", parallelism=-1)
        beside = replace(bench.job(obj, "one-second"), requires_fresh_read=False)
        return Plan(actions=(bad, beside, bench.job(obj)))

    bench.plan = plan
    assert await bench.visit() == "error"
    made = bench.kube.get(RAW_JOBS, "one-second", namespace=bench.key.namespace)
    assert made is not None
    assert not bench.created(), "what comes after them is not done"
    assert bench.server_side["status"] == {"phase": "Pending"}


async def test_the_first_status_waits_while_other_new_objects_do(bench: Workbench) -> None:
    other = Key("TrainingJob", bench.key.namespace, "other")

    def plan(obj: CustomResource, _: Refusal | None) -> Plan:
        known = bench.jobs.get((bench.key.namespace, "one-r1-a1"))
        return Plan(actions=() if known else (bench.job(obj),), status={"phase": "Pending"})

    bench.plan = plan
    bench.queue.add(other, urgent=True)
    assert await bench.visit() == "requeue_after"
    assert bench.created()
    assert "status" not in bench.server_side
    assert await asyncio.wait_for(bench.queue.get(), timeout=10) == other
    assert await asyncio.wait_for(bench.queue.get(), timeout=10) == bench.key
    bench.queue.add(other, urgent=True)
    assert await bench.visit() == "success"
    assert bench.server_side["status"] == {"phase": "Pending"}, "put off once only"


async def test_a_refused_action_is_explained_in_the_status_and_tried_again(
    bench: Workbench,
) -> None:
    refusals: list[Refusal] = []

    def plan(obj: CustomResource, refusal: Refusal | None) -> Plan:
        if refusal is None:
            return Plan(actions=(bench.job(obj, parallelism=-1),), status={"phase": "Running"})
        refusals.append(refusal)
        told = EmitEvent(type="Warning", reason="CreateRefused", message=refusal.message)
        return Plan(actions=(bench.job(obj), told), status={"phase": "Pending"})

    bench.plan = plan
    assert await bench.visit() == "error"
    assert bench.server_side["status"] == {"phase": "Pending"}
    assert (refusals[0].kind, refusals[0].name) == ("Job", "one-r1-a1")
    assert (refusals[0].code, refusals[0].reason) == (422, "Invalid")
    assert "parallelism" in refusals[0].message
    assert not bench.created(), "of that plan only the Event is carried out"
    assert [event.reason for event in bench.events.told] == ["CreateRefused"]
    assert await asyncio.wait_for(bench.queue.get(), timeout=10) == bench.key
    bench.queue.done(bench.key)
    await bench.visit()
    assert bench.counter.count == 1, "the same explanation is not written again"


async def test_a_name_taken_by_a_stranger_is_a_refusal(bench: Workbench) -> None:
    stranger = dict(bench.job(decode(bench.raw)).body)
    stranger["metadata"] = {"name": "one-r1-a1"}
    bench.kube.create(RAW_JOBS, stranger, namespace=bench.key.namespace)
    refusals: list[Refusal] = []

    def plan(obj: CustomResource, refusal: Refusal | None) -> Plan:
        if refusal is None:
            return Plan(actions=(bench.job(obj),))
        refusals.append(refusal)
        return Plan()

    bench.plan = plan
    assert await bench.visit() == "error"
    assert (refusals[0].code, refusals[0].reason) == (409, "ChildNameConflict")


async def test_a_status_of_an_object_that_is_gone_is_given_up(bench: Workbench) -> None:
    bench.kube.delete(RAW_TRAINING_JOBS, "one", namespace=bench.key.namespace)
    bench.plan = lambda _obj, _refusal: Plan(status={"phase": "Running"})
    assert await bench.visit() == "success"
    assert bench.objects.get((bench.key.namespace, "one")) is None


@pytest.mark.parametrize("change", ["edited", "recreated"])
async def test_a_status_made_of_an_outdated_view_is_planned_again(
    bench: Workbench, change: str
) -> None:
    if change == "edited":
        edit = {"spec": {"suspend": True}}
        bench.kube.patch(RAW_TRAINING_JOBS, "one", edit, namespace=bench.key.namespace)
    else:
        bench.kube.delete(RAW_TRAINING_JOBS, "one", namespace=bench.key.namespace)
        body = training_job("one", spec=E2E_SPEC)
        bench.kube.create(RAW_TRAINING_JOBS, body, namespace=bench.key.namespace)
    bench.plan = lambda obj, _: Plan(status={"runID": obj.metadata.uid})
    assert await bench.visit() == "success"
    assert bench.server_side["status"] == {"runID": bench.server_side["metadata"]["uid"]}


async def test_a_defect_in_planning_is_logged_and_tried_again(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    def plan(_obj: CustomResource, _refusal: Refusal | None) -> Plan:
        raise ZeroDivisionError

    bench.plan = plan
    assert await bench.visit() == "error"
    assert "defect in a visit" in caplog.text
    assert await asyncio.wait_for(bench.queue.get(), timeout=10) == bench.key


async def test_an_object_that_changes_all_the_time_is_left_for_later(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "YOUNG_S", 0.0)
    visits = 0

    def plan(obj: CustomResource, _: Refusal | None) -> Plan:
        nonlocal visits
        visits += 1
        change = {"metadata": {"labels": {"visit": str(visits)}}}
        bench.kube.patch(RAW_TRAINING_JOBS, "one", change, namespace=bench.key.namespace)
        return Plan(actions=(bench.job(obj),))

    bench.plan = plan
    assert await bench.visit() == "error"
    assert visits == 3
    assert not bench.created()


async def test_workers_take_turns_and_an_outage_ends_by_itself(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, down = bench.api.apply, [True, True]

    async def apply(*args: Any, **kwargs: Any) -> Any:
        if down:
            down.pop()
            raise errors.UnavailableError("no answer")
        return await original(*args, **kwargs)

    monkeypatch.setattr(bench.api, "apply", apply)
    bench.plan = lambda _obj, _refusal: Plan(status={"phase": "Running"})
    working = asyncio.create_task(bench.loop.run(workers=3))
    bench.queue.add(bench.key)
    await asyncio.to_thread(
        bench.kube.wait,
        RAW_TRAINING_JOBS,
        lambda seen: seen["one"].get("status", {}).get("phase") == "Running",
        within_s=20,
        namespace=bench.key.namespace,
    )
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert bench.results.all[:2] == ["error", "error"]
