"""What one rank tells about the end of its attempt.

Here: a pod's conditions, exit code and last word -> at most one piece of evidence. Never here: the
choice among ranks. Next: `explain.py`, which takes the first that holds over all ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cabildo_api.exit_codes import SIGKILL_CODE, SIGTERM_CODE, ExitCode, exit_code
from cabildo_api.reasons import Reason, remedy
from cabildo_api.training_job_status import Cause
from cabildo_operator.kube.objects import Terminated
from cabildo_operator.reconcile.training_job.gang import (
    POLICY_MESSAGE,
    Gang,
    Member,
    rank_of_name,
)

PRECEDENCE: Final[Mapping[Cause, int]] = {
    Cause.COMPLETED: 0,
    Cause.NON_RETRYABLE: 1,
    Cause.SUSPENDED: 2,
    Cause.SUPERSEDED: 2,
    Cause.DEADLINE_EXCEEDED: 2,
    Cause.DISRUPTED: 2,
    Cause.PREEMPTED: 3,
    Cause.TRAINER_FAILED: 4,
    Cause.PEER_LOST: 5,
}
"""An attempt has one cause: the first of these that holds over all ranks."""
CHARGED: Final = frozenset({Cause.TRAINER_FAILED, Cause.PEER_LOST})
"""Causes that cost a restart; all others are somebody else's doing."""
OUT_OF_MEMORY_STATUS: Final = "OOMKilled"
LOST_STATUS: Final = "ContainerStatusUnknown"
"""The kubelet's word for a container that it no longer finds, say after the node rebooted."""
NODE_GONE: Final = "DeletionByPodGC"
"""The reason by which the collector removes the pods of a Node that was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why an attempt may have ended, as one rank shows it."""

    cause: Cause
    reason: Reason
    message: str

    @property
    def order(self) -> tuple[int, int]:
        """Sorts by precedence; inside a cause by the order of the table of reasons."""
        return PRECEDENCE[self.cause], list(Reason).index(self.reason)


def evidence_of(member: Member, *, gang: Gang) -> Evidence | None:
    """Returns what a rank tells, or None when it ended well, as told, or not yet."""
    ended = member.terminated
    if ended is None and (member.pod is None or member.departed):
        told = _from_policy(member, gang=gang)
        if told is not None:
            return told
    if ended is not None:
        code = exit_code(ended.exit_code)
        if code is not None and code is not ExitCode.FINISHED and not code.retryable:
            return _non_retryable(member, ended=ended, code=code, gang=gang)
    return _disrupted(member, gang=gang) or (
        _ended_by_itself(member, ended=ended, gang=gang) if ended else _rejected(member, gang=gang)
    )


def known_reason(word: str | None) -> Reason | None:
    """Returns the row of the table for a word, if it is in the table."""
    member = Reason._value2member_map_.get(word)
    return member if isinstance(member, Reason) else None


def _disrupted(member: Member, *, gang: Gang) -> Evidence | None:
    """Returns what Kubernetes, a person or a dead node did to the pod."""
    who = _who(member, gang=gang)
    condition = member.disruption
    if member.node_lost:
        node = member.pod.spec.node_name if member.pod else ""
        return _uncharged(Reason.NODE_LOST, f"{who}: its node {node} is not ready or gone")
    if condition is not None:
        reason = Reason.NODE_LOST if condition.reason == NODE_GONE else Reason.POD_DISRUPTED
        return _uncharged(reason, f"{who}: {condition.reason}: {condition.message}")
    if member.deleted:
        return _uncharged(Reason.POD_DELETED, f"{who} was deleted")
    return None


def _rejected(member: Member, *, gang: Gang) -> Evidence | None:
    """Returns the kubelet's refusal of a pod whose trainer never ran."""
    if member.pod is None or member.pod.status.phase != "Failed":
        return None
    status = member.pod.status
    return _uncharged(
        Reason.POD_DISRUPTED, f"{_who(member, gang=gang)}: {status.reason}: {status.message}"
    )


def _ended_by_itself(member: Member, *, ended: Terminated, gang: Gang) -> Evidence | None:
    """Returns what an exit code tells, unless the rank only ended because it was told to.

    A rank that the Job controller stops after another's failure may leave 75, 143 or 137: those
    are consequences. If they counted, an out-of-memory kill at start-up would be excused by its
    peer's obedient 75 for ever.
    """
    told = {ExitCode.PREEMPTED, SIGTERM_CODE}
    if ended.exit_code == ExitCode.FINISHED:
        return None
    forced = ended.reason in {OUT_OF_MEMORY_STATUS, LOST_STATUS}
    if member.told_to_stop and not forced and (ended.exit_code in told or _obeyed(member)):
        return None
    return _by_code(_who(member, gang=gang), ended=ended, words=_words(member, ended))


def _by_code(who: str, *, ended: Terminated, words: str) -> Evidence:
    """Returns what the end of a container is called."""
    code = ended.exit_code
    if ended.reason == OUT_OF_MEMORY_STATUS:
        evidence = _charged(Reason.OUT_OF_MEMORY, f"{who} used more memory than its limit")
    elif ended.reason == LOST_STATUS:
        evidence = _uncharged(Reason.POD_DISRUPTED, f"{who}: {ended.reason}{words}")
    elif code == ExitCode.PREEMPTED:
        message = _sentence(f"{who} was told to stop", Reason.PREEMPTED)
        evidence = Evidence(cause=Cause.PREEMPTED, reason=Reason.PREEMPTED, message=message)
    elif code == ExitCode.PEER_LOST:
        evidence = _peer_lost(who)
    elif code in {SIGKILL_CODE, SIGTERM_CODE}:
        evidence = _charged(Reason.KILLED, f"{who} was killed from outside (code {code})")
    else:
        evidence = _charged(Reason.TRAINER_ERROR, f"{who} ended with code {code}{words}")
    return evidence


def _obeyed(member: Member) -> bool:
    requested, ended = member.deletion_requested_at, member.terminated
    if requested is None or ended is None or ended.finished_at is None:
        return False
    return ended.finished_at > requested


def _non_retryable(member: Member, *, ended: Terminated, code: ExitCode, gang: Gang) -> Evidence:
    """Returns the trainer's own explanation of a code that forbids another attempt."""
    result = member.result
    reason = (known_reason(result.reason) if result else None) or code.reason
    advice = (result.remedy if result else "") or reason.remedy
    return Evidence(
        cause=Cause.NON_RETRYABLE,
        reason=reason,
        message=_sentence(f"{_who(member, gang=gang)}{_words(member, ended)}", reason, advice),
    )


def _from_policy(member: Member, *, gang: Gang) -> Evidence | None:
    """Returns what the Job's FailureTarget message tells about a pod that is gone."""
    failure = gang.failure
    match = POLICY_MESSAGE.match(failure.message) if failure else None
    if match is None or rank_of_name(match["pod"]) != member.rank:
        return None
    who = f"rank {member.rank} (pod {match['pod']}, gone)"
    if match["code"] is None:
        return _uncharged(Reason.POD_DISRUPTED, f"{who} was taken away by Kubernetes")
    code = int(match["code"])
    known = exit_code(code)
    if known is ExitCode.PEER_LOST:
        return _peer_lost(who)
    if known is not None:
        cause = Cause.PREEMPTED if known.retryable else Cause.NON_RETRYABLE
        text = f"{who} ended with code {code}: {known.description}"
        return Evidence(cause=cause, reason=known.reason, message=_sentence(text, known.reason))
    if code in {SIGKILL_CODE, SIGTERM_CODE}:
        return _charged(Reason.KILLED, f"{who} was killed (code {code})")
    return _charged(Reason.TRAINER_ERROR, f"{who} ended with code {code}")


def _peer_lost(who: str) -> Evidence:
    return Evidence(
        cause=Cause.PEER_LOST,
        reason=Reason.PEER_LOST,
        message=_sentence(f"{who} lost contact with another rank", Reason.PEER_LOST),
    )


def _uncharged(reason: Reason, message: str) -> Evidence:
    return Evidence(cause=Cause.DISRUPTED, reason=reason, message=_sentence(message, reason))


def _charged(reason: Reason, message: str) -> Evidence:
    return Evidence(cause=Cause.TRAINER_FAILED, reason=reason, message=_sentence(message, reason))


def _who(member: Member, *, gang: Gang) -> str:
    pod = member.pod.metadata.name if member.pod else gang.name
    return f"rank {member.rank} (pod {pod})"


def _words(member: Member, ended: Terminated) -> str:
    """Returns the trainer's last words, else the kubelet's, after a colon."""
    result = member.result
    said = result.message if result else ended.message.strip()[-512:]
    if not said and ended.reason != "Error":
        said = ended.reason
    return f": {said}" if said else ""


def _sentence(message: str, reason: Reason, advice: str = "") -> str:
    advice = advice or remedy(reason)
    message = message.rstrip(". ")
    return f"{message}. {advice}" if advice else f"{message}."
