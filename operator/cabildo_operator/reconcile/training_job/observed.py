"""The snapshot that a plan is made from: one TrainingJob and everything that concerns it.

Here: reading the stores, once, into a frozen value. Never here: the network, a decision, a clock.
Next: `plan.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pydantic import ValidationError

from cabildo_api import names
from cabildo_api.base import explain_validation
from cabildo_api.training_job import TrainingJobSpec
from cabildo_api.training_job_status import TrainingJobStatus
from cabildo_operator.kube.objects import (
    Event,
    Job,
    Node,
    Object,
    ObjectMeta,
    PersistentVolumeClaim,
    Pod,
    Service,
)
from cabildo_operator.kube.store import ObjectKey
from cabildo_operator.progress.board import Report
from cabildo_operator.reconcile.stores import Stores
from cabildo_operator.reconcile.training_job.render.claim import checkpoint_claim
from cabildo_operator.reconcile.training_job.render.metadata import Owner

PARSED_KEPT: Final = 1_024
"""Parsed specs and statuses that are kept, by their bytes: most visits find both unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A TrainingJob and its surroundings at one moment.

    Attributes:
        meta: The object's metadata.
        spec: What is asked for, or None when it cannot be read.
        spec_error: What is wrong with the spec, or an empty string.
        status: What was last written.
        jobs: Jobs that this object controls, of all runs and attempts.
        pods: Pods of those Jobs.
        departed: Last states of pods that are gone: an exit code may be visible for milliseconds.
        service: The headless Service, if this object controls it.
        claims: The claims that the spec names, where they exist.
        storage_classes: Names of all storage classes.
        has_default_class: Whether one of them is the default.
        nodes: The nodes that the pods are bound to, where they exist.
        failed_creates: Why the Job controller could not create pods, by the UID of the Job.
        leftovers: Children of a deleted object of the same name that are still being removed.
        report: The latest progress report.
    """

    meta: ObjectMeta
    spec: TrainingJobSpec | None
    spec_error: str = ""
    status: TrainingJobStatus = field(default_factory=TrainingJobStatus)
    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    departed: tuple[Pod, ...] = ()
    service: Service | None = None
    claims: Mapping[str, PersistentVolumeClaim] = field(default_factory=dict)
    storage_classes: frozenset[str] = frozenset()
    has_default_class: bool = False
    nodes: Mapping[str, Node] = field(default_factory=dict)
    failed_creates: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    report: Report | None = None

    @property
    def owner(self) -> Owner:
        """The object as its children refer to it."""
        return Owner(namespace=self.meta.namespace, name=self.meta.name, uid=self.meta.uid)

    def job(self, run: int, attempt: int) -> Job | None:
        """The Job of an attempt, if it exists."""
        wanted = names.job_name(self.meta.name, run, attempt)
        return next((job for job in self.jobs if job.metadata.name == wanted), None)


def observe(key: ObjectKey, *, stores: Stores) -> Observed | None:
    """Returns the snapshot of the object at `key`, or None when there is no such object."""
    resource = stores.training_jobs.get(key)
    if resource is None:
        return None
    uid = resource.metadata.uid
    owner = Owner(namespace=key.namespace, name=key.name, uid=uid)
    spec, error = _parse_spec(bytes(resource.spec))
    pods = stores.pods.by_index(uid)
    departed = stores.pods.departed(uid)
    nodes = {pod.spec.node_name for pod in (*pods, *departed) if pod.spec.node_name}
    service = stores.services.get((key.namespace, names.service_name(key.name)))
    jobs = tuple(job for job in stores.jobs.by_index(uid) if job.metadata.controller_uid == uid)
    told = {job.metadata.uid: stores.failed_creates.by_index(job.metadata.uid) for job in jobs}
    return Observed(
        meta=resource.metadata,
        spec=spec,
        spec_error=error,
        status=_parse_status(bytes(resource.status)),
        jobs=jobs,
        pods=pods,
        departed=departed,
        service=service if service and service.metadata.controller_uid == uid else None,
        claims=_claims(spec, owner=owner, stores=stores),
        storage_classes=frozenset(item.metadata.name for item in stores.storage_classes),
        has_default_class=any(item.is_default for item in stores.storage_classes),
        nodes={name: node for name in nodes if (node := stores.nodes.get(("", name)))},
        failed_creates={job: events for job, events in told.items() if events},
        leftovers=_leftovers(owner, stores=stores, service=service),
        report=stores.reports.latest(key, uid=uid),
    )


@lru_cache(maxsize=PARSED_KEPT)
def _parse_spec(raw: bytes) -> tuple[TrainingJobSpec | None, str]:
    try:
        return TrainingJobSpec.model_validate_json(raw), ""
    except ValidationError as error:
        return None, explain_validation(error)


@lru_cache(maxsize=PARSED_KEPT)
def _parse_status(raw: bytes) -> TrainingJobStatus:
    """Returns what was written; a status that cannot be read counts as none at all.

    Only this operator writes it, so that can only be one of a far newer version; runs and attempts
    are then found again from the Jobs.
    """
    try:
        return TrainingJobStatus.model_validate_json(raw)
    except ValidationError:
        return TrainingJobStatus()


def _claims(
    spec: TrainingJobSpec | None, *, owner: Owner, stores: Stores
) -> dict[str, PersistentVolumeClaim]:
    if spec is None:
        return {}
    wanted = {checkpoint_claim(spec.checkpoint.storage, owner=owner)} | {
        source.file.claim for source in spec.data.sources if source.file is not None
    }
    found = {name: stores.claims.get((owner.namespace, name)) for name in wanted}
    return {name: claim for name, claim in found.items() if claim is not None}


def _leftovers(owner: Owner, *, stores: Stores, service: Service | None) -> tuple[str, ...]:
    """Returns children of an earlier object of this name, which hold names that we need.

    Only the first attempt's Job is looked up: an earlier object's later ones are collected with it.
    """
    first = stores.jobs.get((owner.namespace, names.job_name(owner.name, 1, 1)))
    held: list[tuple[str, Object | None]] = [("Service", service), ("Job", first)]
    return tuple(
        f"{kind} {child.metadata.name}"
        for kind, child in held
        if child is not None and _is_of_earlier(child, owner=owner)
    )


def _is_of_earlier(child: Object, *, owner: Owner) -> bool:
    labels = child.metadata.labels
    return (
        labels.get(names.LABEL_KIND) == names.KIND
        and labels.get(names.LABEL_NAME) == owner.name
        and labels.get(names.LABEL_UID) not in (None, owner.uid)
    )
