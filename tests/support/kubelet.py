"""The kubelet, played by a test where no node is: it says what pods do, nothing runs.

Here: Node objects that are kept alive, and pods whose status says that they run or have ended, so
that the real scheduler, Job controller, node controller and garbage collector do their part. Never
here: a container; what really runs is tested in `tests/e2e`.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from support.kube import NODES, PODS, ApiRefusedError, Kube

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.kube import Object

HEARTBEAT_S = 1.0
JOIN_S = 30.0
STATUS_EVERY_S = 0.2
ENDED = ("Succeeded", "Failed")


def now() -> str:
    """The time as an API server writes it."""
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class PlayedKubelet:
    """Kubelets of some nodes.

    Attributes:
        obedient: The code with which a trainer ends that is told to stop.
        died_at: When it ended, if it had before it was told to.
        cut: Names of nodes whose kubelet is silent.
    """

    kube: Kube
    namespace: str
    nodes: tuple[str, ...]
    obedient: int = 75
    died_at: str = ""
    cut: set[str] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def join(self) -> None:
        """Register the nodes, and wait until pods may be bound to any of them.

        A new node is tainted until the node controller has seen it ready. A test that asks for
        pods before would have the scheduler choose among the nodes that came first.
        """
        for name in self.nodes:
            labels = {"kubernetes.io/hostname": name}
            self.kube.create(NODES, {"metadata": {"name": name, "labels": labels}})
            self._beat(name)
        self.kube.wait(NODES, self._open, within_s=JOIN_S, what="nodes without a taint")

    def _open(self, seen: Mapping[str, Object]) -> bool:
        return all(name in seen and not seen[name]["spec"].get("taints") for name in self.nodes)

    def leave(self) -> None:
        """Remove the nodes."""
        self._stopping.set()
        for name in self.nodes:
            self.kube.delete(NODES, name)

    def work(self) -> None:
        """Keep the nodes alive, and stop pods that are told to, until `leave`."""
        beaten = 0.0
        while not self._stopping.wait(STATUS_EVERY_S):
            if time.monotonic() - beaten > HEARTBEAT_S:
                beaten = time.monotonic()
                self._beat_all()
            for pod in self.kube.list(PODS, namespace=self.namespace):
                if "deletionTimestamp" in pod["metadata"]:
                    self._stop(pod)

    def _beat_all(self) -> None:
        for name in set(self.nodes) - self.cut:
            with suppress(ApiRefusedError):  # the node was deleted in between
                self._beat(name)

    def run(self, pod: Object) -> None:
        """The trainer runs."""
        told = [{"type": "Ready", "status": "True", "lastTransitionTime": now()}]
        self._tell(pod, "Running", state={"running": {"startedAt": now()}}, conditions=told)

    def end(self, pod: Object, code: int, *, message: str = "", at: str = "") -> None:
        """The trainer ends."""
        ended = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": message,
            "startedAt": pod["status"].get("startTime", now()),
            "finishedAt": at or now(),
        }
        phase = "Failed" if code else "Succeeded"
        told = [{"type": "Ready", "status": "False", "lastTransitionTime": now()}]
        self._tell(pod, phase, state={"terminated": ended}, conditions=told)

    def _stop(self, pod: Object) -> None:
        if pod["spec"].get("nodeName") in self.cut:
            return
        with suppress(ApiRefusedError):  # gone, or changed in between: the next turn sees
            if pod["status"]["phase"] not in ENDED:
                self.end(pod, self.obedient, at=self.died_at)
            self.kube.delete(
                PODS,
                pod["metadata"]["name"],
                namespace=self.namespace,
                options={"gracePeriodSeconds": 0},
            )

    def _tell(self, pod: Object, phase: str, *, state: Object, conditions: list[Object]) -> None:
        image = pod["spec"]["containers"][0]["image"]
        running = {"ready": phase == "Running", "started": phase == "Running"}
        container = {"name": "trainer", "image": image, "imageID": "", "restartCount": 0}
        kept = [
            one
            for one in pod["status"].get("conditions", [])
            if one["type"] not in {told["type"] for told in conditions}
        ]
        status = {
            "phase": phase,
            "startTime": pod["status"].get("startTime", now()),
            "conditions": [*kept, *conditions],
            "containerStatuses": [{**container, **running, "state": state}],
        }
        self.kube.patch(
            PODS,
            pod["metadata"]["name"],
            {"status": status},
            namespace=self.namespace,
            sub="status",
        )

    def _beat(self, name: str) -> None:
        """Renew the node's status, as a kubelet without Leases does."""
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "played",
            "lastHeartbeatTime": now(),
        }
        room = {"cpu": "8", "memory": "16Gi", "pods": "50", "ephemeral-storage": "10Gi"}
        node = self.kube.get(NODES, name)
        if node is None:
            return
        known = [one for one in node["status"].get("conditions", []) if one["type"] == "Ready"]
        was_ready = bool(known) and known[0]["status"] == "True"
        since = known[0]["lastTransitionTime"] if was_ready else now()
        status = {
            "capacity": room,
            "allocatable": room,
            "conditions": [{**ready, "lastTransitionTime": since}],
        }
        self.kube.patch(NODES, name, {"status": status}, sub="status")


@contextmanager
def played_kubelet(kube: Kube, *, namespace: str, nodes: int = 3) -> Iterator[PlayedKubelet]:
    """Play the kubelets of some nodes until the context ends."""
    names = tuple(f"{namespace}-node{number}" for number in range(nodes))
    kubelet = PlayedKubelet(kube=kube, namespace=namespace, nodes=names)
    kubelet.join()
    worker = threading.Thread(target=kubelet.work, daemon=True)
    worker.start()
    try:
        yield kubelet
    finally:
        kubelet.leave()
        worker.join()
