"""The upstream projects that the cluster's programs come from: one row each.

Here: versions, where the official release lies, and how the same is built from its Go
module. Never here: fetching or building (binaries.py, downloads.py, go_build.py). To move
to another version, change the row and its module below `local_cluster/tools/` together; a
test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from cabildo_local.errors import BinaryError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What `uname -m` says, and what release files are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Where an official release file lies; `{version}`, `{arch}` and `{name}` are filled in.

    Attributes:
        site: Host of the release site.
        path: Path of the file there.
        checksums: Path of the file with its SHA-256, alone or in `sha256sum`'s format.
        member: Path inside the archive; None where the file is the binary itself.
    """

    site: str
    path: str
    checksums: str
    member: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One project, its pinned version and its module below `local_cluster/tools/`.

    Attributes:
        name: The module's folder.
        version: As the project writes it, without the `v`.
        module: Path of the Go module that `version` is a version of.
        packages: Go package of each binary; `.` where the main is ours.
        stamps: Go variables that hold the version where the source does not, with the value.
        release: The official build; None where no checksum is published with it.
        build_minutes: What a first build takes on two cores, for those who wait.
    """

    name: str
    version: str
    module: str
    packages: dict[str, str]
    stamps: dict[str, str]
    release: Release | None
    build_minutes: float


KUBERNETES_COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)


def upstreams() -> tuple[Upstream, ...]:
    """Return every project, in the order in which they are looked for."""
    return (_kubernetes(), _etcd(), _coredns(), _kwok(), _helm())


def upstream_of(binary: str) -> Upstream:
    """Return the project that a binary belongs to.

    Raises:
        BinaryError: No project has it.
    """
    for upstream in upstreams():
        if binary in upstream.packages:
            return upstream
    known = ", ".join(name for upstream in upstreams() for name in upstream.packages)
    raise BinaryError(f"{binary}: no such binary", remedy=f"Known ones: {known}")


def _kubernetes() -> Upstream:
    version = "1.34.4"
    major, minor, _ = version.split(".")
    # Without stamps the server calls itself v0.0.0 and clients complain.
    stamps = {
        f"{package}.{variable}": value
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable, value in (
            ("gitVersion", f"v{version}"),
            ("gitMajor", major),
            ("gitMinor", minor),
        )
    }
    return Upstream(
        name="kubernetes",
        version=version,
        module="k8s.io/kubernetes",
        packages={name: f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES_COMMANDS},
        stamps=stamps,
        release=Release(
            site="dl.k8s.io",
            path="release/v{version}/bin/linux/{arch}/{name}",
            checksums="release/v{version}/bin/linux/{arch}/{name}.sha256",
        ),
        build_minutes=8,
    )


def _etcd() -> Upstream:
    return Upstream(
        name="etcd",
        version="3.6.16",
        module="go.etcd.io/etcd/server/v3",
        packages={"etcd": "."},
        stamps={},
        release=Release(
            site="github.com",
            path="etcd-io/etcd/releases/download/v{version}/etcd-v{version}-linux-{arch}.tar.gz",
            checksums="etcd-io/etcd/releases/download/v{version}/SHA256SUMS",
            member="etcd-v{version}-linux-{arch}/etcd",
        ),
        build_minutes=1.5,
    )


def _coredns() -> Upstream:
    archive = "coredns/coredns/releases/download/v{version}/coredns_{version}_linux_{arch}.tgz"
    return Upstream(
        name="coredns",
        version="1.14.7",
        module="github.com/coredns/coredns",
        packages={"coredns": "."},
        stamps={},
        release=Release(
            site="github.com", path=archive, checksums=archive + ".sha256", member="coredns"
        ),
        build_minutes=2.5,
    )


def _kwok() -> Upstream:
    return Upstream(
        name="kwok",
        version="0.7.0",
        module="sigs.k8s.io/kwok",
        packages={"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
        stamps={"sigs.k8s.io/kwok/pkg/consts.Version": "v0.7.0"},
        # Its releases come without checksums: an unchecked program is not run.
        release=None,
        build_minutes=3.5,
    )


def _helm() -> Upstream:
    version = "3.22.0"
    major, minor, _ = _kubernetes().version.split(".")
    archive = "helm-v{version}-linux-{arch}.tar.gz"
    return Upstream(
        name="helm",
        version=version,
        module="helm.sh/helm/v3",
        packages={"helm": "helm.sh/helm/v3/cmd/helm"},
        # The second pair is what `helm template` takes for the cluster's version.
        stamps={
            "helm.sh/helm/v3/internal/version.version": f"v{version}",
            **{
                f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}": number
                for package in ("lint/rules", "chartutil")
                for part, number in (("Major", major), ("Minor", minor))
            },
        },
        release=Release(
            site="get.helm.sh",
            path=archive,
            checksums=archive + ".sha256sum",
            member="linux-{arch}/helm",
        ),
        build_minutes=3.5,
    )
