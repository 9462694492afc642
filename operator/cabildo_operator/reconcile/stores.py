"""Everything that is known, in one place: the stores a snapshot is built from.

The informers fill them (TrainingJobs: `handlers/`), `observed.py` of a kind reads them, and
`routes.py` finds the keys a change concerns through the same indexes. No I/O.
"""

from dataclasses import dataclass, field

from cabildo_api import names
from cabildo_operator.kube.objects import (
    CustomResource,
    Event,
    Job,
    Node,
    Object,
    PersistentVolumeClaim,
    Pod,
    Service,
    StorageClass,
)
from cabildo_operator.kube.store import Store
from cabildo_operator.progress.board import ProgressBoard

OWNER = "owner"
"""Index by the UID of the object of ours that a child belongs to."""
NODE = "node"
"""Index of pods by node."""
DEPARTED_FOR_S = 300.0
"""How long the last state of a removed pod is kept: its exit code decides a charge."""


def owner_uid(obj: Object) -> str | None:
    """UID in the child's label; None for objects of others."""
    return obj.metadata.labels.get(names.LABEL_UID)


def told_about(event: Event) -> str | None:
    """UID of the object that an Event is about."""
    return event.regarding.uid or None


def node_name(pod: Pod) -> str | None:
    """The node a pod was bound to."""
    return pod.spec.node_name or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """One store per kind.

    Children carry the index `OWNER` (UID label), pods also `NODE`. Claims are all claims of
    the cluster, since a TrainingJob may name one of its user's; Jobs, pods and Services are
    those of ours. Nodes and storage classes have an empty namespace in their key. Of Events only
    those that tell that the Job controller could not create a pod, with the Job's UID as `OWNER`.
    """

    training_jobs: Store[CustomResource] = field(default_factory=Store)
    jobs: Store[Job] = field(default_factory=lambda: Store(indexes={OWNER: owner_uid}))
    pods: Store[Pod] = field(
        default_factory=lambda: Store(
            indexes={OWNER: owner_uid, NODE: node_name}, departed_for_s=DEPARTED_FOR_S
        )
    )
    services: Store[Service] = field(default_factory=lambda: Store(indexes={OWNER: owner_uid}))
    claims: Store[PersistentVolumeClaim] = field(
        default_factory=lambda: Store(indexes={OWNER: owner_uid})
    )
    nodes: Store[Node] = field(default_factory=Store)
    storage_classes: Store[StorageClass] = field(default_factory=Store)
    failed_creates: Store[Event] = field(default_factory=lambda: Store(indexes={OWNER: told_about}))
    reports: ProgressBoard = field(default_factory=ProgressBoard)
