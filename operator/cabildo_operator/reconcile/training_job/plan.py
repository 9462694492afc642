"""What follows from a snapshot: actions, status, and when to look again.

Here: the composition; every decision is in a pure function beside this one. Planning again after
the actions were carried out gives no action, and a crash between any two of them loses nothing.
Never here: I/O, a clock. Next: `reconcile/loop.py` carries the plan out.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from cabildo_api import names
from cabildo_api.conditions import ConditionType
from cabildo_api.reasons import Reason
from cabildo_api.scalars import whole_seconds
from cabildo_api.training_job import TrainingJobSpec
from cabildo_api.training_job_status import Phase
from cabildo_operator.kube.actions import Action, Apply, Create, Delete
from cabildo_operator.kube.objects import Job
from cabildo_operator.reconcile.kind import Plan, Refusal
from cabildo_operator.reconcile.training_job.attempts import is_undecided
from cabildo_operator.reconcile.training_job.conditions import conditions_for, with_generation
from cabildo_operator.reconcile.training_job.course import Standing, decide
from cabildo_operator.reconcile.training_job.events import events_between
from cabildo_operator.reconcile.training_job.observed import Observed
from cabildo_operator.reconcile.training_job.render.claim import render_claim
from cabildo_operator.reconcile.training_job.render.job import render_job
from cabildo_operator.reconcile.training_job.render.service import has_drifted, render_service
from cabildo_operator.reconcile.training_job.settings import PlanSettings
from cabildo_operator.reconcile.training_job.status import build_status
from cabildo_operator.reconcile.training_job.troubles import Trouble

JOBS_KEPT: Final = 3
"""How many attempts' Jobs stay for their logs."""


def plan(
    observed: Observed,
    *,
    now: datetime,
    settings: PlanSettings,
    refusal: Refusal | None = None,
) -> Plan:
    """Returns what follows from a snapshot; nothing at all for an object that is being deleted."""
    if observed.meta.deletion_timestamp is not None:
        return Plan()
    if observed.spec is None:
        return _plan_unreadable(observed, now=now)
    spec = observed.spec
    standing = decide(observed, spec=spec, now=now, settings=settings)
    if refusal is not None:
        standing = _refused(standing, refusal=refusal)
    actions: list[Action] = []
    if refusal is None:
        actions += _deletions(observed, standing=standing)
        actions += _children(observed, spec=spec, standing=standing, settings=settings)
    if standing.starts:
        standing = replace(
            standing, ledger=standing.ledger.with_attempt(now=whole_seconds(now)), starts=False
        )
    status = build_status(observed, spec=spec, standing=standing, now=now)
    if status == observed.status:
        return Plan(actions=tuple(actions), wake_at=standing.wake_at)
    actions += events_between(observed.status, status)
    return Plan(actions=tuple(actions), status=status.to_object(), wake_at=standing.wake_at)


def _children(
    observed: Observed, *, spec: TrainingJobSpec, standing: Standing, settings: PlanSettings
) -> list[Action]:
    """Returns what creates the children that are missing: claim, Service, then the Job."""
    if standing.starts:
        return _start(observed, spec=spec, standing=standing, settings=settings)
    if standing.phase in {Phase.PENDING, Phase.RUNNING, Phase.RESTARTING}:
        return _service(observed) if standing.ledger.attempt else []
    return []


def _start(
    observed: Observed, *, spec: TrainingJobSpec, standing: Standing, settings: PlanSettings
) -> list[Action]:
    """Returns what starts an attempt: claim, Service, Job.

    A cache that is behind must not start an attempt, nor leave a claim that nobody owns.
    """
    owner, ledger, actions = observed.owner, standing.ledger, list[Action]()
    template = spec.checkpoint.storage.claim_template
    if template is not None and names.claim_name(owner.name) not in observed.claims:
        actions.append(Create(body=render_claim(template, owner=owner)))
    actions += _service(observed)
    body = render_job(
        owner, spec=spec, run=ledger.run, attempt=ledger.attempt + 1, settings=settings
    )
    actions.append(Create(body=body, owner_uid=owner.uid))
    return _guarded(actions)


def _guarded(actions: list[Action]) -> list[Action]:
    """Returns the actions with a fresh look demanded before the first Create and before the Job."""
    creates = [index for index, action in enumerate(actions) if isinstance(action, Create)]
    return [
        replace(action, requires_fresh_read=True)
        if isinstance(action, Create) and index in (creates[0], creates[-1])
        else action
        for index, action in enumerate(actions)
    ]


def _service(observed: Observed) -> list[Action]:
    """Returns what makes or mends the Service."""
    owner, service = observed.owner, observed.service
    if service is None:
        return [Create(body=render_service(owner), owner_uid=owner.uid)]
    if has_drifted(service, owner=owner):
        return [Apply(body=render_service(owner), uid=service.metadata.uid)]
    return []


def _deletions(observed: Observed, *, standing: Standing) -> list[Action]:
    """Returns what stops Jobs that must not go on, and removes those kept long enough.

    Foreground: the Job is seen until its pods have ended, each with its grace period.
    """
    stops = [_delete(job, foreground=True) for job in standing.stops]
    stopped = {job.metadata.uid for job in standing.stops}
    undecided = {
        names.job_name(observed.meta.name, record.run, record.attempt)
        for record in standing.ledger.records
        if is_undecided(record)
    }
    by_age = sorted(observed.jobs, key=_place)
    old = [
        job
        for job in by_age[: max(0, len(by_age) + standing.starts - JOBS_KEPT)]
        if job.metadata.deletion_timestamp is None
        and job.metadata.uid not in stopped
        and job.metadata.name not in undecided
    ]
    return [*stops, *(_delete(job, foreground=False) for job in old)]


def _delete(job: Job, *, foreground: bool) -> Delete:
    return Delete(
        kind="Job",
        namespace=job.metadata.namespace,
        name=job.metadata.name,
        uid=job.metadata.uid,
        propagation="Foreground" if foreground else "Background",
    )


def _place(job: Job) -> tuple[int, int]:
    labels = job.metadata.labels
    return int(labels.get(names.LABEL_RUN, "0")), int(labels.get(names.LABEL_ATTEMPT, "0"))


def _refused(standing: Standing, *, refusal: Refusal) -> Standing:
    """Returns the standing of an object whose child the API server does not take."""
    conflict = refusal.reason == Reason.CHILD_NAME_CONFLICT
    reason = Reason.CHILD_NAME_CONFLICT if conflict else Reason.CREATE_REFUSED
    message = f"{refusal.kind} {refusal.name}: {refusal.message.rstrip('. ')}. {reason.remedy}"
    hindrance = Trouble(reason=reason, message=message)
    if not standing.starts:
        return replace(standing, hindrance=hindrance)
    return replace(
        standing, reason=reason, message=message, starts=False, stops=(), hindrance=hindrance
    )


def _plan_unreadable(observed: Observed, *, now: datetime) -> Plan:
    """Returns the plan for a spec that this operator cannot read.

    With nothing started that is the end of it, until the spec changes. An attempt that runs is left
    alone: the spec may be one of a newer version, and a newer operator on its way.
    """
    previous, generation = observed.status, observed.meta.generation
    if previous.is_true(ConditionType.FINISHED) and previous.attempt:
        kept = with_generation(previous.conditions, generation=generation)
        status = previous.model_copy(update={"observed_generation": generation, "conditions": kept})
        return Plan(status=status.to_object())
    reason = Reason.INVALID_SPEC
    phase = (previous.phase or Phase.PENDING) if previous.attempt else Phase.FAILED
    ended = previous.completion_time or whole_seconds(now)
    status = previous.model_copy(
        update={
            "observed_generation": generation,
            "phase": phase,
            "completion_time": ended if phase is Phase.FAILED else None,
            "conditions": conditions_for(
                phase,
                reason=reason,
                message=f"{observed.spec_error}. {reason.remedy}",
                accepted=False,
                previous=previous,
                generation=generation,
                now=now,
            ),
        }
    )
    return Plan(
        actions=tuple[Action, ...](events_between(previous, status)), status=status.to_object()
    )
