"""Bringing a local cluster up and down, and saying how it is: the front door.

    up      check -> binaries -> clear leftovers -> network, registry -> control plane
            -> add-ons -> nodes -> ready
    down    end processes -> unmount -> remove namespaces, links, groups -> forget

Both are safe to repeat and to kill at any point: every step looks at what is there, and
what is there is told by control group, namespace name and folder, never by memory. Never
here: how a step is done (the module of its name).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cabildo_local import addons, leftovers
from cabildo_local.addresses import Addresses, choose_cidr, host_routes
from cabildo_local.api import Api, can_connect, wait_until
from cabildo_local.binaries import resolve
from cabildo_local.cgroups import Slice
from cabildo_local.control_plane import ControlPlane
from cabildo_local.errors import LocalClusterError, SettingsError
from cabildo_local.network import CONTROL_PLANE_MEMBER, Network
#from cabildo_local.packages import ensure_packages
from cabildo_local.prerequisites import check_machine, check_root, check_system, read_hierarchies
from cabildo_local.processes import Processes
from cabildo_local.provisioner import remove_unretained
from cabildo_local.registry import registry_program
from cabildo_local.settings import check_name, default_state_root
from cabildo_local.state import Allotment, State, address_lock

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.reporter import Reporter
    from cabildo_local.settings import ClusterSettings

CONTROL_PLANE_BINARIES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
# A busy machine of two cores; the usual figure is 4 s.
API_READY_S = 90.0
DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A local cluster that is up.

    Attributes:
        name: Its name.
        kubeconfig: File with the administrator's access.
        registry: `host:port` of its image registry, the same for pushes and for pods.
        audit_log: The API server's audit log, JSON lines.
        nodes: The names of its real nodes.
        logs: Folder with the output of each program.
    """

    name: str
    kubeconfig: Path
    registry: str
    audit_log: Path
    nodes: tuple[str, ...]
    logs: Path
    _parts: Parts = field(repr=False)

    def cut_link(self, node: str) -> None:
        """Take a node's network cable out; its programs and pods go on.

        Raises:
            NetworkError: There is no such node.
        """
        self._parts.network.set_link(node, up=False)

    def restore_link(self, node: str) -> None:
        """Put a node's network cable back.

        Raises:
            NetworkError: There is no such node.
        """
        self._parts.network.set_link(node, up=True)

    def node_processes(self, node: str) -> dict[str, int]:
        """Return the process ids of a node's own programs by name."""
        names = [name for name in self._parts.processes.names() if name.startswith(f"{node}-")]
        pids = {name: self._parts.processes.pid(name) for name in names}
        return {name.removeprefix(f"{node}-"): pid for name, pid in pids.items() if pid}


@dataclass(frozen=True, slots=True)
class Status:
    """How a cluster is.

    Attributes:
        name: Its name.
        running: Programs that run.
        ended: Programs that should run and do not.
        allotment: What it was given; None if it never came up.
        ready: Whether its API server answers.
        kubeconfig: File with the administrator's access.
        registry: `host:port` of its image registry; empty if it never came up.
    """

    name: str
    running: tuple[str, ...]
    ended: tuple[str, ...]
    allotment: Allotment | None
    ready: bool
    kubeconfig: Path
    registry: str


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects through which a cluster is seen and changed."""

    state: State
    slice: Slice
    network: Network
    processes: Processes


def up(settings: ClusterSettings, *, reporter: Reporter) -> Cluster:
    """Bring a cluster up, or complete one that is partly there.

    Raises:
        LocalClusterError: It cannot be brought up; message and remedy say why.
    """
    check_system()
    check_root()
    reporter.plan(_steps(settings))
    with reporter.step("check the machine"):
#        ensure_packages(reporter=reporter)
        check_machine(settings)
    with reporter.step("find the programs"):
        binaries = _resolve(settings, reporter=reporter)
    parts = _parts(settings.state_root, name=settings.name)
    with parts.state.lock(reporter=reporter):
        return _up_locked(settings, parts=parts, binaries=binaries, reporter=reporter)


def down(
    name: str, *, purge: bool = False, state_root: Path | None = None, reporter: Reporter
) -> tuple[Path, ...]:
    """Take a cluster down, leaving nothing running, mounted or routed.

    Args:
        name: The cluster's name.
        purge: Also remove the nodes' images and retained volumes: the whole state folder.
        state_root: Folder below which each cluster has its own; the environment's if None.
        reporter: Hears about the steps.

    Returns:
        The folders of volumes that were retained.

    Raises:
        LocalClusterError: Something cannot be removed.
    """
    check_root()
    check_name(name)
    parts = _parts(state_root or default_state_root(), name=name)
    reporter.plan(["end the programs", "remove the state"])
    with parts.state.lock(reporter=reporter):
        with reporter.step("end the programs"):
            leftovers.clear(parts.state, slice_=parts.slice, network=parts.network)
        with reporter.step("remove the state"):
            if purge:
                parts.state.purge()
                return ()
            parts.state.forget_life()
            retained = remove_unretained(parts.state.volumes)
            return tuple(parts.state.volumes / volume for volume in retained)


def status(name: str, *, state_root: Path | None = None) -> Status:
    """Say how a cluster is; changes nothing.

    Raises:
        LocalClusterError: The name cannot be one.
    """
    check_name(name)
    parts = _parts(state_root or default_state_root(), name=name)
    allotment = parts.state.allotment()
    names = parts.processes.names()
    running = tuple(name for name in names if parts.processes.is_running(name))
    kubeconfig = parts.state.kubeconfig
    registry = ""
    if allotment is not None:
        registry = f"{Addresses(allotment.cidr).control_plane}:{allotment.registry_port}"
    return Status(
        name=name,
        running=running,
        ended=tuple(name for name in names if name not in running),
        allotment=allotment,
        ready=kubeconfig.exists() and Api(kubeconfig).is_ready(),
        kubeconfig=kubeconfig,
        registry=registry,
    )


def _up_locked(
    settings: ClusterSettings, *, parts: Parts, binaries: dict[str, Path], reporter: Reporter
) -> Cluster:
    state = parts.state
    before = state.allotment()
    alive = bool(parts.slice.pids())
    if alive and before is not None:
        _check_same(settings, before=before)
    if not (alive and before and parts.network.intact(nodes=before.nodes)):
        with reporter.step("clear what a killed cluster left"):
            leftovers.clear(state, slice_=parts.slice, network=parts.network)
        alive = False
    state.create()
    with reporter.step("network and registry"):
        addresses = _ensure_network(settings, parts=parts, alive=alive, reporter=reporter)
        _ensure_registry(settings, parts=parts, addresses=addresses)
    with reporter.step("control plane"):
        control_plane = ControlPlane(
            state=state,
            addresses=addresses,
            api_port=settings.api_port,
            binaries=binaries,
            namespace=parts.network.namespace(CONTROL_PLANE_MEMBER),
        )
        api = _ensure_control_plane(control_plane, parts=parts)
    return _cluster(settings, parts=parts, addresses=addresses)


def _ensure_network(
    settings: ClusterSettings, *, parts: Parts, alive: bool, reporter: Reporter
) -> Addresses:
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
        addresses = Addresses(cidr)
        parts.network.ensure(addresses, nodes=settings.nodes)
    return addresses


def _ensure_registry(settings: ClusterSettings, *, parts: Parts, addresses: Addresses) -> None:
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


def _ensure_control_plane(control_plane: ControlPlane, *, parts: Parts) -> Api:
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


def _cluster(settings: ClusterSettings, *, parts: Parts, addresses: Addresses) -> Cluster:
    return Cluster(
        name=settings.name,
        kubeconfig=parts.state.kubeconfig,
        registry=f"{addresses.control_plane}:{settings.registry_port}",
        audit_log=parts.state.audit_log,
        nodes=tuple(f"node{number}" for number in range(1, settings.nodes + 1)),
        logs=parts.state.logs,
        _parts=parts,
    )


def _parts(state_root: Path, *, name: str) -> Parts:
    state = State(state_root, name=name)
    slice_ = Slice(state.scope, hierarchies=read_hierarchies())
    return Parts(
        state=state,
        slice=slice_,
        network=Network(f"cabildo.{state.scope}"),
        processes=Processes(slice_, records=state.processes, logs=state.logs),
    )


def _resolve(settings: ClusterSettings, *, reporter: Reporter) -> dict[str, Path]:
    names = list(CONTROL_PLANE_BINARIES)
    return resolve(
        names,
        folder=settings.binaries,
        cache=settings.cache,
        checkout=settings.checkout,
        reporter=reporter,
    )


def _steps(settings: ClusterSettings) -> list[str]:
    return ["check the machine", "find the programs", "network and registry", "control plane"]


def _check_same(settings: ClusterSettings, *, before: Allotment) -> None:
    wanted = {
        "cidr": (settings.cidr or before.cidr, before.cidr),
        "api port": (settings.api_port, before.api_port),
        "registry port": (settings.registry_port, before.registry_port),
        "nodes": (max(settings.nodes, before.nodes), settings.nodes),
    }
    for field_name, (new, old) in wanted.items():
        if new != old:
            raise SettingsError(
                f"{field_name}: the cluster {settings.name} is up with {old}, not {new}",
                remedy="take it down first, or give it another --name",
            )


def _addressed(allotment: Allotment) -> tuple[str, int]:
    return allotment.cidr, allotment.api_port


def _exists(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except (LocalClusterError, OSError):
        return False
    return True
