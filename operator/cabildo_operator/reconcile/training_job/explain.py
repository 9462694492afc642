"""Why an attempt ended: one cause over all ranks, and when it is sure.

Here: which rank's evidence counts, and how long to wait for more. Never here: what follows from a
cause; that is `course.py`. Next: `attempts.py`, which writes the ending into the ledger.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cabildo_api.exit_codes import ExitCode
from cabildo_api.reasons import Reason
from cabildo_api.result import Outcome, Result
from cabildo_api.training_job_status import Cause
from cabildo_operator.reconcile.training_job.evidence import (
    PRECEDENCE,
    Evidence,
    evidence_of,
)
from cabildo_operator.reconcile.training_job.gang import Gang, Member
from cabildo_operator.reconcile.training_job.settings import PlanSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended.

    Attributes:
        cause: The class that decides about retry and charge.
        reason: The word for conditions and Events.
        message: What happened and what to do.
        ended_at: When it was over.
        decide_by: Until when a rank still to be heard of may change the cause; None: it is sure.
        result: The result record of a completed attempt.
        by_absence: Whether it rests only on a rank that left no trace.
    """

    cause: Cause
    reason: Reason
    message: str
    ended_at: datetime
    decide_by: datetime | None = None
    result: Result | None = None
    by_absence: bool = False


def judge(gang: Gang, *, now: datetime, settings: PlanSettings) -> Ending | None:
    """Returns how the attempt ended, or None while it goes on."""
    if gang.succeeded:
        return _judge_success(gang, now=now)
    if gang.failure is not None:
        return _judge_failure(gang, now=now, settings=settings)
    return _judge_lost(gang, now=now, settings=settings)


def judge_removed(gang: Gang, *, now: datetime) -> Ending:
    """Returns the ending of an attempt whose Job somebody deleted.

    A rank's own verdict that forbids another attempt still counts.
    """
    found = [item for item in _all_evidence(gang) if item.cause is Cause.NON_RETRYABLE]
    if found:
        return _ending(found[0], ended_at=now)
    job = gang.job
    at = (job.metadata.deletion_timestamp if job else None) or now
    return Ending(
        cause=Cause.DISRUPTED,
        reason=Reason.POD_DELETED,
        message=f"Job {gang.name} was deleted.",
        ended_at=min(at, now),
    )


def _judge_success(gang: Gang, *, now: datetime) -> Ending | None:
    """Returns Completed only for a result record that says so; code 0 alone proves nothing."""
    chief = gang.members[0]
    at = (gang.job.status.completion_time if gang.job else None) or now
    if chief.terminated is None:
        if not chief.ended or (chief.pod is not None and not chief.departed):
            return None  # the pod's own news is on its way
        message = "The pod of rank 0 was gone before its result could be read."
        return Ending(
            cause=Cause.DISRUPTED, reason=Reason.POD_DELETED, message=message, ended_at=at
        )
    result = chief.result
    if result is not None and _is_complete(result, gang=gang):
        message = f"Attempt {gang.attempt} completed."
        return Ending(
            cause=Cause.COMPLETED,
            reason=Reason.COMPLETED,
            message=message,
            ended_at=at,
            result=result,
        )
    said = f"outcome {result.outcome}" if result else "no readable record"
    return Ending(
        cause=Cause.TRAINER_FAILED,
        reason=Reason.RESULT_MISSING,
        message=(
            f"{_pod_name(chief, gang=gang)} ended with code 0 and {said}."
            f" {Reason.RESULT_MISSING.remedy}"
        ),
        ended_at=at,
    )


def _is_complete(result: Result, *, gang: Gang) -> bool:
    return (
        result.outcome is Outcome.COMPLETE
        and result.run == gang.run
        and result.attempt == gang.attempt
    )


def _judge_failure(gang: Gang, *, now: datetime, settings: PlanSettings) -> Ending | None:
    """Returns the ending of a Job that the Job controller has given up.

    Ranks that have not ended get `settle_s` to be heard; when nothing but 69 is known, the charge
    waits up to `node_verdict_s` for the verdict about a silent rank's node. None means that no rank
    has been heard of yet: the Job's news was faster than the pods'.
    """
    at = failed_at(gang, now=now)
    best = min(_all_evidence(gang), key=lambda item: item.order, default=None)
    only_peers = best is not None and best.cause is Cause.PEER_LOST
    patience_s = settings.node_verdict_s if only_peers else settings.settle_s
    decide_by = at + timedelta(seconds=patience_s)
    final = best is not None and best.cause is Cause.NON_RETRYABLE
    if not (final or not gang.holding_up or now >= decide_by):
        return _ending(best, ended_at=at, decide_by=decide_by) if best else None
    if best is None or only_peers:
        absent = _absent(gang)
        if absent is not None:
            return replace(_ending(absent, ended_at=at), by_absence=True)
    return _ending(best or _unexplained(gang), ended_at=at)


def failed_at(gang: Gang, *, now: datetime) -> datetime:
    """Returns when the Job was given up."""
    failure = gang.failure
    return (failure.last_transition_time if failure else None) or now


def _judge_lost(gang: Gang, *, now: datetime, settings: PlanSettings) -> Ending | None:
    """Returns the ending of a gang of which a lost node's rank was evicted.

    The Job controller cannot tell: that pod never reaches a terminal phase. Its peers normally end
    with 69 first; they get the collective timeout for it, since their logs are worth keeping.
    """
    evicted = [member for member in gang.members if member.evicted_for_good]
    if not evicted or gang.job is None:
        return None
    at = min(_evicted_at(member, now=now) for member in evicted)
    decide_by = at + timedelta(seconds=settings.collective_timeout_s + settings.settle_s)
    if gang.holding_up and now < decide_by:
        return None
    best = min(_all_evidence(gang), key=lambda item: item.order)
    return _ending(best, ended_at=at)


def lost_decision_at(gang: Gang, *, settings: PlanSettings, now: datetime) -> datetime | None:
    """Returns when a gang with an evicted rank on a lost node is given up, if there is one."""
    evicted = [member for member in gang.members if member.evicted_for_good]
    if not evicted:
        return None
    at = min(_evicted_at(member, now=now) for member in evicted)
    return at + timedelta(seconds=settings.collective_timeout_s + settings.settle_s)


def _evicted_at(member: Member, *, now: datetime) -> datetime:
    condition = member.disruption
    told = condition.last_transition_time if condition else None
    return member.deletion_requested_at or told or now


def _all_evidence(gang: Gang) -> list[Evidence]:
    found = (evidence_of(member, gang=gang) for member in gang.members)
    return [item for item in found if item is not None]


def _absent(gang: Gang) -> Evidence | None:
    """Returns that a rank left no trace at all: somebody removed its pod.

    This only excuses peers' 69: a rank may also be absent because it was never created.
    """
    gone = [
        member.rank
        for member in gang.members
        if member.terminated is None
        and (member.pod is None or member.departed)
        and evidence_of(member, gang=gang) is None
    ]
    if not gone:
        return None
    return Evidence(
        cause=Cause.DISRUPTED,
        reason=Reason.POD_DELETED,
        message=f"The pod of rank {gone[0]} is gone and left no exit code.",
    )


def _unexplained(gang: Gang) -> Evidence:
    """Returns what is left when no rank has a word of its own: obedience, else the Job's words."""
    for member in gang.members:
        if member.terminated is not None and member.terminated.exit_code == ExitCode.PREEMPTED:
            return Evidence(
                cause=Cause.PREEMPTED,
                reason=Reason.PREEMPTED,
                message=f"{_pod_name(member, gang=gang)} was told to stop.",
            )
    failure = gang.failure
    text = f"{failure.reason}: {failure.message}" if failure else "no condition"
    return Evidence(
        cause=Cause.PEER_LOST,
        reason=Reason.PEER_LOST,
        message=f"Job {gang.name} failed without an exit code that explains it: {text}",
    )


def _ending(evidence: Evidence, *, ended_at: datetime, decide_by: datetime | None = None) -> Ending:
    return Ending(
        cause=evidence.cause,
        reason=evidence.reason,
        message=evidence.message,
        ended_at=ended_at,
        decide_by=decide_by,
    )


def is_weaker(ending: Ending, *, than: Cause | None) -> bool:
    """Returns whether an ending gives way to a cause that was seen earlier.

    That a rank left no trace excuses its peers' 69 and nothing else.
    """
    if than is None:
        return False
    order = PRECEDENCE[Cause.PEER_LOST] if ending.by_absence else PRECEDENCE[ending.cause]
    return order > PRECEDENCE[than]


def _pod_name(member: Member, *, gang: Gang) -> str:
    name = member.pod.metadata.name if member.pod else gang.name
    return f"Rank {member.rank} (pod {name})"
