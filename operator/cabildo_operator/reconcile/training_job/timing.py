"""When things happen: back-off, the earliest next attempt, deadlines, the next look.

Here: ledger and clock readings -> times. Never here: a clock, or what happens at those times. Next:
`course.py`.
"""

from datetime import datetime, timedelta
from typing import Final

from cabildo_api.run_policy import RunPolicy
from cabildo_api.training_job import TrainingJobSpec
from cabildo_api.training_job_status import AttemptRecord, Cause, TrainingJobStatus
from cabildo_operator.reconcile.training_job.attempts import Ledger
from cabildo_operator.reconcile.training_job.explain import failed_at, lost_decision_at
from cabildo_operator.reconcile.training_job.gang import Gang
from cabildo_operator.reconcile.training_job.settings import PlanSettings

MAX_BACKOFF_S: Final = 300
"""Doubling stops here; a longer `backoffSeconds` is taken as it is."""
MAX_DOUBLINGS: Final = 32


def backoff_s(policy: RunPolicy, *, restarts: int) -> int:
    """Returns the wait before a restart: doubled for each one before it, up to five minutes."""
    doublings = min(max(restarts - 1, 0), MAX_DOUBLINGS)
    longest = max(MAX_BACKOFF_S, policy.backoff_seconds)
    return min(policy.backoff_seconds << doublings, longest)


def earliest_start(
    ledger: Ledger,
    *,
    record: AttemptRecord,
    gang: Gang | None,
    policy: RunPolicy,
    settings: PlanSettings,
) -> datetime | None:
    """Returns when the attempt after `record` may start; None while only a verdict can tell.

    Codes of ranks that were told to stop are awaited a little, so that another rank's 65 is not
    overtaken. A charge that awaits a node's verdict holds nothing up, unless it could be the one
    that the limit does not allow.
    """
    ended = record.end_time
    if ended is None:
        return None
    if record.charged is None and ledger.restarts + ledger.undecided > policy.max_restarts:
        return None
    earliest = ended
    if gang is not None and gang.holding_up:
        earliest = ended + timedelta(seconds=settings.settle_s)
    if record.charged:
        wait_s = backoff_s(policy, restarts=ledger.restarts)
        return max(earliest, ended + timedelta(seconds=wait_s))
    if record.cause is Cause.SUSPENDED or record.start_time is None:
        return earliest
    # Nothing is charged, but a pod that is evicted at once must not become a loop.
    return max(earliest, record.start_time + timedelta(seconds=policy.backoff_seconds))


def is_written(record: AttemptRecord, *, status: TrainingJobStatus) -> bool:
    """Returns whether the API server already has this ending: only then may another attempt follow.

    The pods may be gone a moment later, and with them the reason for the charge.
    """
    return any(
        (known.run, known.attempt) == (record.run, record.attempt)
        and known.end_time is not None
        and (known.cause, known.charged) == (record.cause, record.charged)
        for known in status.attempts
    )


def deadline_of(ledger: Ledger, *, spec: TrainingJobSpec) -> datetime | None:
    """Returns when the run has taken too long; time spent suspended does not count."""
    limit_s = spec.run_policy.active_deadline_seconds
    if not limit_s or spec.suspend or ledger.start_time is None:
        return None
    return ledger.start_time + timedelta(seconds=limit_s)


def next_look(
    gang: Gang, *, record: AttemptRecord, now: datetime, settings: PlanSettings
) -> datetime | None:
    """Returns when a live attempt must be looked at though nothing happens."""
    if gang.job is None or gang.being_deleted:
        return max(record.start_time or now, now) + timedelta(seconds=settings.cache_lag_s)
    if gang.failure is not None:
        return failed_at(gang, now=now) + timedelta(seconds=settings.settle_s)
    return lost_decision_at(gang, settings=settings, now=now)
