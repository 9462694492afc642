"""The Debian packages that a local cluster runs on, installed where they are missing.

Here: which programs are needed, which package has each, and one idempotent step that
installs what is not there, without starting anybody's services. Never here: the programs
that come with the cluster (binaries.py) or whether the machine can run one at all
(prerequisites.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.errors import PrerequisiteError
from cabildo_local.file_lock import file_lock
from cabildo_local.settings import default_cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cabildo_local.reporter import Reporter

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Written by `cabildo cluster` while it installs packages.\nexit 101\n"

UNITS = Path("/etc/systemd/system")

OUTPUT_LINES = 15


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package, recognised by what it brings.

    Attributes:
        name: What apt calls it.
        brings: A program, or an absolute path that may hold a `*`.
        service: The unit that its installation would start.
    """

    name: str
    brings: str
    service: str | None = None

    def is_there(self) -> bool:
        """Tell whether what it brings is there, from this package or another one.

        The machine may have containerd from Docker's packages: Debian's would fight it.
        """
        if not self.brings.startswith("/"):
            path = f"{os.environ.get('PATH', '')}:{SEARCH_PATH}"
            return shutil.which(self.brings, path=path) is not None
        return any(Path("/").glob(self.brings.lstrip("/")))


PACKAGES = (
    Package("buildah", "buildah"),
    Package("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    Package("conntrack", "conntrack"),
    Package("containerd", "containerd", service="containerd.service"),
    Package("containernetworking-plugins", "/usr/lib/cni/host-local"),
    Package("docker-registry", "docker-registry", service="docker-registry.service"),
    Package("ethtool", "ethtool"),
    Package("gcc", "gcc"),
    Package("iproute2", "ip"),
    Package("iptables", "iptables"),
    Package("libc6-dev", "/usr/lib/*/libc.a"),
    Package("mmdebstrap", "mmdebstrap"),
    Package("mount", "mount"),
    # containerd unpacks layers with it when it is there, in less than half its own time.
    Package("pigz", "unpigz"),
    Package("runc", "runc"),
    Package("skopeo", "skopeo"),
    Package("socat", "socat"),
    Package("util-linux", "setpriv"),
)


def ensure_packages(
    *,
    reporter: Reporter,
    packages: Sequence[Package] = PACKAGES,
    cache: Path | None = None,
) -> None:
    """Install what is missing; a few file look-ups when nothing is.

    Args:
        reporter: Hears what is installed.
        packages: What must be there.
        cache: Where the lock lies that keeps two installations apart; the environment's
            folder if None.

    Raises:
        PrerequisiteError: Something is missing and cannot be installed here.
    """
    missing = [package for package in packages if not package.is_there()]
    if not missing:
        return
    names = " ".join(package.name for package in missing)
    by_hand = f"Run as root: apt-get update && apt-get install {names}"
    if shutil.which("apt-get", path=SEARCH_PATH) is None:
        brought = ", ".join(package.brings for package in missing)
        raise PrerequisiteError(
            f"not installed: {brought}; and there is no apt-get to install them with",
            remedy=f"Install what your distribution has in place of Debian's {names}",
        )
    if os.geteuid() != 0:
        raise PrerequisiteError(
            f"packages are missing and only root can install them: {names}", remedy=by_hand
        )
    with (
        reporter.step(f"install Debian packages: {names}"),
        file_lock(
            (cache or default_cache()) / "packages.lock",
            waiting_for="it installs packages",
            reporter=reporter,
        ),
        _services_left_alone(),
    ):
        _apt(["update"], remedy=by_hand)
        _apt(
            ["install", "--yes", "--no-install-recommends", *(p.name for p in missing)],
            remedy=by_hand,
        )
        _disable([package.service for package in missing if package.service])
    if still := [package.name for package in missing if not package.is_there()]:
        raise PrerequisiteError(f"apt-get installed {' '.join(still)}, yet its files are not there")


@contextmanager
def _services_left_alone() -> Iterator[None]:
    """Keep Debian's scripts from starting what they install, while the context lasts."""
    if POLICY.exists() and POLICY.read_text() != POLICY_TEXT:
        # The administrator's own rule, in images often "never": it stays.
        yield
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _disable(services: Sequence[str]) -> None:
    """Keep what was just installed from starting at the next boot, and stop it now.

    What `systemctl disable` does, also where there is no systemd yet.
    """
    for service in services:
        for wanted in UNITS.glob("*.wants"):
            (wanted / service).unlink(missing_ok=True)
    if services and Path("/run/systemd/system").is_dir():
        subprocess.run(
            ["systemctl", "stop", *services],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )


def _apt(argv: Sequence[str], *, remedy: str) -> None:
    done = subprocess.run(
        ["apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300", *argv],
        env={
            **os.environ,
            "DEBIAN_FRONTEND": "noninteractive",
            "PATH": f"{os.environ.get('PATH', '')}:{SEARCH_PATH}",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-OUTPUT_LINES:])
        raise PrerequisiteError(f"apt-get {argv[0]} failed:\n{tail}", remedy=remedy)
