"""Packages are recognised by what they bring and asked for only when something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cabildo_local import packages as module
from cabildo_local.errors import PrerequisiteError
from cabildo_local.packages import PACKAGES, Package, ensure_packages
from cabildo_local.reporter import SilentReporter

if TYPE_CHECKING:
    from pathlib import Path

MISSING = Package("cabildo-no-such-package", "cabildo-no-such-program")


def test_a_program_counts_wherever_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "cabildo-own-program"
    package = Package("own", program.name)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not package.is_there()
    program.touch(mode=0o755)
    assert package.is_there()


def test_administrators_programs_are_found_without_their_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Package("bash", "bash").is_there()


def test_a_path_may_differ_by_architecture(tmp_path: Path) -> None:
    package = Package("libc6-dev", f"{tmp_path}/*/libc.a")
    assert not package.is_there()
    (tmp_path / "x86_64-linux-gnu").mkdir()
    (tmp_path / "x86_64-linux-gnu" / "libc.a").touch()
    assert package.is_there()


def test_nothing_happens_when_all_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "POLICY", tmp_path / "policy")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("ran something"))
    ensure_packages(reporter=SilentReporter(), packages=[Package("sh", "sh")], cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_apt_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "SEARCH_PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match=r"cabildo-no-such-program; and .*no apt-get"):
        ensure_packages(reporter=SilentReporter(), packages=[MISSING], cache=tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which root may")
def test_without_root_it_says_what_root_should_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from cabildo_local.packages import Package, ensure_packages
from cabildo_local.reporter import SilentReporter
from cabildo_local.errors import PrerequisiteError
os.setuid(65534)
try:
    ensure_packages(reporter=SilentReporter(), packages=[Package("nmap", "no-such-program")])
except PrerequisiteError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "only root can install them: nmap" in done.stdout
    assert "apt-get update && apt-get install nmap" in done.stdout


def test_a_services_start_is_forbidden_while_installing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(module, "POLICY", policy)
    with module._services_left_alone():
        answer = subprocess.run([policy, "docker-registry", "start"], check=False).returncode
    # 101: "action forbidden by policy".
    assert answer == 101
    assert not policy.exists()


def test_what_a_killed_installation_left_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(module.POLICY_TEXT)
    monkeypatch.setattr(module, "POLICY", policy)
    with module._services_left_alone():
        assert policy.exists()
    assert not policy.exists()


def test_the_administrators_own_policy_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    monkeypatch.setattr(module, "POLICY", policy)
    with module._services_left_alone():
        pass
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_what_was_installed_does_not_start_at_the_next_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = tmp_path / "multi-user.target.wants"
    wanted.mkdir()
    for service in ("cabildo-test-a.service", "cabildo-test-b.service"):
        (wanted / service).symlink_to("/nowhere")
    monkeypatch.setattr(module, "UNITS", tmp_path)
    module._disable(["cabildo-test-a.service"])
    assert [path.name for path in wanted.iterdir()] == ["cabildo-test-b.service"]


def test_services_that_would_start_are_known() -> None:
    services = {package.service for package in PACKAGES if package.service}
    assert services == {"containerd.service", "docker-registry.service"}
