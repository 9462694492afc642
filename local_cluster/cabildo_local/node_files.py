"""What a node's configuration files say: pure functions, one for each file.

Every value that differs from the programs' defaults is here, with its reason. Never here:
writing the files or knowing where they lie (node.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CNI_PLUGINS = "/usr/lib/cni"
# The node's heartbeat is renewed every quarter of it, well within the controller's patience.
LEASE_S = 10


def containerd_configuration(
    *, root: Path, runtime: Path, socket: Path, configuration: Path, sandbox_image: str
) -> str:
    """Return containerd's configuration.

    Args:
        root: Images and snapshots, kept between lives of the cluster.
        runtime: Sockets and mounts.
        socket: Where it listens.
        configuration: Folder with the CNI configuration and the registries.
        sandbox_image: Image of the container that holds a pod's namespaces.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{root}"
state = "{runtime}/containerd"
# Else they probe for file systems that are not there and complain.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{socket}"

[debug]
  level = "warn"

[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"

[{cri}]
  sandbox_image = "{sandbox_image}"
  # Without CAP_SYS_RESOURCE a process may not lower its oom_score_adj, and every pod dies.
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  tolerate_missing_hugetlb_controller = true

  [{cri}.containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    # The registry has the compressed layers already.
    discard_unpacked_layers = true

    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [{cri}.containerd.runtimes.runc.options]
        Root = "{runtime}/runc"
        SystemdCgroup = false

  [{cri}.cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{configuration}/cni"

  [{cri}.registry]
    config_path = "{configuration}/registries"
"""


def registry_hosts(registry: str) -> str:
    """Return the file that lets containerd use plain HTTP for a registry."""
    return f"""\
server = "http://{registry}"

[host."http://{registry}"]
  capabilities = ["pull", "resolve"]
"""


def cni_configuration(*, name: str, subnet: str, leases: Path) -> dict[str, Any]:
    """Return how pods are linked: to a bridge of the node, with addresses of its subnet.

    Args:
        name: Of the network; unique on this machine, as CNI caches results by it.
        subnet: The node's range.
        leases: Folder for addresses in use.
    """
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        # Between nodes pods see each other's own address; the node masks the rest.
        "ipMasq": False,
        # A pod may reach itself through its Service.
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": subnet}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(leases),
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": name, "plugins": [bridge, ports]}


def kubelet_configuration(
    *,
    authority: Path,
    certificate: Path,
    key: Path,
    cgroup: str,
    socket: Path,
    dns: str,
    logs: Path,
    plugins: Path,
) -> dict[str, Any]:
    """Return kubelet's configuration.

    Args:
        authority: The cluster's CA.
        certificate: Serving certificate.
        key: Its key.
        cgroup: Control group below which the pods' are.
        socket: Where containerd listens.
        dns: Address of the cluster's DNS.
        logs: Folder for the containers' output.
        plugins: Folder for volume plugins, which nobody has here.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [dns],
        # Nothing outside the cluster can be reached, so nothing outside is looked up.
        "resolvConf": "",
        "containerRuntimeEndpoint": f"unix://{socket}",
        "podLogsDir": str(logs),
        "volumePluginDir": str(plugins),
        "nodeLeaseDurationSeconds": LEASE_S,
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": False,
        # kubelet may not lower its own without CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        # The disk is shared with everything else on this machine: a well filled one must
        # not cost the node its pods and images.
        "evictionHard": {
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def proxy_configuration(*, kubeconfig: Path, node: str, pods: str) -> dict[str, Any]:
    """Return kube-proxy's configuration.

    Args:
        kubeconfig: Its access to the API server.
        node: The node's name.
        pods: Range of all pods, whose traffic is not masked.
    """
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "mode": "iptables",
        "clusterCIDR": pods,
        "hostnameOverride": node,
        "oomScoreAdj": 0,
        # These settings of the kernel belong to the machine and are not ours to write.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
