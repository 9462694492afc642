"""Bringing a local cluster up and down, and saying how it is: the front door.

    up      check -> binaries -> clear leftovers -> network, registry -> control plane
            -> add-ons -> nodes -> ready
    down    end processes -> unmount -> remove namespaces, links, groups -> forget

Both are safe to repeat and to kill at any point: every step looks at what is there, and
what is there is told by control group, namespace name and folder, never by memory. Never
here: how a step is done (the module of its name).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cabildo_local import kernel_settings, leftovers
from cabildo_local.addresses import Addresses
from cabildo_local.api import Api
from cabildo_local.binaries import resolve
from cabildo_local.cgroups import Slice
from cabildo_local.control_plane import ControlPlane
from cabildo_local.errors import ProcessError, SettingsError
from cabildo_local.fake_nodes import read_fake_nodes
from cabildo_local.handle import Cluster, Status
from cabildo_local.network import CONTROL_PLANE_MEMBER, Network
from cabildo_local.node import Node
from cabildo_local.packages import ensure_packages
from cabildo_local.pause import pause_image
from cabildo_local.prerequisites import check_machine, check_root, read_hierarchies
from cabildo_local.processes import Processes
from cabildo_local.provisioner import remove_unretained
from cabildo_local.settings import check_name, default_state_root
from cabildo_local.state import State
from cabildo_local.steps import (
    Parts,
    ensure_control_plane,
    ensure_dns,
    ensure_fake_nodes,
    ensure_network,
    ensure_nodes,
    ensure_registry,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.fake_nodes import FakeNodes
    from cabildo_local.reporter import Reporter
    from cabildo_local.settings import ClusterSettings
    from cabildo_local.state import Allotment

__all__ = ["Cluster", "Status", "down", "find", "status", "up"]

CONTROL_PLANE_BINARIES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
NODE_BINARIES = ("kubelet", "kube-proxy", "coredns")
FAKE_NODE_BINARIES = ("kwok",)


def up(settings: ClusterSettings, *, reporter: Reporter) -> Cluster:
    """Bring a cluster up, or complete one that is partly there.

    Raises:
        LocalClusterError: It cannot be brought up; message and remedy say why.
    """
    reporter.plan(_steps(settings))
    fake = read_fake_nodes(settings.fake_nodes) if settings.fake_nodes else None
    with reporter.step("check the machine"):
        # Before anything is installed on a machine that will not do.
        check_machine(settings)
        ensure_packages(reporter=reporter)
    with reporter.step("find the programs"):
        binaries = _resolve(settings, reporter=reporter)
    parts = _parts(settings.state_root, name=settings.name)
    with parts.state.lock(reporter=reporter):
        return _up_locked(settings, fake=fake, parts=parts, binaries=binaries, reporter=reporter)


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
            kernel_settings.restore()
        with reporter.step("remove the state"):
            if purge:
                parts.state.purge()
                return ()
            parts.state.forget_life()
            retained = remove_unretained(parts.state.volumes, on_remove=reporter.note)
            return tuple(parts.state.volumes / volume for volume in retained)


def find(name: str, *, state_root: Path | None = None) -> Cluster:
    """Return a cluster that is up, without changing anything.

    Raises:
        ProcessError: It is not up.
        LocalClusterError: The name cannot be one.
    """
    check_root()
    check_name(name)
    parts = _parts(state_root or default_state_root(), name=name)
    allotment = parts.state.allotment()
    if allotment is None or not parts.processes.is_running("kube-apiserver"):
        raise ProcessError(
            f"the cluster {name} is not up", remedy=f"run `cabildo cluster up --name {name}`"
        )
    return _cluster(parts, allotment=allotment)


def status(name: str, *, state_root: Path | None = None) -> Status:
    """Say how a cluster is; changes nothing.

    Raises:
        LocalClusterError: The name cannot be one.
    """
    check_root()
    check_name(name)
    parts = _parts(state_root or default_state_root(), name=name)
    allotment = parts.state.allotment()
    names = parts.processes.names()
    running = tuple(name for name in names if parts.processes.is_running(name))
    kubeconfig = parts.state.kubeconfig
    return Status(
        name=name,
        running=running,
        ended=tuple(name for name in names if name not in running),
        allotment=allotment,
        ready=kubeconfig.exists() and Api(kubeconfig).is_ready(),
        kubeconfig=kubeconfig,
        registry=_registry(allotment) if allotment else "",
    )


def _up_locked(
    settings: ClusterSettings,
    *,
    fake: FakeNodes | None,
    parts: Parts,
    binaries: dict[str, Path],
    reporter: Reporter,
) -> Cluster:
    state = parts.state
    before = state.allotment()
    alive = (
        before is not None
        and bool(parts.slice.pids())
        and parts.network.intact(
            nodes=sum(name.endswith("-containerd") for name in parts.processes.names())
        )
    )
    if alive and before is not None:
        _check_same(settings, before=before)
    elif leftovers.found(state, slice_=parts.slice, network=parts.network):
        with reporter.step("clear what a killed cluster left"):
            leftovers.clear(state, slice_=parts.slice, network=parts.network)
    state.create()
    with reporter.step("network and registry"):
        allotment = ensure_network(settings, parts=parts, alive=alive, reporter=reporter)
        addresses = Addresses(allotment.cidr)
        ensure_registry(settings, parts=parts, addresses=addresses)
    with reporter.step("control plane"):
        control_plane = ControlPlane(
            state=state,
            addresses=addresses,
            api_port=settings.api_port,
            binaries=binaries,
            namespace=parts.network.namespace(CONTROL_PLANE_MEMBER),
        )
        api = ensure_control_plane(control_plane, parts=parts)
    cluster = _cluster(parts, allotment=allotment)
    if settings.nodes:
        with reporter.step("nodes"):
            kernel_settings.save()
            kernel_settings.raise_limits()
            ensure_dns(control_plane, parts=parts, binaries=binaries, api=api)
            nodes = _nodes(
                cluster,
                settings=settings,
                control_plane=control_plane,
                parts=parts,
                reporter=reporter,
            )
            ensure_nodes(nodes, parts=parts, binaries=binaries, api=api)
    if fake is not None:
        with reporter.step("played nodes"):
            ensure_fake_nodes(
                fake, control_plane=control_plane, parts=parts, binaries=binaries, api=api
            )
    return cluster


def _nodes(
    cluster: Cluster,
    *,
    settings: ClusterSettings,
    control_plane: ControlPlane,
    parts: Parts,
    reporter: Reporter,
) -> list[Node]:
    pause = pause_image(
        registry=cluster.registry,
        cache=settings.cache,
        checkout=settings.checkout,
        reporter=reporter,
    )
    return [
        Node(
            number=number,
            control_plane=control_plane,
            namespace=parts.network.namespace(f"node{number}"),
            slice_path=parts.slice.path,
            registry=cluster.registry,
            sandbox_image=str(pause),
        )
        for number in range(1, settings.nodes + 1)
    ]


def _cluster(parts: Parts, *, allotment: Allotment) -> Cluster:
    return Cluster(
        name=parts.state.name,
        kubeconfig=parts.state.kubeconfig,
        registry=_registry(allotment),
        audit_log=parts.state.audit_log,
        nodes=tuple(f"node{number}" for number in range(1, allotment.nodes + 1)),
        logs=parts.state.logs,
        parts=parts,
    )


def _registry(allotment: Allotment) -> str:
    return f"{Addresses(allotment.cidr).control_plane}:{allotment.registry_port}"


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
    names = [*CONTROL_PLANE_BINARIES, *(NODE_BINARIES if settings.nodes else ())]
    names += FAKE_NODE_BINARIES if settings.fake_nodes else ()
    return resolve(
        names,
        folder=settings.binaries,
        cache=settings.cache,
        checkout=settings.checkout,
        reporter=reporter,
    )


def _steps(settings: ClusterSettings) -> list[str]:
    steps = ["check the machine", "find the programs", "network and registry", "control plane"]
    steps += ["nodes"] if settings.nodes else []
    return [*steps, "played nodes"] if settings.fake_nodes else steps


def _check_same(settings: ClusterSettings, *, before: Allotment) -> None:
    wanted = {
        "cidr": (settings.cidr or before.cidr, before.cidr),
        "api port": (settings.api_port, before.api_port),
        "registry port": (settings.registry_port, before.registry_port),
        # More nodes are added to it; fewer would mean ending pods.
        "nodes": (settings.nodes, max(settings.nodes, before.nodes)),
    }
    for field_name, (new, old) in wanted.items():
        if new != old:
            raise SettingsError(
                f"{field_name}: the cluster {settings.name} is up with {old}, not {new}",
                remedy="take it down first, or give it another --name",
            )
