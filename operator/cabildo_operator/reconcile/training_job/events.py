"""The facts worth an Event: what changed between the status before and the one after.

Here: two statuses -> Events, each with a fact that makes its name, so that telling it again after
a crash changes nothing. Never here: a fact that is not in the status. Next: `kube/events.py`.
"""

from collections.abc import Iterator
from typing import Final

from cabildo_api.conditions import ConditionType
from cabildo_api.reasons import Reason
from cabildo_api.training_job_status import AttemptRecord, Cause, Phase, TrainingJobStatus
from cabildo_operator.kube.actions import EmitEvent

QUIET: Final = frozenset(
    {
        Reason.PENDING,
        Reason.RESUMING,
        Reason.SUSPENDING,
        Reason.WAITING_FOR_PODS,
    }
)
"""Reasons of a healthy way; what they tell is in the conditions."""
NORMAL: Final = frozenset({Cause.COMPLETED, Cause.SUSPENDED, Cause.SUPERSEDED})


def events_between(before: TrainingJobStatus, after: TrainingJobStatus) -> tuple[EmitEvent, ...]:
    """Returns the Events that a change of status is worth."""
    told = (*_endings(before, after), *_damage(before, after), *_phase(before, after))
    return (*told, *_hindrance(before, after))


def _phase(before: TrainingJobStatus, after: TrainingJobStatus) -> Iterator[EmitEvent]:
    """Yields the Event of a new phase, or of a trouble that came up inside one."""
    phase, run = after.phase, f"r{after.run}"
    attempt = f"{run}-a{after.attempt}"
    running = after.condition(ConditionType.RUNNING)
    known = before.condition(ConditionType.RUNNING)
    if running is None:
        return
    same = before.phase is phase and (before.run, before.attempt) == (after.run, after.attempt)
    if phase in {Phase.SUCCEEDED, Phase.FAILED}:
        if not same:
            kind = "Normal" if phase is Phase.SUCCEEDED else "Warning"
            yield _event(kind, running.reason, running.message, fact=f"{run}-end")
    elif phase in {Phase.RUNNING, Phase.SUSPENDED}:
        if not same:
            yield _event("Normal", running.reason, running.message, fact=attempt)
    elif running.reason not in QUIET:
        ended = {record.reason for record in after.attempts}
        news = known is None or known.reason != running.reason
        if news and running.reason not in ended:
            yield _event("Warning", running.reason, running.message, fact=attempt)


def _hindrance(before: TrainingJobStatus, after: TrainingJobStatus) -> Iterator[EmitEvent]:
    """Yields the Event of a write that the API server refuses beside a live attempt."""
    stalled, known = after.condition(ConditionType.STALLED), before.condition(ConditionType.STALLED)
    running = after.condition(ConditionType.RUNNING)
    if stalled is None or stalled.status != "True" or running is None:
        return
    news = known is None or (known.status, known.reason) != (stalled.status, stalled.reason)
    if news and stalled.reason != running.reason:
        fact = f"r{after.run}-a{after.attempt}"
        yield _event("Warning", stalled.reason, stalled.message, fact=fact)


def _endings(before: TrainingJobStatus, after: TrainingJobStatus) -> Iterator[EmitEvent]:
    """Yields the Event of each attempt whose end is decided since."""
    decided = {_place(record) for record in before.attempts if record.charged is not None}
    for record in after.attempts:
        if record.charged is not None and _place(record) not in decided:
            kind = "Normal" if record.cause in NORMAL else "Warning"
            cost = " It costs a restart." if record.charged else ""
            message = f"Attempt {record.attempt} ended: {record.message}{cost}"
            reason = record.reason or str(record.cause)
            yield _event(kind, reason, message, fact=f"r{record.run}-a{record.attempt}-end")


def _damage(before: TrainingJobStatus, after: TrainingJobStatus) -> Iterator[EmitEvent]:
    """Yields the Event of each damaged checkpoint that was found since."""
    known = {_place(record): record.corrupt_checkpoints for record in before.attempts}
    for record in after.attempts:
        for path in record.corrupt_checkpoints:
            if path not in known.get(_place(record), ()):
                yield _event(
                    "Warning",
                    Reason.CHECKPOINT_CORRUPT,
                    f"{path}: {Reason.CHECKPOINT_CORRUPT.meaning}",
                    fact=f"r{record.run}-a{record.attempt}-{path}",
                )


def _place(record: AttemptRecord) -> tuple[int, int]:
    return record.run, record.attempt


def _event(kind: str, reason: str, message: str, *, fact: str) -> EmitEvent:
    return EmitEvent(
        type="Normal" if kind == "Normal" else "Warning", reason=reason, message=message, fact=fact
    )
