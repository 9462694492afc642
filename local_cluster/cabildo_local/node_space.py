"""Whether the disk has room for what the nodes will unpack.

Here: one check before a cluster's nodes pull the trainer's image. Never here: the checks
of a build (images.py) and of a cluster's own state (prerequisites.py). Nodes keep their
images across `down`, and never throw any away by themselves: a full disk would show as
errors inside pods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cabildo_local.prerequisites import GIB, check_space

if TYPE_CHECKING:
    from cabildo_local.settings import ClusterSettings

PULL_BYTES = int(8.2 * GIB)
"""For each node while it pulls the trainer's image, measured: 2.9 GiB as it comes, 5.3 unpacked."""

TORCH = (
    "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs"
    "/opt/cabildo/venv/lib/python3*/site-packages/torch"
)
"""What lies in a node's folder once it has unpacked the trainer's dependencies."""


def check_node_space(settings: ClusterSettings) -> None:
    """Check that every node that lacks the trainer's dependencies can unpack them.

    Args:
        settings: The cluster that is to run TrainingJobs; need not be up.

    Raises:
        PrerequisiteError: The disk has less room than they need together.
    """
    nodes = [settings.folder / "nodes" / f"node{number + 1}" for number in range(settings.nodes)]
    lacking = [node for node in nodes if next(node.glob(TORCH), None) is None]
    if lacking:
        check_space(
            settings.state_root,
            needed_bytes=PULL_BYTES * len(lacking),
            purpose=f"unpacking the trainer's image on {len(lacking)} nodes",
        )
