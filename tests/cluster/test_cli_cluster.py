"""`cabildo cluster up | status | down`, as typed, on a control plane of its own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cabildo_cli.__main__ import main
from cabildo_local import settings as settings_module
from cabildo_local.api import Api
from cabildo_local.state import State
from support.machine import Machine, left_behind

NAME = "typed"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may have a cluster")


@pytest.fixture(autouse=True)
def state_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CABILDO_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cluster", *arguments])


@needs_root
def test_up_status_and_down_as_typed(state_root: Path) -> None:
    machine = Machine(State(state_root, name=NAME))
    before = machine.snapshot()
    try:
        assert typed("status", "--name", NAME).stdout == f"{NAME}: down\n"
        up = typed("up", "--name", NAME, "--nodes", "0", "--api-port", "7443")
        assert up.exit_code == 0, up.output
        kubeconfig = state_root / NAME / "kubeconfig"
        # The last line of standard output is for the shell: `eval $(cabildo cluster up)`.
        assert up.stdout == f"export KUBECONFIG={kubeconfig}\n"
        assert "(4/4) control plane ..." in up.stderr
        assert Api(kubeconfig).is_ready()
        status = typed("status", "--name", NAME)
        assert status.exit_code == 0
        assert f"{NAME}: ready" in status.stdout
        assert "kube-scheduler" in status.stdout
        assert not shutil.which("kubectl") or "7443" in kubeconfig.read_text()
    finally:
        down = typed("down", "--name", NAME, "--purge")
    assert down.exit_code == 0, down.output
    assert left_behind(before, machine.snapshot()) == {}
    status = typed("status", "--name", NAME)
    assert (status.exit_code, status.stdout) == (1, f"{NAME}: down\n")


@needs_root
def test_a_mistake_is_said_without_a_traceback() -> None:
    for arguments, words in {
        ("up", "--name", "No Name"): "name: 'No Name' is no DNS label",
        ("up", "--nodes", "1000"): "nodes: 1000 is not between 0 and 60",
        ("up", "--cidr", "10.0.0.0/24"): "cidr: 10.0.0.0/24 is too small",
        ("down", "--name", "../x"): "name: '../x'",
        ("status", "--name", ""): "name: ''",
    }.items():
        result = typed(*arguments)
        assert result.exit_code == 1, arguments
        assert words in result.stderr
        assert "Traceback" not in result.output


@needs_root
def test_a_wanted_range_that_is_taken_is_refused_before_anything_starts(state_root: Path) -> None:
    # Every machine has a route for its own loopback addresses.
    result = typed("up", "--name", NAME, "--nodes", "0", "--cidr", "127.0.0.0/8")
    assert result.exit_code == 1
    assert "127.0.0.0/8 overlaps" in result.stderr
    assert not list(Path("/run/netns").glob(f"cabildo.{State(state_root, name=NAME).scope}.*"))
    assert typed("down", "--name", NAME, "--purge").exit_code == 0


def test_others_than_root_are_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for arguments in (("up",), ("down",), ("status",)):
        result = typed(*arguments)
        assert result.exit_code == 1
        assert "needs root" in result.stderr
        assert "use sudo" in result.stderr


def test_without_a_checkout_the_command_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages" / "cabildo_local" / "settings.py"
    monkeypatch.setattr(settings_module, "__file__", str(installed))
    result = typed("status")
    assert result.exit_code == 1
    assert "needs a checkout" in result.stderr


def test_without_the_local_cluster_the_command_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cabildo_local.errors", None)
    result = typed("status")
    assert result.exit_code == 1
    assert "needs a checkout" in result.stderr


def test_the_table_of_commands_imports_none_of_them() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for command in ("cluster", "demo", "follow"):
        assert command in result.stdout
    assert CliRunner().invoke(main, ["no-such-command"]).exit_code == 2
