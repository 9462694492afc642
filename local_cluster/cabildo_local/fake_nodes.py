"""Pools of nodes that KWOK plays: the file that describes them, and what becomes of it.

    pools:
    - name: gpu                   # its nodes are gpu-0, gpu-1, ...
      count: 2
      labels: {cloud.google.com/gke-accelerator: nvidia-h100-80gb}
      taints: [{key: nvidia.com/gpu, value: present, effect: NoSchedule}]
      resources: {cpu: "32", memory: 256Gi, nvidia.com/gpu: "8"}
    pods:
      startSeconds: 0             # from scheduled to running
      runSeconds: 2               # pods of Jobs complete then; left out: they run until deleted

Here: reading and checking the file, Node objects, KWOK's stages. No process runs behind such
a node. Never here: starting KWOK (addons.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from cabildo_local.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ANNOTATION = "kwok.x-k8s.io/node"
POOL_LABEL = "cabildo.dev/fake-pool"
DEFAULT_RESOURCES = {"cpu": "32", "memory": "256Gi"}
PODS_PER_NODE = "256"


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one kind.

    Attributes:
        name: Prefix of their names.
        count: How many.
        labels: Beside those that every node has.
        taints: As in a Node's spec.
        resources: Capacity, all of it allocatable.
    """

    name: str
    count: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FakeNodes:
    """What the file says.

    Attributes:
        pools: The pools of nodes.
        start_s: Seconds from a pod's scheduling to its running.
        run_s: Seconds after which pods of Jobs complete; None if they run until deleted.
    """

    pools: tuple[Pool, ...]
    start_s: float = 0.0
    run_s: float | None = None


def read_fake_nodes(path: Path) -> FakeNodes:
    """Read and check a file.

    Raises:
        SettingsError: It is not as it should be; the message names the field.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("pools"), list):
        raise SettingsError(f"{path}: pools is no list", remedy="see docs/local-cluster.md")
    _check_fields(document, known={"pools", "pods"}, where=str(path))
    pods = document.get("pods") or {}
    _check_fields(pods, known={"startSeconds", "runSeconds"}, where=f"{path}: pods")
    run_s = pods.get("runSeconds")
    return FakeNodes(
        pools=tuple(_pool(entry, where=f"{path}: pools") for entry in document["pools"]),
        start_s=_seconds(pods.get("startSeconds", 0), where=f"{path}: pods.startSeconds"),
        run_s=None if run_s is None else _seconds(run_s, where=f"{path}: pods.runSeconds"),
    )


def node_objects(fake: FakeNodes, *, version: str) -> list[dict[str, Any]]:
    """Return the Node objects, with their status.

    Args:
        fake: The pools.
        version: Kubernetes version that the nodes claim to run.
    """
    nodes = []
    for pool in fake.pools:
        resources = {"pods": PODS_PER_NODE, **DEFAULT_RESOURCES, **pool.resources}
        for index in range(pool.count):
            name = f"{pool.name}-{index}"
            nodes.append(
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {
                        "name": name,
                        "annotations": {ANNOTATION: "fake"},
                        "labels": {
                            "kubernetes.io/hostname": name,
                            "kubernetes.io/os": "linux",
                            "kubernetes.io/arch": "amd64",
                            POOL_LABEL: pool.name,
                            **pool.labels,
                        },
                    },
                    "spec": {"taints": [dict(taint) for taint in pool.taints]},
                    "status": {
                        "capacity": resources,
                        "allocatable": resources,
                        "nodeInfo": {"kubeletVersion": version},
                    },
                }
            )
    return nodes


def kwok_configuration(fake: FakeNodes) -> str:
    """Return KWOK's configuration: how pods start, complete and go."""
    stages = [_stage("pod-start", selector=_NOT_STARTED, next_=_START, delay_s=fake.start_s)]
    if fake.run_s is not None:
        stages.append(
            _stage("pod-complete", selector=_RUNNING_IN_JOB, next_=_COMPLETE, delay_s=fake.run_s)
        )
    gone = {"finalizers": {"empty": True}, "delete": True}
    stages.append(_stage("pod-delete", selector=[_exists("Exists")], next_=gone, delay_s=0))
    return yaml.safe_dump_all(stages, sort_keys=False)


def _pool(entry: Any, *, where: str) -> Pool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise SettingsError(f"{where}: {entry!r} has no name")
    where = f"{where}[{entry['name']}]"
    _check_fields(entry, known={"name", "count", "labels", "taints", "resources"}, where=where)
    count = entry.get("count", 1)
    if not isinstance(count, int) or count < 0:
        raise SettingsError(f"{where}.count: {count!r} is no number of nodes")
    return Pool(
        name=entry["name"],
        count=count,
        labels={key: str(value) for key, value in (entry.get("labels") or {}).items()},
        taints=tuple(entry.get("taints") or ()),
        resources={key: str(value) for key, value in (entry.get("resources") or {}).items()},
    )


def _check_fields(document: Mapping[str, Any], *, known: set[str], where: str) -> None:
    if unknown := set(document) - known:
        raise SettingsError(
            f"{where}: {', '.join(sorted(unknown))} is not known",
            remedy=f"known are {', '.join(sorted(known))}",
        )


def _seconds(value: Any, *, where: str) -> float:
    if not isinstance(value, int | float) or value < 0:
        raise SettingsError(f"{where}: {value!r} is no number of seconds")
    return float(value)


def _stage(
    name: str, *, selector: list[dict[str, Any]], next_: dict[str, Any], delay_s: float
) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": selector},
            "delay": {"durationMilliseconds": int(delay_s * 1000)},
            "next": next_,
        },
    }


def _exists(operator: str) -> dict[str, Any]:
    return {"key": ".metadata.deletionTimestamp", "operator": operator}


_NOT_STARTED = [
    _exists("DoesNotExist"),
    {"key": ".status.podIP", "operator": "DoesNotExist"},
]
_RUNNING_IN_JOB = [
    _exists("DoesNotExist"),
    {"key": ".status.phase", "operator": "In", "values": ["Running"]},
    {"key": ".metadata.ownerReferences.[].kind", "operator": "In", "values": ["Job"]},
]
# Go templates of KWOK over the pod; native sidecars keep running, other init containers end.
_START = {
    "statusTemplate": """\
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ PodIPWith .spec.nodeName (or .spec.hostNetwork false) (or .metadata.uid "") \
(or .metadata.name "") (or .metadata.namespace "") | Quote }}
conditions:
{{ range (list "Initialized" "ContainersReady" "Ready") }}
- {type: {{ . }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  restartCount: 0
  {{ if eq .restartPolicy "Always" }}
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
  {{ else }}
  state:
    terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, \
finishedAt: {{ $now | Quote }}}
  {{ end }}
{{ end }}
"""
}
_COMPLETE = {
    "statusTemplate": """\
{{ $now := Now }}
phase: Succeeded
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: false
  started: false
  restartCount: 0
  state:
    terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, \
finishedAt: {{ $now | Quote }}}
{{ end }}
"""
}
