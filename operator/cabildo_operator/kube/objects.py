"""Kubernetes objects as the operator sees them: only the fields that are read.

`informer.py` decodes the API server's bytes straight into these frozen structs, so that a
field nobody reads costs neither time nor memory. They are never sent back: what is written
is rendered by a kind's `render/` and described by `actions.py`. To read one more field, add
it here and nowhere else.
"""

from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


class Partial(msgspec.Struct, frozen=True, rename="camel", kw_only=True, gc=False):
    """Base of all partial objects: camelCase on the wire, unknown fields skipped."""


class OwnerReference(Partial, frozen=True):
    """Who an object belongs to."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Partial, frozen=True):
    """Metadata without annotations: those of pods hold whole run specifications."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None

    @property
    def controller_uid(self) -> str:
        """UID of the controlling owner, or an empty string."""
        return next((owner.uid for owner in self.owner_references if owner.controller), "")


class AnnotatedMeta(ObjectMeta, frozen=True):
    """Metadata of the few kinds whose annotations carry meaning."""

    annotations: dict[str, str] = {}


class Condition(Partial, frozen=True):
    """A condition of a Job, Pod or Node."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None

    @property
    def is_true(self) -> bool:
        """Whether the condition holds."""
        return self.status == "True"


class Object(Partial, frozen=True):
    """What every kind has."""

    metadata: ObjectMeta


class CustomResource(Object, frozen=True):
    """One of our own kinds, undecoded: spec and status are JSON bytes.

    `reconcile/<kind>/observed.py` parses them with the models of `cabildo_api`.
    """

    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: msgspec.Raw = msgspec.Raw(b"{}")


class JobSpec(Partial, frozen=True):
    """What was asked of a Job."""

    parallelism: int = 1
    completions: int | None = None
    suspend: bool = False


class JobStatus(Partial, frozen=True):
    """What the Job controller says."""

    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    terminating: int = 0
    start_time: datetime | None = None
    completion_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()


class Job(Object, frozen=True):
    """A batch/v1 Job."""

    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, true or not."""
        return _condition(self.status.conditions, type_)


class Waiting(Partial, frozen=True):
    """Why a container has not started."""

    reason: str = ""
    message: str = ""


class Running(Partial, frozen=True):
    """Since when a container runs."""

    started_at: datetime | None = None


class Terminated(Partial, frozen=True):
    """How a container ended; `message` is its termination message."""

    exit_code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(Partial, frozen=True):
    """Exactly one of the three is set."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Partial, frozen=True):
    """One container of a pod."""

    name: str
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodSpec(Partial, frozen=True):
    """Where a pod runs."""

    node_name: str = ""


class PodStatus(Partial, frozen=True):
    """What kubelet and scheduler say."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object, frozen=True):
    """A pod. Its rank is the label `batch.kubernetes.io/job-completion-index`."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, true or not."""
        return _condition(self.status.conditions, type_)

    def container(self, name: str) -> ContainerStatus | None:
        """The status of a container, once there is one."""
        return next((c for c in self.status.container_statuses if c.name == name), None)


class ServiceSpec(Partial, frozen=True):
    """What a Service selects."""

    selector: dict[str, str] = {}
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    publish_not_ready_addresses: bool = False


class Service(Object, frozen=True):
    """A Service."""

    spec: ServiceSpec = ServiceSpec()


class PersistentVolumeClaimSpec(Partial, frozen=True):
    """What was asked of a claim."""

    storage_class_name: str | None = None
    access_modes: tuple[str, ...] = ()
    volume_name: str = ""


class PersistentVolumeClaimStatus(Partial, frozen=True):
    """Pending, Bound or Lost."""

    phase: str = "Pending"


class PersistentVolumeClaim(Object, frozen=True):
    """A claim on storage."""

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


class StorageClass(Object, frozen=True):
    """A storage class; the default one carries an annotation."""

    metadata: AnnotatedMeta
    provisioner: str = ""

    @property
    def is_default(self) -> bool:
        """Whether claims without a class get this one."""
        return (
            self.metadata.annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
        )


class NodeSpec(Partial, frozen=True):
    """Whether a node takes new pods."""

    unschedulable: bool = False


class NodeStatus(Partial, frozen=True):
    """The node's conditions."""

    conditions: tuple[Condition, ...] = ()


class Node(Object, frozen=True):
    """A node."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def is_ready(self) -> bool:
        """Whether the node controller believes in it."""
        ready = _condition(self.status.conditions, "Ready")
        return ready is not None and ready.is_true


class LeaseSpec(Partial, frozen=True):
    """Who leads, since when, and how often that changed."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: datetime | None = None
    renew_time: datetime | None = None
    lease_transitions: int = 0


class Lease(Object, frozen=True):
    """A coordination.k8s.io/v1 Lease."""

    spec: LeaseSpec = LeaseSpec()


class ObjectReference(Partial, frozen=True):
    """Which object an Event is about."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Event(Object, frozen=True):
    """What somebody told about an object; updated in place when it is told again."""

    note: str = ""
    regarding: ObjectReference = ObjectReference()


class Secret(Object, frozen=True):
    """A Secret; values are decoded from base64."""

    data: dict[str, bytes] = {}


class UserInfo(Partial, frozen=True):
    """Who a token belongs to; `extra` names the pod it was projected into."""

    username: str = ""
    extra: dict[str, tuple[str, ...]] = {}


class TokenReviewStatus(Partial, frozen=True):
    """Whether a token is good, and for which audiences."""

    authenticated: bool = False
    user: UserInfo = UserInfo()
    audiences: tuple[str, ...] = ()
    error: str = ""


class TokenReview(Object, frozen=True):
    """The answer to a TokenReview; it has no name."""

    status: TokenReviewStatus = TokenReviewStatus()


class ListMeta(Partial, frozen=True):
    """Where a list was read and where it goes on."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ObjectList(Partial, Generic[T], frozen=True):
    """One page of a list."""

    metadata: ListMeta
    items: tuple[T, ...] = ()


class WatchEvent(Partial, frozen=True):
    """One line of a watch; `object` is decoded once `type` is known."""

    type: str
    object: msgspec.Raw


class Status(Partial, frozen=True):
    """The API server's answer to a request it refuses."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: dict[str, Any] | None = None


def _condition(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    return next((c for c in conditions if c.type == type_), None)
