"""A small world for plans: stores, a clock and hands that act as controllers do.

Here: facts are set by a test as kubelet, Job controller or a person would set them; plans are
carried out to the letter. Never here: a simulation of timing or of a trainer; what real controllers
do is tested on a real cluster.
"""

from __future__ import annotations

import copy
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from cabildo_api import names
from cabildo_api.result import Outcome, Result
from cabildo_api.training_job_status import Metric, TrainingJobStatus
from cabildo_operator.kube import objects
from cabildo_operator.kube.actions import Apply, Create, Delete, EmitEvent
from cabildo_operator.kube.store import ObjectKey
from cabildo_operator.reconcile.stores import Stores
from cabildo_operator.reconcile.training_job.observed import observe
from cabildo_operator.reconcile.training_job.plan import plan
from cabildo_operator.reconcile.training_job.settings import PlanSettings

if TYPE_CHECKING:
    from cabildo_operator.kube.actions import Action
    from cabildo_operator.reconcile.kind import Plan, Refusal

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SETTINGS = PlanSettings(
    trainer_image="registry.example/cabildo/trainer:1",
    progress_url_base="https://cabildo-progress.cabildo-system.svc:443",
    progress_ca_pem="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
)
SPEC: dict[str, Any] = {
    "nodes": 2,
    "model": {"lstmAttention": {}},
    "data": {
        "sources": [{"name": "prices", "builtin": {"name": "sp500"}}],
        "target": {"logRange": {}},
        "features": [{"name": "range", "logRange": {}}],
    },
}
KEY = ObjectKey("lab", "net")
UID = "0b6f9b6e-0000-4000-8000-000000000001"
GRACE_S = 60
KINDS: dict[str, tuple[str, type[Any]]] = {
    "TrainingJob": ("training_jobs", objects.CustomResource),
    "Job": ("jobs", objects.Job),
    "Pod": ("pods", objects.Pod),
    "Service": ("services", objects.Service),
    "PersistentVolumeClaim": ("claims", objects.PersistentVolumeClaim),
    "Node": ("nodes", objects.Node),
    "StorageClass": ("storage_classes", objects.StorageClass),
    "Event": ("failed_creates", objects.Event),
}


def stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else copy.deepcopy(value)
    return out


def condition(type_: str, *, at: datetime, reason: str = "", message: str = "") -> dict[str, Any]:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp(at),
    }


class Crash(Exception):  # noqa: N818 - the word for it
    """The operator ends here."""


class World:
    def __init__(self, *, storage_class: bool = True, **spec: Any) -> None:
        self.stores = Stores()
        self.now = START
        self.events: list[EmitEvent] = []
        self.created: list[str] = []
        self._raw: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)
        self._seen_pods = 0
        self.put(
            "TrainingJob",
            {
                "metadata": {
                    "name": KEY.name,
                    "namespace": KEY.namespace,
                    "uid": UID,
                    "generation": 1,
                },
                "spec": merged(SPEC, spec),
                "status": {},
            },
        )
        if storage_class:
            self.add_storage_class("standard", default=True)
        for node in ("node1", "node2"):
            self.set_node(node, ready=True)

    # The store side.
    def put(self, kind: str, raw: dict[str, Any]) -> None:
        meta = raw["metadata"]
        meta["resourceVersion"] = str(next(self._versions))
        self._raw[kind, meta.get("namespace", ""), meta["name"]] = raw
        attribute, model = KINDS[kind]
        decoded = msgspec.json.decode(json.dumps(raw).encode(), type=model)
        getattr(self.stores, attribute).upsert(decoded)

    def raw(self, kind: str, name: str, *, namespace: str = KEY.namespace) -> dict[str, Any]:
        return self._raw[kind, namespace, name]

    def remove(self, kind: str, name: str, *, namespace: str = KEY.namespace) -> None:
        del self._raw[kind, namespace, name]
        store = getattr(self.stores, KINDS[kind][0])
        store.delete(store.get((namespace, name)))

    def forget_departed(self) -> None:
        """A new operator has seen none of the pods that are gone."""
        fresh = Stores()
        self.stores = fresh
        for (kind, _, _), raw in list(self._raw.items()):
            self.put(kind, raw)

    # The object.
    @property
    def status(self) -> TrainingJobStatus:
        raw = self.raw("TrainingJob", KEY.name)["status"]
        return TrainingJobStatus.model_validate_json(json.dumps(raw))

    def running(self) -> tuple[str, str]:
        found = self.status.condition("Running")
        assert found is not None
        return found.reason, found.message

    def is_true(self, kind: str) -> bool:
        return self.status.is_true(kind)

    def change(self, **spec: Any) -> None:
        raw = self.raw("TrainingJob", KEY.name)
        raw["spec"] = merged(raw["spec"], spec)
        raw["metadata"]["generation"] += 1
        self.put("TrainingJob", raw)

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # The operator.
    def plan(self, *, refusal: Refusal | None = None) -> Plan:
        observed = observe(KEY, stores=self.stores)
        assert observed is not None
        return plan(observed, now=self.now, settings=SETTINGS, refusal=refusal)

    def visit(self, *, crash_after: int | None = None) -> Plan:
        """One turn of the loop; a crash comes after so many writes, the status being the last."""
        made = self.plan()
        for number, action in enumerate(made.actions):
            if crash_after is not None and number >= crash_after:
                raise Crash
            self.carry_out(action)
        if crash_after is not None:
            raise Crash
        self.write_status(made)
        return made

    def write_status(self, made: Plan) -> None:
        raw = self.raw("TrainingJob", KEY.name)
        if made.status is not None and made.status != raw["status"]:
            raw["status"] = made.status
            self.put("TrainingJob", raw)

    def rest(self, limit: int = 10) -> Plan:
        """Visits until nothing changes, then demands that planning again gives no action."""
        for _ in range(limit):
            before = copy.deepcopy(self._raw)
            made = self.visit()
            if before == self._raw:
                assert made.actions == ()
                return made
        raise AssertionError("the plan never comes to rest")

    def carry_out(self, action: Action) -> None:
        if isinstance(action, EmitEvent):
            self.events.append(action)
        elif isinstance(action, Create):
            self._create(action)
        elif isinstance(action, Delete):
            self._delete(action)
        else:
            assert isinstance(action, Apply)
            name = action.body["metadata"]["name"]
            self.put(str(action.body["kind"]), merged(self.raw("Service", name), dict(action.body)))

    def _create(self, action: Create) -> None:
        place = (action.kind, action.namespace, action.name)
        if place in self._raw:
            return
        raw = copy.deepcopy(dict(action.body))
        raw["metadata"] |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": stamp(self.now)}
        self.created.append(f"{action.kind}/{action.name}")
        self.put(action.kind, raw)

    def _delete(self, action: Delete) -> None:
        place = (action.kind, action.namespace, action.name)
        raw = self._raw.get(place)
        if raw is None or raw["metadata"]["uid"] != action.uid:
            return
        live = [pod for pod in self.pods_of(action.name) if not self._ended(pod)]
        for pod in live:
            self.delete_pod(pod["metadata"]["name"])
        if action.propagation == "Foreground" and live:
            raw["metadata"]["deletionTimestamp"] = stamp(self.now)
            self.put("Job", raw)
        else:
            self.remove("Job", action.name)
            for pod in self.pods_of(action.name):
                if self._ended(pod):
                    self.remove("Pod", pod["metadata"]["name"])

    # Kubelet, Job controller, node controller, people.
    def jobs(self) -> list[str]:
        return sorted(name for kind, _, name in self._raw if kind == "Job")

    def pods_of(self, job: str) -> list[dict[str, Any]]:
        return [
            raw
            for (kind, _, _), raw in self._raw.items()
            if kind == "Pod" and raw["metadata"]["labels"]["job"] == job
        ]

    def pod(self, rank: int, *, attempt: int = 1, run: int = 1) -> dict[str, Any]:
        job = names.job_name(KEY.name, run, attempt)
        (found,) = [
            raw
            for raw in self.pods_of(job)
            if raw["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == str(rank)
        ]
        return found

    def refuse_pod(self, note: str, *, number: int = 1, job: str = "net-r1-a1") -> None:
        """The Job controller could not create a pod, and says so in an Event."""
        uid = self.raw("Job", job)["metadata"]["uid"]
        about = {"kind": "Job", "namespace": KEY.namespace, "name": job, "uid": uid}
        meta = {"name": f"{job}.{number}", "namespace": KEY.namespace, "uid": f"event-{number}"}
        known = self._raw.get(("Event", KEY.namespace, meta["name"]))
        meta["creationTimestamp"] = (
            known["metadata"]["creationTimestamp"] if known else stamp(self.now)
        )
        self.put("Event", {"metadata": meta, "note": note, "regarding": about})

    def start_pods(self, *, attempt: int = 1, run: int = 1, nodes: int = 2) -> None:
        for rank in range(nodes):
            self.add_pod(rank, attempt=attempt, run=run)
            self.run_pod(rank, attempt=attempt, run=run)

    def add_pod(self, rank: int, *, attempt: int = 1, run: int = 1) -> None:
        job = names.job_name(KEY.name, run, attempt)
        template = self.raw("Job", job)["spec"]["template"]
        self._seen_pods += 1
        labels = template["metadata"]["labels"] | {
            "batch.kubernetes.io/job-completion-index": str(rank),
            "job": job,
        }
        meta = {
            "name": f"{job}-{rank}-x{self._seen_pods}",
            "namespace": KEY.namespace,
            "uid": f"uid-{next(self._uids)}",
            "labels": labels,
            "creationTimestamp": stamp(self.now),
        }
        self.put("Pod", {"metadata": meta, "spec": {}, "status": {"phase": "Pending"}})

    def run_pod(self, rank: int, *, attempt: int = 1, run: int = 1) -> None:
        raw = self.pod(rank, attempt=attempt, run=run)
        raw["spec"]["nodeName"] = f"node{rank % 2 + 1}"
        state = {"running": {"startedAt": stamp(self.now)}}
        raw["status"] = {
            "phase": "Running",
            "conditions": [condition("Ready", at=self.now)],
            "containerStatuses": [{"name": "trainer", "ready": True, "state": state}],
        }
        self.put("Pod", raw)

    def wait_pod(self, rank: int, *, reason: str, message: str = "", image: str = "i:1") -> None:
        raw = self.pod(rank)
        state = {"waiting": {"reason": reason, "message": message}}
        raw["spec"]["nodeName"] = "node1"
        raw["status"]["containerStatuses"] = [{"name": "trainer", "state": state, "image": image}]
        self.put("Pod", raw)

    def end(
        self, rank: int, code: int, *, attempt: int = 1, reason: str = "", message: str = ""
    ) -> None:
        raw = self.pod(rank, attempt=attempt)
        statuses = raw["status"].get("containerStatuses", [{"state": {}}])
        running = statuses[0]["state"].get("running", {})
        terminated = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": message,
            "startedAt": running.get("startedAt", stamp(self.now)),
            "finishedAt": stamp(self.now),
        }
        raw["status"] |= {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "trainer", "state": {"terminated": terminated}}],
        }
        raw["status"]["conditions"] = [
            item for item in raw["status"].get("conditions", []) if item["type"] != "Ready"
        ]
        self.put("Pod", raw)

    def fail_job(
        self, message: str = "", *, attempt: int = 1, reason: str = "PodFailurePolicy"
    ) -> None:
        """The Job controller gives up: FailureTarget first, then it deletes what still runs."""
        job = names.job_name(KEY.name, 1, attempt)
        raw = self.raw("Job", job)
        told = condition("FailureTarget", at=self.now, reason=reason, message=message)
        raw["status"] = {"conditions": [told]}
        self.put("Job", raw)
        for pod in self.pods_of(job):
            if not self._ended(pod):
                self.delete_pod(pod["metadata"]["name"])

    def complete_job(self, *, attempt: int = 1) -> None:
        raw = self.raw("Job", names.job_name(KEY.name, 1, attempt))
        raw["status"] = {"conditions": [condition("Complete", at=self.now)]}
        self.put("Job", raw)

    def delete_pod(self, name: str, *, grace_s: int = GRACE_S) -> None:
        raw = self.raw("Pod", name)
        if "deletionTimestamp" in raw["metadata"]:
            return
        until = self.now + timedelta(seconds=grace_s)
        raw["metadata"] |= {
            "deletionTimestamp": stamp(until),
            "deletionGracePeriodSeconds": grace_s,
        }
        self.put("Pod", raw)

    def disrupt(self, rank: int, *, reason: str, attempt: int = 1) -> None:
        raw = self.pod(rank, attempt=attempt)
        raw["status"]["conditions"].append(
            condition("DisruptionTarget", at=self.now, reason=reason, message="as told")
        )
        self.put("Pod", raw)
        self.delete_pod(raw["metadata"]["name"])

    def vanish(self, rank: int, *, attempt: int = 1) -> None:
        self.remove("Pod", self.pod(rank, attempt=attempt)["metadata"]["name"])

    def vanish_ended(self) -> None:
        """What the garbage collector does to a Job deleted in the foreground."""
        for kind, _, name in list(self._raw):
            if kind == "Pod" and "deletionTimestamp" in self.raw("Pod", name)["metadata"]:
                self.remove("Pod", name)
        for job in self.jobs():
            if "deletionTimestamp" in self.raw("Job", job)["metadata"]:
                self.remove("Job", job)

    def set_node(self, name: str, *, ready: bool) -> None:
        told = condition("Ready", at=self.now) | {"status": "True" if ready else "Unknown"}
        self.put("Node", {"metadata": {"name": name}, "status": {"conditions": [told]}})

    def add_storage_class(self, name: str, *, default: bool = False) -> None:
        text = "true" if default else "false"
        meta = {"name": name, "annotations": {objects.DEFAULT_CLASS: text}}
        self.put("StorageClass", {"metadata": meta})

    def add_claim(self, name: str, *, phase: str = "Bound", **meta: Any) -> None:
        where = {"name": name, "namespace": KEY.namespace, "uid": f"uid-{name}"} | meta
        self.put("PersistentVolumeClaim", {"metadata": where, "status": {"phase": phase}})

    def _ended(self, pod: dict[str, Any]) -> bool:
        return pod["status"]["phase"] in {"Succeeded", "Failed"}

    # Short ways.
    def start(self, **facts: Any) -> None:
        """Up to a running first attempt."""
        self.rest()
        self.start_pods(**facts)
        self.rest()

    def result(self, **fields: Any) -> str:
        values: dict[str, Any] = {
            "outcome": Outcome.COMPLETE,
            "run": 1,
            "attempt": 1,
            "exit_code": 0,
        }
        values |= {"metrics": (Metric(name="test_r2", value="0.71"),)}
        return Result(**(values | fields)).to_bytes().decode()

    def succeed(self, *, attempt: int = 1) -> None:
        self.end(1, 0, attempt=attempt)
        self.end(0, 0, attempt=attempt, message=self.result(attempt=attempt))
        self.complete_job(attempt=attempt)
        self.rest()
