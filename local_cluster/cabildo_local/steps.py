"""The steps of `up`, each safe to repeat: network, registry, control plane, nodes, add-ons.

Here: the order within a step, and what is waited for. A step makes what is missing and
restarts what would be started differently now. Never here: which steps there are and when
they are taken (cluster.py), what the programs are (the module of their name).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cabildo_local import addons
from cabildo_local.addresses import Addresses, choose_cidr, host_routes
from cabildo_local.api import NOT_FOUND, Api, ApiError, can_connect, wait_until
from cabildo_local.errors import LocalClusterError
from cabildo_local.fake_nodes import POOL_LABEL
from cabildo_local.network import CONTROL_PLANE_MEMBER
from cabildo_local.registry import registry_program
from cabildo_local.state import Allotment, address_lock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cabildo_local.api import JsonObject
    from cabildo_local.cgroups import Slice
    from cabildo_local.control_plane import ControlPlane
    from cabildo_local.fake_nodes import FakeNodes
    from cabildo_local.network import Network
    from cabildo_local.node import Node
    from cabildo_local.processes import Processes
    from cabildo_local.reporter import Reporter
    from cabildo_local.settings import ClusterSettings
    from cabildo_local.state import State

# A busy machine of two cores; the usual figure is 4 s.
API_READY_S = 90.0
# The usual figure is 10 s.
NODES_READY_S = 180.0
DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects through which a cluster is seen and changed."""

    state: State
    slice: Slice
    network: Network
    processes: Processes


def ensure_network(
    settings: ClusterSettings, *, parts: Parts, alive: bool, reporter: Reporter
) -> Allotment:
    """Allot an address range and make the network, or what is missing of it.

    Args:
        settings: What is wanted.
        parts: The cluster.
        alive: Whether the cluster runs, and so keeps its range.
        reporter: Hears when another cluster has to be waited for.

    Raises:
        NetworkError: No range is free.
    """
    state = parts.state
    before = state.allotment()
    # Others may not choose the same range between our choice and our route.
    with address_lock(reporter=reporter):
        if alive and before is not None:
            cidr = before.cidr
        else:
            routes = host_routes(except_link=parts.network.host_link)
            cidr = choose_cidr(
                wanted=settings.cidr,
                kept=before.cidr if before else None,
                taken=[*routes, *state.other_cidrs()],
            )
        allotment = Allotment(
            cidr=cidr,
            nodes=settings.nodes,
            api_port=settings.api_port,
            registry_port=settings.registry_port,
        )
        if before is not None and not alive and _addressed(before) != _addressed(allotment):
            # Its certificates and objects name other addresses.
            state.forget_life()
            state.create()
        state.allot(allotment)
        parts.network.ensure(Addresses(cidr), nodes=settings.nodes)
    return allotment


def ensure_registry(settings: ClusterSettings, *, parts: Parts, addresses: Addresses) -> None:
    """Start the image registry and wait until it listens.

    Raises:
        LocalClusterError: It does not.
    """
    program = registry_program(
        parts.state,
        cache=settings.cache,
        address=addresses.control_plane,
        port=settings.registry_port,
        namespace=parts.network.namespace(CONTROL_PLANE_MEMBER),
    )
    parts.processes.ensure(program)
    wait_until(
        lambda: can_connect(addresses.control_plane, port=settings.registry_port),
        what="the image registry",
        timeout_s=20,
        alive=lambda: parts.processes.require_running("registry"),
    )


def ensure_control_plane(control_plane: ControlPlane, *, parts: Parts) -> Api:
    """Start the control plane and wait until pods could be made.

    Raises:
        LocalClusterError: It does not get ready.
    """
    processes = parts.processes
    control_plane.write_files()
    processes.ensure(control_plane.etcd())
    processes.ensure(control_plane.api_server())

    def alive() -> None:
        processes.require_running("etcd")
        processes.require_running("kube-apiserver")

    api = Api(parts.state.kubeconfig)
    # The controller manager gives up when the API server takes long to answer, so it waits.
    wait_until(
        lambda: api.is_ready("livez"), what="the API server", timeout_s=API_READY_S, alive=alive
    )
    processes.ensure(control_plane.controller_manager())
    processes.ensure(control_plane.scheduler())
    processes.ensure(addons.storage_program(parts.state))
    wait_until(api.is_ready, what="the API server", timeout_s=API_READY_S, alive=alive)
    addons.apply_storage_class(api)
    wait_until(
        lambda: _exists(api, DEFAULT_ACCOUNT),
        what="the default service account",
        timeout_s=API_READY_S,
        alive=lambda: processes.require_running("kube-controller-manager"),
    )
    return api


def ensure_dns(
    control_plane: ControlPlane, *, parts: Parts, binaries: Mapping[str, Path], api: Api
) -> None:
    """Start CoreDNS and make its Service."""
    addons.apply_dns(api, addresses=control_plane.addresses)
    parts.processes.ensure(addons.dns_program(control_plane, binaries=binaries))


def ensure_fake_nodes(
    fake: FakeNodes,
    *,
    control_plane: ControlPlane,
    parts: Parts,
    binaries: Mapping[str, Path],
    api: Api,
) -> None:
    """Make the played nodes and start KWOK, which makes them Ready.

    Raises:
        LocalClusterError: They do not get ready.
    """
    # Before KWOK sees them, so that it does not invent their resources.
    addons.apply_fake_nodes(api, fake=fake)
    parts.processes.ensure(addons.kwok_program(control_plane, fake=fake, binaries=binaries))
    wait_until(
        lambda: _fake_nodes_ready(api),
        what="the played nodes",
        timeout_s=NODES_READY_S,
        alive=partial(parts.processes.require_running, "kwok"),
        remedy=f"look into {parts.processes.log('kwok')}",
    )


def _fake_nodes_ready(api: Api) -> bool:
    nodes = api.get(f"{addons.NODES}?labelSelector={POOL_LABEL}")["items"]
    return all(_says_ready(node) for node in nodes)


def ensure_nodes(
    nodes: Sequence[Node], *, parts: Parts, binaries: Mapping[str, Path], api: Api
) -> None:
    """Start the nodes' programs, all nodes side by side, and wait until they are Ready.

    Raises:
        LocalClusterError: One does not get ready.
    """
    before = {node.name: _heartbeat(api, node.name) for node in nodes}
    for node in nodes:
        parts.slice.create(node.name)
        node.write_files()
        node.mount_folders()
        parts.processes.ensure(node.containerd())
    started = [_start_kubelet(node, parts=parts, binaries=binaries, api=api) for node in nodes]
    for node, is_new in zip(nodes, started, strict=True):
        old_heartbeat = before[node.name] if is_new else ""
        wait_until(
            partial(_is_ready, api, node.name, old_heartbeat=old_heartbeat),
            what=node.name,
            timeout_s=NODES_READY_S,
            alive=partial(_require_node, parts.processes, node.name),
            remedy=f"look into {parts.processes.log(f'{node.name}-kubelet')}",
        )


def _start_kubelet(node: Node, *, parts: Parts, binaries: Mapping[str, Path], api: Api) -> bool:
    # kubelet gives up at once when its container runtime does not answer.
    wait_until(
        partial(_listens, node.socket),
        what=f"containerd of {node.name}",
        timeout_s=NODES_READY_S,
        alive=partial(parts.processes.require_running, f"{node.name}-containerd"),
    )
    if not _is_registered(api, node.name):
        # kubelet makes its Node object when it starts, and never again.
        parts.processes.stop(f"{node.name}-kubelet")
    is_new = parts.processes.ensure(node.kubelet(binaries))
    parts.processes.ensure(node.kube_proxy(binaries))
    return is_new


def _is_registered(api: Api, node: str) -> bool:
    try:
        api.get(f"{addons.NODES}/{node}")
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        return False
    return True


def _require_node(processes: Processes, name: str) -> None:
    for program in ("containerd", "kubelet", "kube-proxy"):
        processes.require_running(f"{name}-{program}")


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _heartbeat(api: Api, node: str) -> str:
    try:
        return str(api.get(f"{LEASES}/{node}")["spec"]["renewTime"])
    except (LocalClusterError, OSError, KeyError):
        return ""


def _is_ready(api: Api, node: str, *, old_heartbeat: str) -> bool:
    # Of a killed cluster's node, the API server still says that it is Ready: its heartbeat
    # must be a new one.
    heartbeat = _heartbeat(api, node)
    if not heartbeat or heartbeat == old_heartbeat:
        return False
    try:
        return _says_ready(api.get(f"{addons.NODES}/{node}"))
    except (LocalClusterError, OSError):
        return False


def _says_ready(node: JsonObject) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _exists(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except (LocalClusterError, OSError):
        return False
    return True


def _addressed(allotment: Allotment) -> tuple[str, int]:
    return allotment.cidr, allotment.api_port
