"""What a machine lacks is said before anything is started, with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
from typing import TYPE_CHECKING

import pytest

from cabildo_local import prerequisites
from cabildo_local.errors import CommandError, PrerequisiteError
from cabildo_local.prerequisites import (
    check_machine,
    check_root,
    check_space,
    check_system,
    read_hierarchies,
)
from cabildo_local.settings import ClusterSettings

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may have a cluster")


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(PrerequisiteError, match=r"this is Darwin.*Linux virtual machine"):
        check_system()


def test_others_than_root_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PrerequisiteError, match=r"needs root.*use sudo"):
        check_root()


def test_too_little_space_is_refused_with_both_figures(tmp_path: Path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    check_space(tmp_path / "not" / "there" / "yet", needed_bytes=1)
    with pytest.raises(PrerequisiteError, match=r"GiB free.*CABILDO_STATE"):
        check_space(tmp_path, needed_bytes=free_bytes * 2)


def test_read_only_control_groups_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PrerequisiteError, match=r"read-only.*privileged"):
        read_hierarchies()


@needs_root
def test_missing_namespaces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> NoReturn:
        raise CommandError("unshare: Operation not permitted")

    monkeypatch.setattr(prerequisites, "run_command", refused)
    with pytest.raises(PrerequisiteError, match=r"namespaces cannot be made.*not permitted"):
        check_machine(ClusterSettings(nodes=0))


@needs_root
def test_a_missing_file_of_fake_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"none\.yaml is not there"):
        check_machine(ClusterSettings(nodes=0, fake_nodes=tmp_path / "none.yaml"))


@needs_root
def test_this_machine_will_do(tmp_path: Path) -> None:
    settings = ClusterSettings(nodes=0, state_root=tmp_path)
    assert check_machine(settings).tracking.is_dir()
