"""The life of a local cluster with one real node, from nothing to nothing.

One cluster of its own for the whole module, in a state folder of its own. The tests run in
their order: the last ones kill it and take it down.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_local import cluster as local
from cabildo_local.api import Api, ApiError, can_connect, wait_until
from cabildo_local.cgroups import Slice
from cabildo_local.errors import NetworkError, ProcessError, SettingsError
from cabildo_local.prerequisites import read_hierarchies
from cabildo_local.provisioner import Provisioner
from cabildo_local.reporter import LineReporter
from cabildo_local.settings import ClusterSettings
from cabildo_local.state import State
from support.machine import Machine, left_behind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cabildo_local.cluster import Cluster
    from support.machine import Snapshot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may have a cluster")

FAKE_NODES = """\
pools:
- name: tpu
  resources: {google.com/tpu: "4"}
  taints: [{key: google.com/tpu, effect: NoSchedule}]
pods: {runSeconds: 0}
"""
NAME = "life"
DEFAULT = "/api/v1/namespaces/default"
CLAIMS = f"{DEFAULT}/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
REPORTER = LineReporter(sys.stderr)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSettings]:
    folder = tmp_path_factory.mktemp("life")
    (folder / "fake.yaml").write_text(FAKE_NODES)
    made = ClusterSettings(
        name=NAME, nodes=1, fake_nodes=folder / "fake.yaml", state_root=folder / "state"
    )
    yield made
    local.down(NAME, purge=True, state_root=made.state_root, reporter=REPORTER)


@pytest.fixture(scope="module")
def machine(settings: ClusterSettings) -> Machine:
    return Machine(State(settings.state_root, name=NAME))


@pytest.fixture(scope="module")
def before(machine: Machine) -> Snapshot:
    return machine.snapshot()


@pytest.fixture(scope="module")
def cluster(settings: ClusterSettings, before: Snapshot) -> Cluster:
    assert before
    return local.up(settings, reporter=REPORTER)


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Api:
    return Api(cluster.kubeconfig)


def phase(api: Api, path: str) -> str:
    return str(api.get(path)["status"].get("phase"))


def wait_for(api: Api, path: str, wanted: str) -> None:
    wait_until(lambda: phase(api, path) == wanted, what=f"{path} {wanted}", timeout_s=60)


def wait_gone(api: Api, path: str) -> None:
    def gone() -> bool:
        try:
            api.get(path)
        except ApiError as error:
            return error.status == 404
        return False

    wait_until(gone, what=f"end of {path}", timeout_s=60)


def node_ready(api: Api, node: str) -> bool:
    conditions = api.get(f"/api/v1/nodes/{node}")["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def claim(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def bound_volume(api: Api, name: str) -> str:
    wait_for(api, f"{CLAIMS}/{name}", "Bound")
    return str(api.get(f"{CLAIMS}/{name}")["spec"]["volumeName"])


def pod(image: str, *, privileged: bool = False, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": image,
        "securityContext": {
            "privileged": privileged,
            "allowPrivilegeEscalation": privileged,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 4711,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{**container, **spec.pop("container", {})}],
            **spec,
        }
    }


def pause(cluster: Cluster) -> str:
    (tag,) = json.loads(registry(cluster, "cabildo/pause/tags/list"))["tags"][-1:]
    return f"{cluster.registry}/cabildo/pause:{tag}"


def registry(cluster: Cluster, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{cluster.registry}/v2/{path}", timeout=10) as answer:
        content: bytes = answer.read()
        return content


def test_the_server_is_the_pinned_version(api: Api) -> None:
    assert api.get("/version")["gitVersion"] == "v1.34.4"
    (node,) = api.get("/api/v1/nodes?fieldSelector=metadata.name=node1")["items"]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.4"


def test_a_pod_of_any_user_runs_with_a_claim_and_a_projected_token(
    cluster: Cluster, api: Api
) -> None:
    api.request("POST", CLAIMS, body=claim("shared"))
    token = {"serviceAccountToken": {"audience": "me", "path": "token"}}
    body = pod(
        pause(cluster),
        nodeName=None,
        volumes=[
            {"name": "v", "persistentVolumeClaim": {"claimName": "shared"}},
            {"name": "t", "projected": {"sources": [token]}},
        ],
        container={
            "volumeMounts": [
                {"name": "v", "mountPath": "/v"},
                {"name": "t", "mountPath": "/t"},
            ]
        },
    )
    body["metadata"] = {"name": "user"}
    api.request("POST", f"{DEFAULT}/pods", body=body)
    wait_for(api, f"{DEFAULT}/pods/user", "Running")
    status = api.get(f"{DEFAULT}/pods/user")["status"]
    assert status["hostIP"] == api.get("/api/v1/nodes/node1")["status"]["addresses"][0]["address"]


def test_the_api_server_reaches_kubelet_for_logs(api: Api) -> None:
    # The program says nothing; what matters is that nobody refuses or looks up a name.
    assert api.request("GET", f"{DEFAULT}/pods/user/log?container=c") == {}


def test_a_claims_folder_takes_writes_of_any_user_and_goes_with_it(
    cluster: Cluster, api: Api, settings: ClusterSettings
) -> None:
    api.request("POST", CLAIMS, body=claim("passing"))
    folder = settings.folder / "volumes" / bound_volume(api, "passing")
    assert folder.stat().st_mode & 0o777 == 0o777
    (folder / "model").write_text("x")
    api.request("DELETE", f"{CLAIMS}/passing")
    wait_gone(api, f"{VOLUMES}/{folder.name}")
    wait_until(lambda: not folder.exists(), what="end of the folder", timeout_s=20)
    assert cluster.nodes == ("node1",)


def test_a_claim_that_a_folder_cannot_be_gets_an_event(api: Api, settings: ClusterSettings) -> None:
    # In this process, so that what is said is seen; the program does the same.
    body = claim("block", volumeMode="Block", storageClassName="cabildo-local")
    made = api.request("POST", CLAIMS, body=body)
    provisioner = Provisioner(api, folder=settings.folder / "volumes")
    provisioner.on_claim(made)
    events = api.get(f"{DEFAULT}/events?fieldSelector=involvedObject.name=block")["items"]
    assert any("write Filesystem" in event["message"] for event in events)
    api.request("DELETE", f"{CLAIMS}/block")


def test_volumes_are_made_once_and_removed_when_released(
    api: Api, settings: ClusterSettings
) -> None:
    provisioner = Provisioner(api, folder=settings.folder / "volumes")
    made = api.request("POST", CLAIMS, body=claim("twice", storageClassName="cabildo-local"))
    # Beside the program, which has seen the claim too: whoever is second finds it done.
    provisioner.on_claim(made)
    provisioner.on_claim(made)
    name = bound_volume(api, "twice")
    provisioner.on_volume(api.get(f"{VOLUMES}/{name}"))
    assert (settings.folder / "volumes" / f"{name}.json").exists()
    released = api.get(f"{VOLUMES}/{name}")
    released["status"]["phase"] = "Released"
    api.request("DELETE", f"{CLAIMS}/twice")
    provisioner.on_volume(released)
    wait_gone(api, f"{VOLUMES}/{name}")
    provisioner.on_volume(released)


def test_the_provisioner_follows_what_happens_and_outlives_errors(
    api: Api, settings: ClusterSettings
) -> None:
    provisioner = Provisioner(api, folder=settings.folder / "volumes")
    seen: list[str] = []

    class EnoughError(Exception):
        """Ends the endless loop."""

    def handle(claimed: dict[str, Any]) -> None:
        seen.append(claimed["metadata"]["name"])
        if seen.count("seen") == 1:
            # What could not be done is tried again from a new list.
            raise ApiError("the API server answered 500: x", status=500)
        if "watched" in seen:
            raise EnoughError

    api.request("POST", CLAIMS, body=claim("seen", storageClassName="none"))

    def follow() -> None:
        with pytest.raises(EnoughError):
            provisioner.follow(CLAIMS, handle=handle)

    follower = threading.Thread(target=follow)
    follower.start()
    wait_until(lambda: seen.count("seen") > 1, what="the second list", timeout_s=30)
    api.request("POST", CLAIMS, body=claim("watched", storageClassName="none"))
    follower.join(timeout=30)
    assert not follower.is_alive()
    for name in ("seen", "watched"):
        api.request("DELETE", f"{CLAIMS}/{name}")


def test_a_node_may_not_touch_another(api: Api, settings: ClusterSettings) -> None:
    node1 = Api(settings.folder / "configuration" / "node1.kubeconfig")
    assert node1.get("/api/v1/nodes/node1")["metadata"]["name"] == "node1"
    label = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "tpu-0", "labels": {"stolen": "yes"}},
    }
    with pytest.raises(ApiError) as refused:
        node1.apply("/api/v1/nodes/tpu-0", label)
    assert refused.value.status == 403
    with pytest.raises(ApiError) as refused:
        node1.get(f"{DEFAULT}/secrets/none")
    assert refused.value.status == 403
    assert "stolen" not in api.get("/api/v1/nodes/tpu-0")["metadata"]["labels"]


def test_pod_security_is_enforced_where_a_namespace_asks_for_it(api: Api) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": "strict", "labels": labels}}
    api.request("POST", "/api/v1/namespaces", body=body)
    path = "/api/v1/namespaces/strict/pods?dryRun=All"
    wait_until(
        lambda: bool(api.get("/api/v1/namespaces/strict/serviceaccounts")["items"]),
        what="the service account",
        timeout_s=20,
    )
    refused, allowed = pod("x", privileged=True), pod("x")
    for one in (refused, allowed):
        one["metadata"] = {"name": "p"}
    with pytest.raises(ApiError, match="violates PodSecurity"):
        api.request("POST", path, body=refused)
    api.request("POST", path, body=allowed)


def test_every_request_is_in_the_audit_log(cluster: Cluster, api: Api) -> None:
    api.get(f"{DEFAULT}/configmaps?labelSelector=marked-for-audit")

    def line() -> dict[str, Any] | None:
        for text in cluster.audit_log.read_text().splitlines():
            if "marked-for-audit" in text and text.endswith("}"):
                entry: dict[str, Any] = json.loads(text)
                return entry
        return None

    wait_until(lambda: line() is not None, what="the audit log", timeout_s=20)
    entry = line()
    assert entry is not None
    assert entry["level"] == "Metadata"
    assert entry["user"]["username"] == "cabildo-admin"
    assert entry["verb"] == "list"


def test_a_played_node_completes_a_job_for_its_accelerator(api: Api) -> None:
    template = {
        "spec": {
            "restartPolicy": "Never",
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {"name": "c", "image": "x", "resources": {"limits": {"google.com/tpu": "4"}}}
            ],
        }
    }
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    spec = {"completions": 2, "parallelism": 1, "completionMode": "Indexed", "template": template}
    api.request("POST", jobs, body={"metadata": {"name": "tpu"}, "spec": spec})
    wait_until(
        lambda: api.get(f"{jobs}/tpu")["status"].get("succeeded") == 2,
        what="the job",
        timeout_s=60,
    )


def test_a_cut_link_cuts_the_node_and_can_be_put_back(cluster: Cluster, api: Api) -> None:
    addresses = api.get("/api/v1/nodes/node1")["status"]["addresses"]
    (address,) = [one["address"] for one in addresses if one["type"] == "InternalIP"]
    processes = cluster.node_processes("node1")
    assert set(processes) == {"containerd", "kubelet", "kube-proxy"}
    cluster.cut_link("node1")
    assert not can_connect(address, port=10250)
    cluster.restore_link("node1")
    wait_until(lambda: can_connect(address, port=10250), what="kubelet", timeout_s=30)
    assert cluster.node_processes("node1") == processes
    with pytest.raises(NetworkError, match="'node9' is no node"):
        cluster.cut_link("node9")


def test_up_again_changes_nothing(cluster: Cluster, settings: ClusterSettings) -> None:
    slice_ = Slice(State(settings.state_root, name=NAME).scope, hierarchies=read_hierarchies())
    pids = slice_.pids()
    again = local.up(settings, reporter=REPORTER)
    assert again == cluster
    assert slice_.pids() == pids
    assert local.find(NAME, state_root=settings.state_root) == cluster


def test_up_with_other_ports_is_refused_while_it_is_up(
    cluster: Cluster, settings: ClusterSettings
) -> None:
    assert cluster.name == NAME
    with pytest.raises(SettingsError, match=r"api port: .*6443, not 7443.*take it down first"):
        local.up(replace(settings, api_port=7443), reporter=REPORTER)
    with pytest.raises(SettingsError, match=r"nodes: .*1, not 0"):
        local.up(replace(settings, nodes=0), reporter=REPORTER)


def test_a_program_that_ended_is_told_and_started_again(
    cluster: Cluster, settings: ClusterSettings
) -> None:
    kubelet = cluster.node_processes("node1")["kubelet"]
    os.kill(kubelet, signal.SIGKILL)
    wait_until(
        lambda: "kubelet" not in cluster.node_processes("node1"), what="its end", timeout_s=10
    )
    status = local.status(NAME, state_root=settings.state_root)
    assert status.ended == ("node1-kubelet",)
    assert status.ready
    local.up(settings, reporter=REPORTER)
    assert cluster.node_processes("node1")["kubelet"] != kubelet
    assert local.status(NAME, state_root=settings.state_root).ended == ()


def test_a_node_whose_object_was_deleted_comes_back(api: Api, settings: ClusterSettings) -> None:
    api.request("DELETE", "/api/v1/nodes/node1")
    wait_gone(api, "/api/v1/nodes/node1")
    local.up(settings, reporter=REPORTER)
    assert node_ready(api, "node1")


def test_a_cluster_whose_processes_were_all_killed_goes_on(
    cluster: Cluster, api: Api, settings: ClusterSettings
) -> None:
    api.request(
        "POST", f"{DEFAULT}/configmaps", body={"metadata": {"name": "kept"}, "data": {"a": "b"}}
    )
    # etcd writes without waiting for the disk, but what it wrote outlives its process.
    time.sleep(0.2)
    Slice(State(settings.state_root, name=NAME).scope, hierarchies=read_hierarchies()).kill()
    status = local.status(NAME, state_root=settings.state_root)
    assert (status.running, status.ready) == ((), False)
    with pytest.raises(ProcessError, match="is not up"):
        local.find(NAME, state_root=settings.state_root)
    assert local.up(settings, reporter=REPORTER) == cluster
    assert api.get(f"{DEFAULT}/configmaps/kept")["data"] == {"a": "b"}
    assert node_ready(api, "node1")


def test_down_leaves_nothing_but_images_and_retained_volumes(
    api: Api, settings: ClusterSettings, machine: Machine, before: Snapshot
) -> None:
    api.request("POST", CLAIMS, body=claim("kept"))
    name = bound_volume(api, "kept")
    policy = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    }
    api.apply(f"{VOLUMES}/{name}", policy)
    folder = settings.folder / "volumes" / name
    (folder / "model").write_text("x")
    wait_until(
        lambda: "Retain" in folder.with_name(f"{name}.json").read_text(),
        what="the policy's note",
        timeout_s=20,
    )
    retained = local.down(NAME, state_root=settings.state_root, reporter=REPORTER)
    assert retained == (folder,)
    assert (folder / "model").read_text() == "x"
    assert left_behind(before, machine.snapshot()) == {}
    kept = {path.name for path in settings.folder.iterdir()}
    assert kept == {"cluster.json", "logs", "nodes", "volumes"}
    assert [path.name for path in (settings.folder / "nodes/node1").iterdir()] == ["containerd"]
    assert local.status(NAME, state_root=settings.state_root).running == ()


def test_down_of_what_is_not_there_is_fine_and_purge_removes_the_rest(
    settings: ClusterSettings, machine: Machine, before: Snapshot
) -> None:
    local.down(NAME, state_root=settings.state_root, reporter=REPORTER)
    local.down(NAME, purge=True, state_root=settings.state_root, reporter=REPORTER)
    assert not settings.folder.exists()
    assert left_behind(before, machine.snapshot()) == {}
