"""Faults, as they happen to a cluster: kills, drains, cuts.

Here: what breaks something. Never here: what makes it whole again (the fixtures do) or
what must follow (the tests say). Everything but `drain` and pod deletion needs the local
cluster, where containers are processes of this machine.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support.kube import NODES, PODS, ApiRefusedError, Kube, Object

if TYPE_CHECKING:
    from collections.abc import Mapping

TOO_MANY_REQUESTS = 429


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


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Signal processes; those that ended meanwhile are fine."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_container(pod: Object, *, container: str = "trainer") -> None:
    """Kill -9 the processes of a container, as the kernel's OOM killer would."""
    pids = container_pids(pod, container=container)
    assert pids, f"no process of {pod['metadata']['name']} is running"
    send_signal(pids, signal.SIGKILL)


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
        if refusal.status != 404:
            raise


def node_ready(seen: Mapping[str, Object], name: str) -> bool:
    """Whether the Node object says Ready."""
    for one in seen.get(name, {}).get("status", {}).get("conditions", []):
        if one["type"] == "Ready":
            return bool(one["status"] == "True")
    return False
