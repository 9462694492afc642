"""TrainingJobs as the tests make and follow them.

Here: the spec that the tests on real pods train, and a handle that reads and awaits one
object. Never here: reading the volume (`volumes.py`) or faults (`disruption.py`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.kube import (
    CLAIMS,
    CORE_EVENTS,
    JOBS,
    PODS,
    SERVICES,
    TRAINING_JOBS,
    Kube,
    Object,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MANAGED = "app.kubernetes.io/managed-by=cabildo"
TOTAL_STEPS = 400
CHECKPOINT_EVERY_STEPS = 20

# Trains a small net for 20 to 30 s in many steps, so that a fault lands inside training
# and a checkpoint is never far.
E2E_SPEC: Object = {
    "nodes": 2,
    "seed": 7,
    "model": {
        "lstmAttention": {"hiddenSize": 16, "layers": 1, "dropout": 0.1, "attentionHeads": 2}
    },
    "optimizer": {"adamW": {"learningRate": 0.002}},
    "training": {"batchSize": 64},
    "data": {
        "sources": [{"name": "prices", "role": "train", "builtin": {"name": "sp500"}}],
        "target": {"logRange": {"high": "High", "low": "Low"}},
        "features": [
            {"name": "range", "logRange": {"high": "High", "low": "Low"}},
            {"name": "return", "logReturn": {"column": "Close"}},
        ],
        "window": {"length": 22, "horizon": 1},
    },
    "evaluation": {"every": {"steps": 100}},
    "limits": {"maxEpochs": 1000, "maxSteps": TOTAL_STEPS},
    "earlyStopping": {"patience": 0},
    "checkpoint": {
        "storage": {"claimTemplate": {"size": "1Gi"}},
        "every": {"steps": CHECKPOINT_EVERY_STEPS},
        "keep": {"last": 2, "best": 1},
    },
    "runPolicy": {"maxRestarts": 3, "backoffSeconds": 1, "terminationGracePeriodSeconds": 30},
}


def merged(base: Object, change: Object) -> Object:
    """Return base with the change laid over it; a None removes the field."""
    out = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def training_job(name: str, *, spec: Object) -> Object:
    """Return a TrainingJob object."""
    return {
        "apiVersion": "cabildo.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": spec,
    }


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One TrainingJob in the cluster, to read and to wait for."""

    kube: Kube
    namespace: str
    name: str
    uid: str

    @classmethod
    def start(cls, kube: Kube, *, namespace: str, name: str, spec: Object) -> TrainingRun:
        """Create the object."""
        body = training_job(name, spec=spec)
        made = kube.create(TRAINING_JOBS, body, namespace=namespace)
        return cls(kube=kube, namespace=namespace, name=name, uid=made["metadata"]["uid"])

    @property
    def object(self) -> Object:
        """The object as it is now."""
        found = self.kube.get(TRAINING_JOBS, self.name, namespace=self.namespace)
        assert found is not None, f"TrainingJob {self.namespace}/{self.name} does not exist"
        return found

    @property
    def status(self) -> Object:
        """The status as it is now."""
        return dict(self.object.get("status", {}))

    def children(self, resource: Any) -> list[Object]:
        """Return our children of one kind, sorted by name."""
        found = self.kube.list(
            resource, namespace=self.namespace, labels=f"{MANAGED},cabildo.dev/name={self.name}"
        )
        return sorted(found, key=lambda one: one["metadata"]["name"])

    def jobs(self) -> list[Object]:
        """Return the attempts' Jobs."""
        return self.children(JOBS)

    def services(self) -> list[Object]:
        """Return the headless Service, in a list."""
        return self.children(SERVICES)

    def claims(self) -> list[Object]:
        """Return the checkpoint claim, in a list."""
        return self.children(CLAIMS)

    def pods(self, *, attempt: int | None = None) -> list[Object]:
        """Return the pods, of one attempt when it is given."""
        pods = self.children(PODS)
        if attempt is None:
            return pods
        return [one for one in pods if label(one, "cabildo.dev/attempt") == str(attempt)]

    def pod(self, *, attempt: int, rank: int) -> Object:
        """Return the pod of one rank."""
        for one in self.pods(attempt=attempt):
            if rank_of(one) == rank:
                return one
        msg = f"no pod of attempt {attempt} with rank {rank}"
        raise AssertionError(msg)

    def events(self) -> list[Object]:
        """Return the Events about this object."""
        fields = f"involvedObject.name={self.name},involvedObject.kind=TrainingJob"
        return self.kube.list(CORE_EVENTS, namespace=self.namespace, fields=fields)

    def suspend(self, *, value: bool) -> None:
        """Set spec.suspend."""
        self.change({"suspend": value})

    def change(self, spec: Object) -> None:
        """Merge a change into the spec."""
        self.kube.patch(TRAINING_JOBS, self.name, {"spec": spec}, namespace=self.namespace)

    def delete(self) -> None:
        """Delete the object."""
        self.kube.delete(TRAINING_JOBS, self.name, namespace=self.namespace)

    def wait_status(
        self, question: Callable[[Object], object], *, within_s: float, what: str = ""
    ) -> Object:
        """Wait until the question about the status is true, and return that status."""

        def asked(seen: Any) -> Object | None:
            one = seen.get(self.name)
            status = (one or {}).get("status") or {}
            return status if one and question(status) else None

        return self.kube.wait(
            TRAINING_JOBS, asked, namespace=self.namespace, within_s=within_s, what=what
        )

    def wait_condition(
        self, kind: str, *, within_s: float, status: str = "True", reason: str = ""
    ) -> Object:
        """Wait until a condition has this status (and reason), and return the condition."""

        def holds(seen: Object) -> bool:
            found = condition(seen, kind)
            return found.get("status") == status and (not reason or found["reason"] == reason)

        seen = self.wait_status(
            holds, within_s=within_s, what=f"{self.name}: {kind}={status} {reason}"
        )
        return condition(seen, kind)

    def wait_step(self, step: int, *, within_s: float, attempt: int = 1) -> None:
        """Wait until the attempt has reported at least this step."""
        self.wait_status(
            lambda status: (
                status.get("attempt", 0) >= attempt
                and status.get("progress", {}).get("step", 0) >= step
            ),
            within_s=within_s,
            what=f"{self.name}: step {step} of attempt {attempt}",
        )

    def wait_pods(
        self, question: Callable[[list[Object]], object], *, within_s: float, what: str = ""
    ) -> list[Object]:
        """Wait until the question about this object's pods is true, and return them."""

        def asked(seen: Any) -> list[Object] | None:
            pods = list(seen.values())
            return pods if question(pods) else None

        return self.kube.wait(
            PODS,
            asked,
            namespace=self.namespace,
            labels=f"cabildo.dev/name={self.name}",
            within_s=within_s,
            what=what or f"{self.name}: pods",
        )

    def wait_training(self, *, attempt: int = 1, within_s: float = 180) -> list[Object]:
        """Wait until every container of the attempt runs, and return its pods by rank."""
        nodes = self.object["spec"].get("nodes", 1)

        def all_run(pods: list[Object]) -> bool:
            mine = [one for one in pods if label(one, "cabildo.dev/attempt") == str(attempt)]
            return sum(is_running(one) for one in mine) == nodes

        pods = self.wait_pods(
            all_run, within_s=within_s, what=f"{self.name}: pods of attempt {attempt} run"
        )
        mine = [one for one in pods if label(one, "cabildo.dev/attempt") == str(attempt)]
        return sorted(mine, key=rank_of)


def condition(status: Object, kind: str) -> Object:
    """Return one condition of a status, empty when it is not there."""
    for one in status.get("conditions", []):
        if one["type"] == kind:
            return dict(one)
    return {}


def label(one: Object, key: str) -> str | None:
    """Return a label of an object."""
    found = one["metadata"].get("labels", {}).get(key)
    return None if found is None else str(found)


def rank_of(pod: Object) -> int:
    """Return the completion index of an Indexed Job's pod."""
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def is_running(pod: Object) -> bool:
    """Whether the trainer container of a pod runs."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return any(one["name"] == "trainer" and "running" in one["state"] for one in statuses)
