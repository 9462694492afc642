"""The seven conditions: the state that people, `kubectl wait`, Argo CD and Flux read.

Here: phase, reason and message -> conditions, all present from the first visit on. `Finished` is
true on success and on failure, so that a wait cannot hang. Never here: how the phase came about.
Next: `status.py`.
"""

from datetime import datetime

from cabildo_api.conditions import Condition, ConditionStatus, ConditionType
from cabildo_api.reasons import Reason
from cabildo_api.scalars import whole_seconds
from cabildo_api.training_job_status import Phase, TrainingJobStatus
from cabildo_operator.reconcile.training_job.troubles import Trouble

_State = tuple[ConditionStatus, Reason, str]


def conditions_for(
    phase: Phase,
    *,
    reason: Reason,
    message: str,
    accepted: bool,
    hindrance: Trouble | None = None,
    previous: TrainingJobStatus,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """Returns all conditions of a phase; times change only where a status does."""
    states = _states(phase, reason=reason, message=message, accepted=accepted)
    if hindrance is not None:
        states[ConditionType.STALLED] = ("True", hindrance.reason, hindrance.message)
    known = {item.type: item for item in previous.conditions}
    time = whole_seconds(now)
    return tuple(
        _following(known.get(kind), kind=kind, state=state, generation=generation, time=time)
        for kind, state in states.items()
    )


def with_generation(conditions: tuple[Condition, ...], *, generation: int) -> tuple[Condition, ...]:
    """Returns the conditions as they are, now known to hold for a newer generation."""
    return tuple(item.model_copy(update={"observed_generation": generation}) for item in conditions)


def _following(
    known: Condition | None, *, kind: ConditionType, state: _State, generation: int, time: datetime
) -> Condition:
    """Returns the condition after `known`, which is that one itself when nothing is new."""
    status, reason, message = state
    if known is not None and state == (known.status, known.reason, known.message):
        same = known.observed_generation == generation
        return known if same else known.model_copy(update={"observed_generation": generation})
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=time,
        observed_generation=generation,
    ).since(known)


def _states(
    phase: Phase, *, reason: Reason, message: str, accepted: bool
) -> dict[ConditionType, _State]:
    succeeded, failed = phase is Phase.SUCCEEDED, phase is Phase.FAILED
    finished = succeeded or failed
    stalled = failed or not accepted
    open_end: _State = ("Unknown", Reason.NOT_FINISHED, "")
    return {
        ConditionType.ACCEPTED: (
            ("True", Reason.ACCEPTED, Reason.ACCEPTED.meaning)
            if accepted
            else ("False", reason, message)
        ),
        ConditionType.RUNNING: _running(phase, reason=reason, message=message),
        ConditionType.SUSPENDED: _suspended(phase, reason=reason, message=message),
        ConditionType.SUCCEEDED: (
            ("True" if succeeded else "False", reason, message) if finished else open_end
        ),
        ConditionType.FAILED: (
            ("True" if failed else "False", reason, message)
            if finished
            else ("False", Reason.NOT_FINISHED, "")
        ),
        ConditionType.FINISHED: (
            ("True", reason, message) if finished else ("False", Reason.NOT_FINISHED, "")
        ),
        ConditionType.STALLED: (
            ("True", reason, message)
            if stalled
            else ("False", Reason.COMPLETED if succeeded else Reason.PROGRESSING, "")
        ),
    }


def _running(phase: Phase, *, reason: Reason, message: str) -> _State:
    return ("True" if phase is Phase.RUNNING else "False", reason, message)


def _suspended(phase: Phase, *, reason: Reason, message: str) -> _State:
    if phase is Phase.SUSPENDED:
        return ("True", reason, message)
    if phase is Phase.SUSPENDING:
        return ("False", reason, message)
    return ("False", Reason.NOT_SUSPENDED, "")
