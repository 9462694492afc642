"""What keeps the pods of a live attempt from running.

Here: pods, nodes and what the Job controller told -> one trouble with reason, message and remedy,
the one that explains the others. Never here: attempts that have ended (`explain.py`). Next:
`course.py`, which shows it in the conditions until it has passed.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cabildo_api import names
from cabildo_api.reasons import Reason
from cabildo_operator.kube.objects import Condition, Waiting
from cabildo_operator.kube.store import version_of
from cabildo_operator.reconcile.training_job.gang import Gang, Member

IMAGE_REASONS: Final = frozenset(
    {
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
CONFIG_REASONS: Final = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "PostStartHookError",
        "PreCreateHookError",
        "PreStartHookError",
        "RunContainerError",
    }
)
CREATION_PATIENCE: Final = timedelta(seconds=3)
"""The Job controller tries again after 1, 2, 4 ... seconds, up to a minute."""
SCHEDULING_PATIENCE: Final = timedelta(seconds=3)
BINDING_PATIENCE: Final = timedelta(seconds=7)
"""A slot is freed within moments, a new volume made within seconds: not worth a warning."""
UNBOUND: Final = "unbound immediate PersistentVolumeClaims"

_CREATING: Final = re.compile(r"^(\(combined from similar events\): )?Error creating: ")
_POD: Final = re.compile(r'^pods "[^"]*-(?P<rank>\d+)-[a-z0-9]+" ')
_BACK_OFF: Final = re.compile(r'^Back-off pulling image "[^"]*"(: \w+: )?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that must change before the attempt can go on."""

    reason: Reason
    message: str


def trouble_of(gang: Gang, *, now: datetime) -> Trouble | None:
    """Returns the first trouble, in the order in which one explains the others."""
    for look in (_lost_node, _image, _config):
        for member in gang.members:
            trouble = None if member.ended else look(member)
            if trouble is not None:
                return trouble
    refused_at = _refused_at(gang)
    if refused_at is not None and refused_at <= now:
        return _refused(gang)
    for member in gang.members:
        due = _unschedulable_at(member)
        if due is not None and due <= now:
            return _scheduling(member)
    return None


def next_trouble_at(gang: Gang, *, now: datetime) -> datetime | None:
    """Returns when a pod starts to count as unschedulable, or one that is missing as refused."""
    times = [_refused_at(gang), *(_unschedulable_at(member) for member in gang.members)]
    return min((time for time in times if time is not None and time > now), default=None)


def _lost_node(member: Member) -> Trouble | None:
    if not member.node_lost or member.pod is None:
        return None
    node = member.pod.spec.node_name
    return _trouble(Reason.NODE_LOST, f"{_who(member)}: its node {node} is not ready or gone")


def _image(member: Member) -> Trouble | None:
    waiting = _waiting(member)
    if waiting is None or waiting.reason not in IMAGE_REASONS:
        return None
    status = member.pod.container(names.CONTAINER_TRAINER) if member.pod else None
    image = status.image if status else ""
    # ErrImagePull and ImagePullBackOff take turns for as long as the pull fails, the latter with
    # the former's text behind its own: without that prefix the status is written once.
    text = _BACK_OFF.sub("", waiting.message) or waiting.reason
    return _trouble(Reason.IMAGE_UNAVAILABLE, f"{_who(member)}: image {image}: {text}")


def _config(member: Member) -> Trouble | None:
    waiting = _waiting(member)
    if waiting is None or waiting.reason not in CONFIG_REASONS:
        return None
    return _trouble(Reason.CONTAINER_CONFIG_INVALID, f"{_who(member)}: {_said(waiting)}")


def _unscheduled(member: Member) -> Condition | None:
    """Returns the scheduler's refusal of a pod, if it stands."""
    if member.pod is None or member.ended:
        return None
    condition = member.pod.condition("PodScheduled")
    if condition is None or condition.status != "False" or condition.reason != "Unschedulable":
        return None
    return condition


def _unschedulable_at(member: Member) -> datetime | None:
    condition = _unscheduled(member)
    if condition is None:
        return None
    since = condition.last_transition_time or datetime.min.replace(tzinfo=UTC)
    return since + (BINDING_PATIENCE if UNBOUND in condition.message else SCHEDULING_PATIENCE)


def _scheduling(member: Member) -> Trouble | None:
    condition = _unscheduled(member)
    if condition is None:
        return None
    reason = Reason.CLAIM_PENDING if UNBOUND in condition.message else Reason.UNSCHEDULABLE
    return _trouble(reason, f"{_who(member)}: {condition.message}")


def _refused_at(gang: Gang) -> datetime | None:
    """Returns when pods that could not be created start to count, while one of them is missing."""
    if not gang.failed_creates or not gang.incomplete:
        return None
    least = datetime.min.replace(tzinfo=UTC)
    first = min(event.metadata.creation_timestamp or least for event in gang.failed_creates)
    return first + CREATION_PATIENCE


def _refused(gang: Gang) -> Trouble:
    """Returns the last refusal without the pod's name, which is another at every try."""
    last = max(gang.failed_creates, key=version_of)
    text = _CREATING.sub("", last.note)
    return _trouble(Reason.CREATE_REFUSED, _POD.sub(r"rank \g<rank>: the pod ", text))


def _waiting(member: Member) -> Waiting | None:
    status = member.pod.container(names.CONTAINER_TRAINER) if member.pod else None
    return status.state.waiting if status else None


def _who(member: Member) -> str:
    """Returns the rank alone: pods' names change with each attempt and would change the message."""
    return f"rank {member.rank}"


def _said(waiting: Waiting) -> str:
    return f"{waiting.reason}: {waiting.message}" if waiting.message else waiting.reason


def _trouble(reason: Reason, message: str) -> Trouble:
    message = message.rstrip(". ")
    return Trouble(reason=reason, message=f"{message}. {reason.remedy}".rstrip())
