"""Which control group hierarchies a machine has, told from its mounts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cabildo_local.cgroups import Hierarchies, Slice, find_hierarchies, is_zombie
from cabildo_local.errors import PrerequisiteError

if TYPE_CHECKING:
    from pathlib import Path

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


def v1(*controllers: str) -> str:
    line = "3{n} 31 0:3{n} / /sys/fs/cgroup/{c} rw,relatime - cgroup cgroup rw,{c}\n"
    return "".join(line.format(n=n, c=c) for n, c in enumerate(controllers))


ALL_V1 = v1("cpu,cpuacct", "cpuset", "memory", "pids", "freezer")
HYBRID = ALL_V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def test_version_2_alone_is_one_hierarchy() -> None:
    found = find_hierarchies(OTHER + UNIFIED)
    assert found.unified
    assert [str(root) for root in found.roots] == ["/sys/fs/cgroup"]
    assert found.tracking == found.roots[0]


def test_in_version_1_processes_are_found_by_the_pids_controller() -> None:
    found = find_hierarchies(OTHER + ALL_V1)
    assert not found.unified
    assert str(found.tracking) == "/sys/fs/cgroup/pids"
    assert len(found.roots) == 5


def test_the_hybrid_is_version_1_with_one_more_hierarchy() -> None:
    found = find_hierarchies(OTHER + HYBRID)
    assert not found.unified
    assert str(found.roots[-1]) == "/sys/fs/cgroup/unified"


def test_a_missing_controller_is_named() -> None:
    with pytest.raises(PrerequisiteError, match=r"cpuset, pids are not mounted"):
        find_hierarchies(v1("cpu,cpuacct", "memory"))


def test_no_hierarchy_is_said_with_a_remedy() -> None:
    with pytest.raises(PrerequisiteError, match=r"no cgroup hierarchy.*privileged"):
        find_hierarchies(OTHER)


@pytest.fixture
def version_2(tmp_path: Path) -> Hierarchies:
    """A folder that looks like a cgroup v2 hierarchy (its files are plain ones)."""
    for folder in ("", "cabildo.x", "cabildo.x/processes"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "cgroup.controllers").write_text("cpu cpuset memory pids")
        (tmp_path / folder / "cgroup.subtree_control").write_text("")
    return Hierarchies((tmp_path,), tmp_path, unified=True)


def test_version_2_hands_controllers_down_to_the_slice(
    version_2: Hierarchies, tmp_path: Path
) -> None:
    Slice("x", hierarchies=version_2).create("processes")
    for folder in ("", "cabildo.x"):
        assert (tmp_path / folder / "cgroup.subtree_control").read_text().startswith("+")
    # A group that hands controllers down may not hold processes itself.
    assert (tmp_path / "cabildo.x/processes/cgroup.subtree_control").read_text() == ""


def test_version_2_without_controllers_is_refused(version_2: Hierarchies, tmp_path: Path) -> None:
    (tmp_path / "cabildo.x/processes/cgroup.controllers").write_text("pids")
    with pytest.raises(PrerequisiteError, match="cpu, cpuset, memory are not handed down"):
        Slice("x", hierarchies=version_2).create("processes")


def test_version_1_copies_the_cpus_of_the_parent(tmp_path: Path) -> None:
    hierarchies = Hierarchies((tmp_path,), tmp_path, unified=False)
    (tmp_path / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset.mems").write_text("0\n")
    group = tmp_path / "cabildo.x"
    group.mkdir()
    for name, text in {
        "cpuset.cpus": "\n",
        "cpuset.mems": "7\n",
        "cgroup.clone_children": "0",
    }.items():
        (group / name).write_text(text)
    (group / "processes").mkdir()
    Slice("x", hierarchies=hierarchies).create("processes")
    assert (group / "cpuset.cpus").read_text() == "0-1\n"
    assert (group / "cpuset.mems").read_text() == "7\n"


def test_a_process_joins_every_hierarchy_but_has_a_leaf_in_one(tmp_path: Path) -> None:
    roots = (tmp_path / "cpu", tmp_path / "pids")
    for root in roots:
        (root / "cabildo.x" / "processes").mkdir(parents=True)
    slice_ = Slice("x", hierarchies=Hierarchies(roots, roots[1], unified=False))
    files = slice_.process_files("processes", leaf="etcd")
    assert files == [
        roots[0] / "cabildo.x/processes/cgroup.procs",
        roots[1] / "cabildo.x/processes/etcd/cgroup.procs",
    ]


def test_only_living_processes_count() -> None:
    assert not is_zombie(os.getpid())
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert is_zombie(child)
    finally:
        os.waitpid(child, 0)
    assert is_zombie(child)
