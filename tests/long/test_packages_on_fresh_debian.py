"""A Debian 12 that has only Python gets every package that a local cluster needs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import cabildo_local
from cabildo_local.packages import PACKAGES

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes a Debian, which root may")

INSTALL = """\
import sys
from cabildo_local.packages import ensure_packages
from cabildo_local.reporter import LineReporter
for _ in range(2):
    ensure_packages(reporter=LineReporter(sys.stdout))
"""


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    root = tmp_path / "debian"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3", "bookworm", str(root)],
        check=True,
    )
    (root / "etc/resolv.conf").write_text(Path("/etc/resolv.conf").read_text())
    source = Path(cabildo_local.__file__).parent
    subprocess.run(["cp", "-r", str(source), str(root / "opt")], check=True)
    return root


def test_one_step_installs_everything_and_starts_nothing(debian: Path) -> None:
    done = subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("chroot", str(debian), "sh", "-c", 'mount -t proc proc /proc && exec "$@"', "sh"),
            *("env", "PYTHONPATH=/opt", "HOME=/root", "python3", "-c", INSTALL),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # The second call found all there and did nothing.
    assert done.stdout.count("install Debian packages: buildah") == 2
    for package in PACKAGES:
        brings = package.brings.lstrip("/")
        found = (
            list(debian.glob(brings))
            if package.brings.startswith("/")
            else [
                debian / folder / brings
                for folder in ("usr/sbin", "usr/bin", "sbin", "bin")
                if (debian / folder / brings).is_symlink() or (debian / folder / brings).exists()
            ]
        )
        assert found, package.name
    assert not (debian / "usr/sbin/policy-rc.d").exists()
    wanted_at_boot = debian / "etc/systemd/system/multi-user.target.wants"
    assert not {"docker-registry.service", "containerd.service"} & {
        path.name for path in wanted_at_boot.glob("*")
    }
