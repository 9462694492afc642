"""What an object does now: wait, start an attempt, stop one, finish.

Here: snapshot and ledger -> a standing: phase, reason, message, what to start and to stop, when to
look again. Never here: JSON bodies or conditions. Next: `plan.py` makes actions of it, `status.py`
conditions.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cabildo_api import names
from cabildo_api.conditions import ConditionType
from cabildo_api.reasons import Reason
from cabildo_api.training_job import TrainingJobSpec
from cabildo_api.training_job_status import AttemptRecord, Cause, Phase
from cabildo_operator.kube.objects import Job
from cabildo_operator.reconcile.training_job.attempts import (
    Ledger,
    close_current,
    is_open,
    open_ledger,
    settle,
)
from cabildo_operator.reconcile.training_job.evidence import known_reason
from cabildo_operator.reconcile.training_job.gang import Gang, gang_of
from cabildo_operator.reconcile.training_job.observed import Observed
from cabildo_operator.reconcile.training_job.preconditions import unmet
from cabildo_operator.reconcile.training_job.settings import PlanSettings
from cabildo_operator.reconcile.training_job.timing import (
    deadline_of,
    earliest_start,
    is_written,
    next_look,
)
from cabildo_operator.reconcile.training_job.troubles import Trouble, next_trouble_at, trouble_of

LEFTOVER_POLL_S: Final = 2
"""Children of a deleted object wake their own, not us: look again soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an object stands.

    Attributes:
        ledger: The books after this visit.
        phase: The state in one word.
        reason: Why, for the condition that the phase is about.
        message: What happened and what to do.
        gang: The newest attempt in the cluster, if there is one.
        starts: Whether the next attempt is created now.
        stops: Jobs to delete, gracefully.
        hindrance: What the API server refuses; somebody must act on it.
        stays: Whether the conditions stay as they are: a finished object stays finished.
        wake_at: When to look again though nothing happens.
    """

    ledger: Ledger
    phase: Phase
    reason: Reason
    message: str
    gang: Gang | None = None
    starts: bool = False
    stops: tuple[Job, ...] = ()
    hindrance: Trouble | None = None
    stays: bool = False
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """What every step of the way needs."""

    observed: Observed
    spec: TrainingJobSpec
    ledger: Ledger
    gang: Gang | None
    now: datetime
    settings: PlanSettings

    @property
    def deadline(self) -> datetime | None:
        """When the run has taken too long."""
        return deadline_of(self.ledger, spec=self.spec)

    def standing(
        self, phase: Phase, reason: Reason, message: str, *, wake: datetime | None = None
    ) -> Standing:
        """Returns a standing that neither starts nor stops anything."""
        times = [time for time in (wake, self.ledger.decide_by, self.deadline) if time]
        return Standing(
            ledger=self.ledger,
            phase=phase,
            reason=reason,
            message=message,
            gang=self.gang,
            wake_at=min((time for time in times if time > self.now), default=None),
        )


def decide(
    observed: Observed, *, spec: TrainingJobSpec, now: datetime, settings: PlanSettings
) -> Standing:
    """Returns where the object stands and what it does next."""
    ledger = settle(
        open_ledger(observed, spec=spec, now=now),
        observed=observed,
        spec=spec,
        now=now,
        settings=settings,
    )
    gang = None
    if ledger.attempt:
        gang = gang_of(observed, run=ledger.run, attempt=ledger.attempt, nodes=spec.nodes)
    visit = _Visit(
        observed=observed, spec=spec, ledger=ledger, gang=gang, now=now, settings=settings
    )
    for step in (_stay_finished, _finish, _outlast, _suspend, _leave_old_run, _go_on):
        standing = step(visit)
        if standing is not None:
            return standing
    return _start_next(visit)


def _stay_finished(visit: _Visit) -> Standing | None:
    """Returns the standing of a finished object: nothing is ever run again in that run."""
    status = visit.observed.status
    if visit.ledger.is_new_run or not status.is_true(ConditionType.FINISHED):
        return None
    failed = status.condition(ConditionType.FAILED)
    if not status.attempt and failed is not None and failed.reason == Reason.INVALID_SPEC:
        return None  # nothing ran: the spec could not be read, and now it can
    standing = visit.standing(status.phase or Phase.FAILED, Reason.COMPLETED, "")
    wake = visit.ledger.decide_by
    return replace(standing, stays=True, stops=_live_jobs(visit), wake_at=wake)


def _finish(visit: _Visit) -> Standing | None:
    """Returns Succeeded or Failed when an attempt's ending says so."""
    ledger = visit.ledger
    for record in ledger.this_run:
        if record.cause is Cause.COMPLETED:
            message = f"The run completed in attempt {record.attempt}."
            return _end(visit, Phase.SUCCEEDED, Reason.COMPLETED, message)
        if record.cause is Cause.NON_RETRYABLE:
            return _end(visit, Phase.FAILED, _reason_of(record), record.message or "")
    last = ledger.overdrawn
    if last is None:
        return None
    message = (
        f"maxRestarts {visit.spec.run_policy.max_restarts} used up; "
        f"attempt {last.attempt} ended with {last.reason}: {last.message}"
    )
    return _end(visit, Phase.FAILED, Reason.RESTART_LIMIT_REACHED, message)


def _outlast(visit: _Visit) -> Standing | None:
    """Returns Failed when the run has taken longer than it may."""
    deadline = visit.deadline
    if deadline is None or visit.now < deadline:
        return None
    limit = visit.spec.run_policy.active_deadline_seconds
    reason = Reason.DEADLINE_EXCEEDED
    message = f"The run took longer than activeDeadlineSeconds {limit}. {reason.remedy}"
    closed = close_current(
        visit.ledger, cause=Cause.DEADLINE_EXCEEDED, reason=reason, message=message, now=visit.now
    )
    return _end(replace(visit, ledger=closed), Phase.FAILED, reason, message)


def _suspend(visit: _Visit) -> Standing | None:
    """Returns Suspending until the pods have ended, then Suspended."""
    if not visit.spec.suspend:
        return None
    live = _live_jobs(visit)
    record = visit.ledger.current
    leaving = bool(live) or _pods_hold_up(visit) or (record is not None and is_open(record))
    reason = Reason.SUSPENDING if leaving else Reason.SUSPENDED
    phase = Phase.SUSPENDING if leaving else Phase.SUSPENDED
    wake = visit.now + timedelta(seconds=visit.settings.cache_lag_s) if leaving else None
    message = f"{reason.meaning} {reason.remedy}".rstrip()
    if not leaving:
        # As a batch/v1 Job's: the deadline counts from the resumption.
        visit = replace(visit, ledger=replace(visit.ledger, start_time=None))
    return replace(visit.standing(phase, reason, message, wake=wake), stops=live)


def _leave_old_run(visit: _Visit) -> Standing | None:
    """Returns Pending while pods of an earlier run still end."""
    this = str(visit.ledger.run)
    old = tuple(
        job for job in _live_jobs(visit) if job.metadata.labels.get(names.LABEL_RUN) != this
    )
    if not old and not _pods_hold_up(visit, but_of_run=this):
        return None
    message = f"Run {visit.ledger.run} starts when the pods of the run before have ended."
    return replace(visit.standing(Phase.PENDING, Reason.PENDING, message), stops=old)


def _go_on(visit: _Visit) -> Standing | None:
    """Returns the standing of an attempt that has not ended."""
    record, gang = visit.ledger.current, visit.gang
    if record is None or gang is None or not is_open(record):
        return None
    trouble = trouble_of(gang, now=visit.now)
    if gang.being_deleted:
        # Resumed before the pods had ended: only a suspension leaves such a record open.
        phase, reason, message = Phase.SUSPENDING, Reason.SUSPENDING, Reason.SUSPENDING.meaning
    elif trouble is None and (gang.is_running or _was_running(visit)):
        phase, reason = Phase.RUNNING, Reason.RUNNING
        message = f"All {len(gang.members)} pods of attempt {record.attempt} run."
    else:
        before = visit.ledger.find(record.attempt - 1)
        phase, reason, message = _opening(before, attempt=record.attempt)
        if trouble is not None:
            reason, message = trouble.reason, trouble.message
        if reason is Reason.NODE_LOST:
            phase = Phase.RESTARTING
    looks = (
        next_look(gang, record=record, now=visit.now, settings=visit.settings),
        next_trouble_at(gang, now=visit.now),
    )
    wake = min((time for time in looks if time is not None), default=None)
    standing = visit.standing(phase, reason, message, wake=wake)
    refused = reason is Reason.CREATE_REFUSED
    return replace(
        standing,
        stops=tuple(job for job in _live_jobs(visit) if job != gang.job),
        hindrance=trouble if refused else None,
    )


def _start_next(visit: _Visit) -> Standing:
    """Returns the standing between two attempts, or before the first."""
    ledger, now = visit.ledger, visit.now
    record = ledger.current
    phase, reason, message = _opening(record, attempt=ledger.attempt + 1)
    if record is not None:
        waits_until = earliest_start(
            ledger,
            record=record,
            gang=visit.gang,
            policy=visit.spec.run_policy,
            settings=visit.settings,
        )
        written = is_written(record, status=visit.observed.status)
        if waits_until is None or waits_until > now:
            return visit.standing(phase, reason, message, wake=waits_until)
        if not written:
            return replace(visit.standing(phase, reason, message), wake_at=now)
    missing = unmet(visit.observed, spec=visit.spec)
    if missing is not None:
        wake = None
        if visit.observed.leftovers:
            wake = now + timedelta(seconds=LEFTOVER_POLL_S)
        standing = visit.standing(phase, missing.reason, missing.message, wake=wake)
        taken = missing.reason is Reason.CHILD_NAME_CONFLICT
        return replace(standing, hindrance=missing if taken else None)
    return replace(visit.standing(phase, reason, message), starts=True, stops=_live_jobs(visit))


def _opening(before: AttemptRecord | None, *, attempt: int) -> tuple[Phase, Reason, str]:
    """Returns phase, reason and message from the end of one attempt until the next one runs."""
    if before is None:
        return Phase.PENDING, Reason.WAITING_FOR_PODS, Reason.WAITING_FOR_PODS.meaning
    if before.cause is Cause.SUSPENDED:
        return Phase.PENDING, Reason.RESUMING, Reason.RESUMING.meaning
    message = f"Attempt {before.attempt}: {before.message} Attempt {attempt} follows."
    return Phase.RESTARTING, _reason_of(before), message


def _end(visit: _Visit, phase: Phase, reason: Reason, message: str) -> Standing:
    return replace(visit.standing(phase, reason, message), stops=_live_jobs(visit))


def _live_jobs(visit: _Visit) -> tuple[Job, ...]:
    """Returns the Jobs whose pods still work: neither given up, nor done, nor being deleted."""
    live = []
    for job in visit.observed.jobs:
        done = any(
            condition.is_true for condition in job.status.conditions if _ends(condition.type)
        )
        if not done and job.metadata.deletion_timestamp is None:
            live.append(job)
    return tuple(live)


def _pods_hold_up(visit: _Visit, *, but_of_run: str = "") -> bool:
    """Returns whether a pod, of another run than `but_of_run`, has not ended and can be reached."""
    for pod in visit.observed.pods:
        node = visit.observed.nodes.get(pod.spec.node_name)
        reachable = not pod.spec.node_name or (node is not None and node.is_ready)
        ended = pod.status.phase in {"Succeeded", "Failed"}
        if reachable and not ended and pod.metadata.labels.get(names.LABEL_RUN) != but_of_run:
            return True
    return False


def _ends(condition_type: str) -> bool:
    return condition_type in {"FailureTarget", "Failed", "SuccessCriteriaMet", "Complete"}


def _was_running(visit: _Visit) -> bool:
    """Returns whether this attempt ran: a rank's end alone does not take that back."""
    status = visit.observed.status
    return (
        not visit.ledger.is_new_run
        and status.phase is Phase.RUNNING
        and status.attempt == visit.ledger.attempt
    )


def _reason_of(record: AttemptRecord) -> Reason:
    return known_reason(record.reason) or Reason.TRAINER_ERROR
