"""Which run and attempt it is, how each attempt ended, what it cost: the ledger.

Here: status and Jobs -> the ledger, and endings written into it. It lives in the object's status,
so that a restarted operator goes on where the last one stopped. An attempt follows another only
once the ledger in the API server says how the other ended: a charge is never lost or counted
twice. Never here: when the next attempt starts. Next: `course.py`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cabildo_api import names
from cabildo_api.conditions import ConditionType
from cabildo_api.reasons import Reason
from cabildo_api.result import Result
from cabildo_api.training_job import TrainingJobSpec
from cabildo_api.training_job_status import ATTEMPTS_KEPT, AttemptRecord, Cause
from cabildo_operator.kube.objects import Job
from cabildo_operator.reconcile.training_job.evidence import CHARGED, known_reason
from cabildo_operator.reconcile.training_job.explain import (
    Ending,
    is_weaker,
    judge,
    judge_removed,
)
from cabildo_operator.reconcile.training_job.gang import Gang, gang_of
from cabildo_operator.reconcile.training_job.observed import Observed
from cabildo_operator.reconcile.training_job.settings import PlanSettings

MESSAGE_MAX_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The books of one object.

    Attributes:
        run: Number of the run, from 1.
        run_id: Its runID.
        attempt: Number of the newest attempt of the run; 0 before the first.
        restarts: Charges so far in this run.
        records: The last attempts of all runs, oldest first.
        start_time: When the run was started or last resumed; None while it is suspended.
        trained_seconds: How long whole gangs of this run were running.
        is_new_run: Whether the status still speaks of another run, or of none.
        overdrawn: The attempt whose charge exceeds `maxRestarts`, if there is one.
        result: The result record of an attempt that completed just now.
        decide_by: When the next open question about an ended attempt is decided.
    """

    run: int
    run_id: str
    attempt: int = 0
    restarts: int = 0
    records: tuple[AttemptRecord, ...] = ()
    start_time: datetime | None = None
    trained_seconds: int = 0
    is_new_run: bool = False
    overdrawn: AttemptRecord | None = None
    result: Result | None = None
    decide_by: datetime | None = None

    @property
    def current(self) -> AttemptRecord | None:
        """The record of the newest attempt of the run."""
        return self.find(self.attempt)

    @property
    def this_run(self) -> tuple[AttemptRecord, ...]:
        """The records of this run."""
        return tuple(record for record in self.records if record.run == self.run)

    @property
    def undecided(self) -> int:
        """How many attempts of this run have ended without their charge being decided."""
        return sum(is_undecided(record) for record in self.this_run)

    def find(self, attempt: int) -> AttemptRecord | None:
        """Returns the record of an attempt of this run."""
        return next((item for item in self.this_run if item.attempt == attempt), None)

    def with_record(self, record: AttemptRecord) -> "Ledger":
        """Returns the ledger with one record replaced or added."""
        place = (record.run, record.attempt)
        others = [item for item in self.records if (item.run, item.attempt) != place]
        records = sorted([*others, record], key=lambda item: (item.run, item.attempt))
        return replace(self, records=tuple(records[-ATTEMPTS_KEPT:]))

    def with_attempt(self, *, now: datetime) -> "Ledger":
        """Returns the ledger with the next attempt begun."""
        number = self.attempt + 1
        begun = replace(self, attempt=number, start_time=self.start_time or now)
        return begun.with_record(AttemptRecord(run=self.run, attempt=number, start_time=now))


def is_open(record: AttemptRecord) -> bool:
    """Returns whether the attempt goes on."""
    return record.end_time is None


def is_undecided(record: AttemptRecord) -> bool:
    """Returns whether the attempt has ended and its charge awaits a verdict."""
    return record.end_time is not None and record.charged is None


def open_ledger(observed: Observed, *, spec: TrainingJobSpec, now: datetime) -> Ledger:
    """Returns the books as status and Jobs have them, nothing judged yet."""
    status = observed.status
    same = status.run is not None and status.run_id == spec.run_id
    run = status.run if same and status.run else _run_number(observed, spec=spec)
    attempts = [_attempt_of(job) for job in observed.jobs if _run_of(job) == run]
    ledger = Ledger(
        run=run,
        run_id=spec.run_id,
        attempt=max([status.attempt or 0 if same else 0, *attempts]),
        restarts=(status.restarts or 0) if same else 0,
        records=status.attempts,
        start_time=status.start_time if same else None,
        trained_seconds=(status.trained_seconds or 0) if same else 0,
        is_new_run=not same,
    )
    if ledger.attempt and ledger.current is None:
        # The operator ended between the Job's creation and the status that tells of it.
        job = observed.job(run, ledger.attempt)
        began = (job.metadata.creation_timestamp if job else None) or now
        record = AttemptRecord(run=run, attempt=ledger.attempt, start_time=began)
        ledger = replace(ledger, start_time=ledger.start_time or began).with_record(record)
    return ledger


def settle(
    ledger: Ledger,
    *,
    observed: Observed,
    spec: TrainingJobSpec,
    now: datetime,
    settings: PlanSettings,
) -> Ledger:
    """Returns the books after every attempt that is open or undecided was looked at."""
    for record in ledger.records:
        if record.charged is not None:
            continue
        if record.run != ledger.run:
            ledger = ledger.with_record(_superseded(record, now=now))
            continue
        gang = gang_of(observed, run=record.run, attempt=record.attempt, nodes=spec.nodes)
        ending = _ending_of(
            record, gang=gang, observed=observed, spec=spec, now=now, settings=settings
        )
        if ending is not None:
            ledger = enter(ledger, record=record, ending=ending, gang=gang, spec=spec)
    return ledger


def enter(
    ledger: Ledger, *, record: AttemptRecord, ending: Ending, gang: Gang, spec: TrainingJobSpec
) -> Ledger:
    """Returns the books with an ending written in and, once it is sure, its charge."""
    update: dict[str, object] = {"end_time": record.end_time or ending.ended_at}
    cause = record.cause
    if not is_weaker(ending, than=record.cause):
        cause = ending.cause
        update |= {
            "cause": ending.cause,
            "reason": str(ending.reason),
            "message": ending.message[:MESSAGE_MAX_LENGTH],
        }
    if is_open(record):
        seconds = gang.running_seconds(ending.ended_at)
        ledger = replace(ledger, trained_seconds=ledger.trained_seconds + seconds)
    if ending.decide_by is not None:
        waits = min(filter(None, (ledger.decide_by, ending.decide_by)))
        return replace(ledger, decide_by=waits).with_record(record.model_copy(update=update))
    charged = cause in CHARGED
    done = record.model_copy(update=update | {"charged": charged})
    if charged and ledger.restarts >= spec.run_policy.max_restarts:
        ledger = replace(ledger, overdrawn=done)
    elif charged:
        ledger = replace(ledger, restarts=ledger.restarts + 1)
    return replace(ledger, result=ending.result or ledger.result).with_record(done)


def close_current(
    ledger: Ledger, *, cause: Cause, reason: Reason, message: str, now: datetime
) -> Ledger:
    """Returns the books with the newest attempt ended by the operator's own decision."""
    record = ledger.current
    if record is None or record.charged is not None:
        return ledger
    update = {
        "cause": cause,
        "reason": str(reason),
        "message": message[:MESSAGE_MAX_LENGTH],
        "charged": False,
        "end_time": record.end_time or now,
    }
    return ledger.with_record(record.model_copy(update=update))


def _ending_of(
    record: AttemptRecord,
    *,
    gang: Gang,
    observed: Observed,
    spec: TrainingJobSpec,
    now: datetime,
    settings: PlanSettings,
) -> Ending | None:
    if gang.job is not None and not gang.being_deleted:
        return judge(gang, now=now, settings=settings)
    if not is_open(record):
        # Its Job went while its charge awaited a verdict: what is known by now decides.
        return _as_known(record)
    if gang.job is None and _may_be_unseen(record, now=now, settings=settings):
        return None
    ending = judge_removed(gang, now=now)
    if ending.cause is Cause.NON_RETRYABLE or not (spec.suspend or _is_suspending(observed)):
        return ending
    return None if gang.holding_up else _suspended(now)


def _suspended(now: datetime) -> Ending:
    return Ending(
        cause=Cause.SUSPENDED,
        reason=Reason.SUSPENDED,
        message="The attempt was suspended.",
        ended_at=now,
    )


def _as_known(record: AttemptRecord) -> Ending | None:
    if record.cause is None or record.end_time is None:
        return None
    return Ending(
        cause=record.cause,
        reason=known_reason(record.reason) or Reason.PEER_LOST,
        message=record.message or "",
        ended_at=record.end_time,
    )


def _may_be_unseen(record: AttemptRecord, *, now: datetime, settings: PlanSettings) -> bool:
    """Returns whether a Job may be missing only because the cache is behind the API server."""
    return record.start_time is None or now < record.start_time + timedelta(
        seconds=settings.cache_lag_s
    )


def _is_suspending(observed: Observed) -> bool:
    condition = observed.status.condition(ConditionType.SUSPENDED)
    return condition is not None and condition.reason in {Reason.SUSPENDING, Reason.SUSPENDED}


def _superseded(record: AttemptRecord, *, now: datetime) -> AttemptRecord:
    return record.model_copy(
        update={
            "cause": record.cause or Cause.SUPERSEDED,
            "reason": record.reason or str(Reason.SUPERSEDED),
            "message": record.message or "A new runID replaced the run.",
            "charged": False,
            "end_time": record.end_time or now,
        }
    )


def _run_number(observed: Observed, *, spec: TrainingJobSpec) -> int:
    """Returns the number of a run that the status does not tell of yet.

    Its Job may exist already, when the operator ended before the status was written. A Job of the
    same number that was made for yet another runID belongs to a run that was given up unseen.
    """
    least = (observed.status.run or 0) + 1
    later = [job for job in observed.jobs if _run_of(job) >= least]
    for job in later:
        if job.metadata.labels.get(names.LABEL_RUN_ID) == spec.run_id:
            return _run_of(job)
    return max((_run_of(job) for job in later), default=least - 1) + 1


def _run_of(job: Job) -> int:
    return _number(job, names.LABEL_RUN)


def _attempt_of(job: Job) -> int:
    return _number(job, names.LABEL_ATTEMPT)


def _number(job: Job, label: str) -> int:
    text = job.metadata.labels.get(label, "")
    return int(text) if text.isdecimal() else 0
