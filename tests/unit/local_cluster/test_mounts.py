"""Telling a cluster's mounts from all others."""

from __future__ import annotations

from pathlib import Path

from cabildo_local.mounts import mounts_below

MOUNTS = """\
22 1 254:0 / / rw - ext4 /dev/vda rw
90 22 0:50 / /state/demo/nodes/node1/kubelet/pods/a/volumes/token rw - tmpfs tmpfs rw
91 22 0:51 / /run/cabildo/demo/node1/rootfs rw - overlay overlay rw
92 91 0:52 / /run/cabildo/demo/node1/rootfs/dev\\040shm rw - tmpfs tmpfs rw
93 22 0:53 / /run/cabildo/demo2/node1/rootfs rw - overlay overlay rw
94 22 0:54 / /state/demo-other rw - tmpfs tmpfs rw
"""


def test_only_what_is_below_is_found_in_the_order_of_mounting() -> None:
    found = mounts_below([Path("/state/demo"), Path("/run/cabildo/demo")], mountinfo=MOUNTS)
    assert found == [
        Path("/state/demo/nodes/node1/kubelet/pods/a/volumes/token"),
        Path("/run/cabildo/demo/node1/rootfs"),
        Path("/run/cabildo/demo/node1/rootfs/dev shm"),
    ]


def test_a_machine_without_a_cluster_has_none() -> None:
    assert mounts_below([Path("/state/none")], mountinfo=MOUNTS) == []
