"""What the cluster's programs are told: the lines and files that a cluster stands on."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cabildo_local import addons
from cabildo_local.addresses import Addresses
from cabildo_local.control_plane import ControlPlane
from cabildo_local.fake_nodes import FakeNodes
from cabildo_local.node import Node
from cabildo_local.processes import Program
from cabildo_local.registry import registry_program
from cabildo_local.state import State

BINARIES = {
    name: Path("/bin", name)
    for name in (
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "coredns",
        "kwok",
    )
}


@pytest.fixture
def control_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    state = State(tmp_path / "state", name="demo")
    # The real one is below /run and for root alone.
    monkeypatch.setattr(state, "runtime", tmp_path / "run" / state.scope)
    state.create()
    made = ControlPlane(
        state=state,
        addresses=Addresses("10.201.0.0/16"),
        api_port=7443,
        binaries=BINARIES,
        namespace="cabildo.demo.control-plane",
    )
    made.write_files()
    return made


@pytest.fixture
def node(control_plane: ControlPlane) -> Node:
    made = Node(
        number=2,
        control_plane=control_plane,
        namespace="cabildo.demo.node2",
        slice_path="/cabildo.demo",
        registry="10.201.0.2:5000",
        sandbox_image="10.201.0.2:5000/cabildo/pause:1",
    )
    made.write_files()
    return made


def flags(program: Program) -> dict[str, str]:
    return dict(flag.removeprefix("--").partition("=")[::2] for flag in program.argv[1:])


def test_the_api_server_has_every_check_switched_on(control_plane: ControlPlane) -> None:
    told = flags(control_plane.api_server())
    assert told["authorization-mode"] == "Node,RBAC"
    assert told["enable-admission-plugins"] == "NodeRestriction,PodSecurity"
    assert told["audit-log-format"] == "json"
    assert told["audit-log-path"] == str(control_plane.state.audit_log)
    assert told["service-cluster-ip-range"] == "10.201.16.0/20"
    assert told["secure-port"] == "7443"
    for name in ("client-ca-file", "tls-cert-file", "service-account-signing-key-file"):
        assert Path(told[name]).is_file(), name
    policy = yaml.safe_load(Path(told["audit-policy-file"]).read_text())
    assert policy["rules"][-1] == {"level": "Metadata"}


def test_a_lost_node_is_noticed_within_seconds(control_plane: ControlPlane, node: Node) -> None:
    told = flags(control_plane.controller_manager())
    assert told["node-monitor-grace-period"] == "12s"
    assert told["node-monitor-period"] == "2s"
    configuration = yaml.safe_load(Path(flags(node.kubelet(BINARIES))["config"]).read_text())
    # Four heartbeats fit into the controller's patience.
    assert configuration["nodeLeaseDurationSeconds"] / 4 * 4 <= 12


def test_every_kubeconfig_that_is_named_is_there(control_plane: ControlPlane, node: Node) -> None:
    programs = [
        control_plane.controller_manager(),
        control_plane.scheduler(),
        node.kubelet(BINARIES),
    ]
    for program in programs:
        for name, value in flags(program).items():
            if "kubeconfig" in name or name == "config":
                assert Path(value).is_file(), (program.name, name)
    scheduler = yaml.safe_load(Path(flags(programs[1])["config"]).read_text())
    assert Path(scheduler["clientConnection"]["kubeconfig"]).is_file()
    admin = yaml.safe_load(control_plane.state.kubeconfig.read_text())
    assert admin["clusters"][0]["cluster"]["server"] == "https://10.201.0.2:7443"


def test_writing_the_files_again_changes_nothing(control_plane: ControlPlane, node: Node) -> None:
    def snapshot() -> dict[Path, int]:
        files = [path for path in control_plane.state.folder.rglob("*") if path.is_file()]
        return {path: path.stat().st_mtime_ns for path in files}

    programs = [node.containerd(), node.kubelet(BINARIES), node.kube_proxy(BINARIES)]
    before = snapshot()
    control_plane.write_files()
    node.write_files()
    again = [node.containerd(), node.kubelet(BINARIES), node.kube_proxy(BINARIES)]
    assert snapshot() == before
    assert [program.digest() for program in again] == [program.digest() for program in programs]


def test_a_program_is_another_one_when_anything_that_it_reads_differs() -> None:
    program = Program("a", ("/bin/a", "--x"), namespace="n", depends_on="file")
    others = [
        replace(program, argv=("/bin/a",)),
        replace(program, namespace="m"),
        replace(program, depends_on="changed"),
        replace(program, environment={"A": "1"}),
    ]
    assert program.digest() not in {other.digest() for other in others}
    assert program.digest() == replace(program).digest()


def test_containerd_works_where_root_is_not_allowed_everything(node: Node) -> None:
    configuration = tomllib.loads(Path(node.containerd().argv[-1]).read_text())
    cri = configuration["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == "10.201.0.2:5000/cabildo/pause:1"
    assert cri["containerd"]["discard_unpacked_layers"] is True
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False
    assert configuration["root"] == str(node.folder / "containerd")
    assert configuration["grpc"]["address"] == str(node.socket)
    for registry in ("10.201.0.2:5000", "registry.cabildo.local:5000"):
        hosts = Path(cri["registry"]["config_path"], registry, "hosts.toml")
        assert tomllib.loads(hosts.read_text())["server"] == "http://10.201.0.2:5000"


def test_pods_of_a_node_get_addresses_of_its_own_range(node: Node) -> None:
    configuration = tomllib.loads(Path(node.containerd().argv[-1]).read_text())
    folder = Path(configuration["plugins"]["io.containerd.grpc.v1.cri"]["cni"]["conf_dir"])
    (file,) = folder.iterdir()
    network = json.loads(file.read_text())
    assert network["name"].endswith(".node2")
    bridge = network["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.201.130.0/24"}]]
    assert bridge["ipMasq"] is False


def test_kubelet_never_evicts_for_a_full_disk(node: Node) -> None:
    told = flags(node.kubelet(BINARIES))
    configuration = yaml.safe_load(Path(told["config"]).read_text())
    disk = {k: v for k, v in configuration["evictionHard"].items() if "fs." in k}
    assert set(disk.values()) == {"0%"}
    assert len(disk) == 4
    assert configuration["imageGCHighThresholdPercent"] == 100
    assert configuration["cgroupRoot"] == "/cabildo.demo/node2"
    assert configuration["failCgroupV1"] is False
    assert configuration["authentication"]["anonymous"] == {"enabled": False}
    assert told["node-ip"] == "10.201.0.12"


def test_kube_proxy_leaves_the_machines_settings_alone(node: Node) -> None:
    told = flags(node.kube_proxy(BINARIES))
    configuration = yaml.safe_load(Path(told["config"]).read_text())
    assert configuration["conntrack"]["maxPerCore"] == 0
    assert configuration["conntrack"]["tcpEstablishedTimeout"] == "0s"
    assert configuration["mode"] == "iptables"


def test_the_registry_keeps_images_in_the_shared_cache(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    program = registry_program(
        control_plane.state,
        cache=tmp_path / "cache",
        address="10.201.0.2",
        port=5001,
        namespace="n",
    )
    configuration = yaml.safe_load(Path(program.argv[-1]).read_text())
    assert configuration["http"]["addr"] == "10.201.0.2:5001"
    storage = configuration["storage"]
    assert storage["filesystem"]["rootdirectory"] == str(tmp_path / "cache" / "registry")
    assert storage["delete"] == {"enabled": True}


def test_dns_answers_for_the_cluster_and_nothing_else(control_plane: ControlPlane) -> None:
    program = addons.dns_program(control_plane, binaries=BINARIES)
    text = Path(program.argv[-1]).read_text()
    assert "bind 10.201.0.2" in text
    assert "kubernetes cluster.local" in text
    assert "forward" not in text
    assert "rcode NXDOMAIN" in text
    service = dict(addons.dns_objects(control_plane.addresses))[
        "/api/v1/namespaces/kube-system/services/kube-dns"
    ]
    assert service["spec"]["clusterIP"] == "10.201.16.10"
    assert "selector" not in service["spec"]


def test_kwok_plays_only_nodes_that_say_so(control_plane: ControlPlane) -> None:
    program = addons.kwok_program(control_plane, fake=FakeNodes(pools=()), binaries=BINARIES)
    told = flags(program)
    assert told["manage-all-nodes"] == "false"
    assert told["manage-nodes-with-annotation-selector"] == "kwok.x-k8s.io/node=fake"


def test_the_storage_program_finds_this_package(control_plane: ControlPlane) -> None:
    program = addons.storage_program(control_plane.state)
    assert Path(program.environment["PYTHONPATH"], "cabildo_local", "provisioner.py").is_file()
    assert program.argv[-1] == str(control_plane.state.volumes)
