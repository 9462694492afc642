"""Which keys a changed child concerns.

Informers call these with (before, after); each calls `wake` for the objects to visit. Cheap on
purpose: one call per watch event, thousands a second. Children name their object in labels; nodes
and storage classes are looked up through the stores' indexes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from cabildo_api import names
from cabildo_api.training_job_status import Phase
from cabildo_operator.kube.objects import (
    CustomResource,
    Event,
    Node,
    Object,
    PersistentVolumeClaim,
    StorageClass,
)
from cabildo_operator.kube.store import ObjectKey, key_of
from cabildo_operator.reconcile.stores import NODE, Stores

Wake = Callable[[ObjectKey], None]


class _Phase(msgspec.Struct, frozen=True):
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """From changes to keys, for TrainingJobs."""

    stores: Stores
    wake: Wake

    def child(self, before: Object | None, after: Object | None) -> None:
        """A Job, pod or Service with our labels."""
        obj = after or before
        if before is not None and after is not None and _is_same(before, after):
            return
        if obj is not None and (key := owner_of(obj)) is not None:
            self.wake(key)

    def claim(
        self, before: PersistentVolumeClaim | None, after: PersistentVolumeClaim | None
    ) -> None:
        """A claim: of ours, or one that somebody in its namespace may be waiting for."""
        obj = after or before
        if obj is None or (before is not None and after is not None and _is_same(before, after)):
            return
        if (key := owner_of(obj)) is not None:
            self.wake(key)
        else:
            self._wake_waiting(namespace=obj.metadata.namespace)

    def storage_class(self, before: StorageClass | None, after: StorageClass | None) -> None:
        """A storage class that somebody may be waiting for."""
        if after is None or before is None or before.is_default != after.is_default:
            self._wake_waiting(namespace=None)

    def node(self, before: Node | None, after: Node | None) -> None:
        """A node that came, went, or whose readiness changed; heartbeats concern nobody."""
        if before is not None and after is not None and before.is_ready == after.is_ready:
            return
        obj = after or before
        if obj is None:
            return
        for pod in self.stores.pods.by_index(obj.metadata.name, index=NODE):
            self.child(None, pod)

    def failed_create(self, before: Event | None, after: Event | None) -> None:
        """The Job controller could not create a pod; most of its Jobs are others'."""
        event = after or before
        if event is None:
            return
        about = event.regarding
        job = self.stores.jobs.get((about.namespace, about.name))
        if job is not None and job.metadata.uid == about.uid:
            self.child(None, job)

    def _wake_waiting(self, *, namespace: str | None) -> None:
        for obj in self.stores.training_jobs:
            if namespace in {None, obj.metadata.namespace} and _phase(obj) in {"", Phase.PENDING}:
                self.wake(key_of(obj))


def _is_same(before: Object, after: Object) -> bool:
    """Whether nothing that is read has changed: a controller touched something else."""
    version = after.metadata.resource_version
    metadata = msgspec.structs.replace(before.metadata, resource_version=version)
    return msgspec.structs.replace(before, metadata=metadata) == after


def owner_of(obj: Object) -> ObjectKey | None:
    """The TrainingJob that a child's labels name."""
    labels = obj.metadata.labels
    if labels.get(names.LABEL_MANAGED_BY) != names.MANAGED_BY:
        return None
    name = labels.get(names.LABEL_NAME)
    return ObjectKey(obj.metadata.namespace, name) if name else None


def _phase(obj: CustomResource) -> str:
    return msgspec.json.decode(obj.status, type=_Phase).phase
