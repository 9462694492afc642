"""Faults, as they happen to a cluster: kills, drains, cuts.

Here: what breaks something. Never here: what makes it whole again (the fixtures do) or
what must follow (the tests say). Everything but `drain` and pod deletion needs the local
cluster, where containers are processes of this machine.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support.kube import NODES, NOT_FOUND, PODS, ApiRefusedError, Kube, Object
from support.training_jobs import is_running

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.training_jobs import TrainingRun


def container_pids(pod: Object, *, container: str = "trainer") -> list[int]:
    """Return the host's process ids of a running container, its first process first."""
    for status in pod["status"]["containerStatuses"]:
        if status["name"] == container:
            return _pids_in_cgroup(status["containerID"].partition("://")[2])
    msg = f"pod {pod['metadata']['name']} has no container {container}"
    raise AssertionError(msg)


def _pids_in_cgroup(container_id: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if container_id in (entry / "cgroup").read_text():
                found.append(int(entry.name))
    return sorted(found)


def send_signal(pids: list[int], name: str) -> None:
    """Signal processes, say with "SIGKILL"; those that ended meanwhile are fine."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.Signals[name])


def wait_pids_ended(pids: list[int], *, within_s: float) -> None:
    """Wait until none of the processes is left."""
    deadline = time.monotonic() + within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"{pids} still run after {within_s:.0f} s"
        time.sleep(0.05)


def wait_container_ended(run: TrainingRun, *, pod: Object, within_s: float = 60) -> None:
    """Wait until a pod runs no container any more, or is gone."""
    name = pod["metadata"]["name"]
    run.wait_pods(
        lambda pods: not any(one["metadata"]["name"] == name and is_running(one) for one in pods),
        within_s=within_s,
        what=f"{name} has ended",
    )


def kill_container(pod: Object, *, container: str = "trainer") -> None:
    """Kill -9 the processes of a container, as the kernel's OOM killer would."""
    pids = container_pids(pod, container=container)
    assert pids, f"no process of {pod['metadata']['name']} is running"
    send_signal(pids, "SIGKILL")


def cordon(kube: Kube, node: str, *, value: bool = True) -> None:
    """Make a node (un)schedulable."""
    kube.patch(NODES, node, {"spec": {"unschedulable": value or None}})


def drain(kube: Kube, node: str, *, within_s: float = 120) -> None:
    """Cordon a node and evict all its pods, as `kubectl drain` does."""
    cordon(kube, node)
    for pod in kube.list(PODS, fields=f"spec.nodeName={node}"):
        if pod["status"].get("phase") not in ("Succeeded", "Failed"):
            _evict(kube, pod)

    def gone(seen: Mapping[str, Object]) -> bool:
        return not any(
            one["spec"].get("nodeName") == node
            and one["status"].get("phase") not in ("Succeeded", "Failed")
            for one in seen.values()
        )

    kube.wait(PODS, gone, within_s=within_s, what=f"node {node} is drained")


def _evict(kube: Kube, pod: Object) -> None:
    meta = pod["metadata"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
    }
    path = PODS.path(namespace=meta["namespace"], name=meta["name"], subresource="eviction")
    try:
        kube.request("POST", path, body=body)
    except ApiRefusedError as refusal:
        if refusal.status != NOT_FOUND:
            raise


def node_ready(seen: Mapping[str, Object], name: str) -> bool:
    """Whether the Node object says Ready."""
    for one in seen.get(name, {}).get("status", {}).get("conditions", []):
        if one["type"] == "Ready":
            return bool(one["status"] == "True")
    return False
