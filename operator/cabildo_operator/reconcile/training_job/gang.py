"""One attempt as it is in the cluster: its Job and the pod of each rank.

Here: facts about ranks: ended, lost, told to stop. Never here: what
they mean for the run. Next: `explain.py` for causes, `troubles.py` for what holds pods up.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cabildo_api import names
from cabildo_api.result import Result
from cabildo_operator.kube.objects import Condition, Event, Job, Pod, Terminated
from cabildo_operator.reconcile.training_job.observed import Observed
from cabildo_operator.reconcile.training_job.render.environment import COMPLETION_INDEX

FAILURE_CONDITIONS: Final = ("FailureTarget", "Failed")
"""FailureTarget comes at once; Failed waits for the end of every pod, even a lost one."""
SUCCESS_CONDITIONS: Final = ("SuccessCriteriaMet", "Complete")
DISRUPTION: Final = "DisruptionTarget"
POLICY_MESSAGE: Final = re.compile(
    r"(?:Container \S+ for pod|Pod) \S+/(?P<pod>\S+)"
    r" (?:failed with exit code (?P<code>\d+)|has condition DisruptionTarget) "
)
"""What the Job controller writes when a rule of the failure policy matched a pod."""
_INDEX: Final = re.compile(r"-(\d+)-[a-z0-9]+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One rank.

    Attributes:
        rank: Its number.
        pod: Its pod, or the last that was seen of it; None when nothing is known.
        departed: Whether the pod is gone.
        node_lost: Whether its node is not ready, or gone.
        failed_at: When the Job was given up, if it was.
        blamed: Whether the Job's message names this pod: it had failed before any was stopped.
    """

    rank: int
    pod: Pod | None = None
    departed: bool = False
    node_lost: bool = False
    failed_at: datetime | None = None
    blamed: bool = False

    @property
    def terminated(self) -> Terminated | None:
        """How the trainer ended, if it has."""
        status = self.pod.container(names.CONTAINER_TRAINER) if self.pod else None
        return status.state.terminated if status else None

    @property
    def result(self) -> Result | None:
        """The trainer's last word, if it left one."""
        terminated = self.terminated
        return Result.parse(terminated.message) if terminated and terminated.message else None

    @property
    def ended(self) -> bool:
        """Whether this rank does nothing any more, as far as the cluster knows."""
        return self.pod is None or self.departed or self.pod.status.phase in {"Succeeded", "Failed"}

    @property
    def holds_up(self) -> bool:
        """Whether a next attempt waits for this rank: not for one that nobody can reach."""
        return not self.ended and not self.node_lost

    @property
    def running(self) -> bool:
        """Whether the trainer runs."""
        status = self.pod.container(names.CONTAINER_TRAINER) if self.pod else None
        return not self.ended and status is not None and status.state.running is not None

    @property
    def ready(self) -> bool:
        """Whether the pod counts as ready."""
        condition = self.pod.condition("Ready") if self.pod and not self.ended else None
        return condition is not None and condition.is_true

    @property
    def disruption(self) -> Condition | None:
        """The condition by which Kubernetes says that it took the pod away itself."""
        condition = self.pod.condition(DISRUPTION) if self.pod else None
        return condition if condition is not None and condition.is_true else None

    @property
    def deletion_requested_at(self) -> datetime | None:
        """When somebody asked for the pod's deletion; its timestamp is the end of the grace."""
        if self.pod is None or self.pod.metadata.deletion_timestamp is None:
            return None
        grace = self.pod.metadata.deletion_grace_period_seconds or 0
        return self.pod.metadata.deletion_timestamp - timedelta(seconds=grace)

    @property
    def told_to_stop(self) -> bool:
        """Whether the Job controller deleted the pod because another rank had failed.

        It does so right after it has set FailureTarget; both times have whole seconds.
        """
        requested = self.deletion_requested_at
        return requested is not None and self.failed_at is not None and requested >= self.failed_at

    @property
    def deleted(self) -> bool:
        """Whether somebody else deleted the pod while it was needed."""
        return self.deletion_requested_at is not None and not self.told_to_stop

    @property
    def evicted_for_good(self) -> bool:
        """Whether the pod was taken off a lost node: it will never come back."""
        return self.node_lost and self.disruption is not None and not self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """All ranks of one attempt."""

    name: str
    run: int
    attempt: int
    job: Job | None
    members: tuple[Member, ...]
    failed_creates: tuple[Event, ...] = ()
    """What the Job controller told about pods that it could not create."""

    @property
    def failure(self) -> Condition | None:
        """The condition by which the Job was given up."""
        return _first_true(self.job, FAILURE_CONDITIONS)

    @property
    def succeeded(self) -> bool:
        """Whether every rank ended with code 0."""
        return _first_true(self.job, SUCCESS_CONDITIONS) is not None

    @property
    def being_deleted(self) -> bool:
        """Whether the Job is on its way out."""
        return self.job is not None and self.job.metadata.deletion_timestamp is not None

    @property
    def holding_up(self) -> tuple[Member, ...]:
        """Ranks that have not ended and could still be reached."""
        return tuple(member for member in self.members if member.holds_up)

    @property
    def alive(self) -> tuple[Member, ...]:
        """Ranks that have not ended."""
        return tuple(member for member in self.members if not member.ended)

    @property
    def incomplete(self) -> bool:
        """Whether the Job still has to get a pod for some rank."""
        given_up = self.job is None or self.failure is not None or self.succeeded
        return not given_up and any(member.pod is None for member in self.members)

    @property
    def ready_count(self) -> int:
        """How many pods are ready."""
        return sum(member.ready for member in self.members)

    @property
    def is_running(self) -> bool:
        """Whether the whole gang runs; ranks that are through with success do not disturb that."""
        return any(member.running for member in self.members) and all(
            (member.running and not member.node_lost)
            or (member.terminated is not None and member.terminated.exit_code == 0)
            for member in self.members
        )

    def running_seconds(self, until: datetime) -> int:
        """Returns how long all ranks ran together, up to `until` at most."""
        starts, ends = [], [until]
        for member in self.members:
            started, finished = _times(member)
            if started is None:
                return 0
            starts.append(started)
            if finished is not None:
                ends.append(finished)
        return max(0, int((min(ends) - max(starts)).total_seconds()))


def gang_of(observed: Observed, *, run: int, attempt: int, nodes: int) -> Gang:
    """Returns the attempt as the snapshot shows it.

    Of several pods of one rank the one that is there counts, then the one that was made last.
    """
    job = observed.job(run, attempt)
    size = (job.spec.completions if job and job.spec.completions else None) or nodes
    failure = _first_true(job, FAILURE_CONDITIONS)
    failed_at = failure.last_transition_time if failure else None
    blamed = blamed_pod(failure)
    seen: dict[int, tuple[Pod, bool]] = {}
    mine = {names.LABEL_RUN: str(run), names.LABEL_ATTEMPT: str(attempt)}.items()
    for pods, departed in ((observed.departed, True), (observed.pods, False)):
        for pod in sorted(pods, key=_age):
            rank = rank_of(pod)
            if rank is not None and mine <= pod.metadata.labels.items():
                seen[rank] = (pod, departed)
    members = []
    for rank in range(size):
        known = seen.get(rank)
        members.append(
            Member(
                rank=rank,
                pod=known[0] if known else None,
                departed=known[1] if known else False,
                node_lost=known is not None and _is_lost(known[0], observed),
                failed_at=failed_at,
                blamed=known is not None and known[0].metadata.name == blamed,
            )
        )
    name = names.job_name(observed.meta.name, run, attempt)
    return Gang(
        name=name,
        run=run,
        attempt=attempt,
        job=job,
        members=tuple(members),
        failed_creates=observed.failed_creates.get(job.metadata.uid, ()) if job else (),
    )


def blamed_pod(failure: Condition | None) -> str:
    """Returns the name of the pod whose failure made the Job controller give the Job up."""
    match = POLICY_MESSAGE.match(failure.message) if failure else None
    return match["pod"] if match else ""


def rank_of(pod: Pod) -> int | None:
    """Returns the rank of a pod, or None if it is not of an Indexed Job."""
    index = pod.metadata.labels.get(COMPLETION_INDEX, "")
    return int(index) if index.isdecimal() else None


def rank_of_name(pod_name: str) -> int | None:
    """Returns the rank in the name that the Job controller gave to a pod."""
    match = _INDEX.search(pod_name)
    return int(match.group(1)) if match else None


def _first_true(job: Job | None, types: tuple[str, ...]) -> Condition | None:
    if job is None:
        return None
    found = (job.condition(type_) for type_ in types)
    return next((item for item in found if item is not None and item.is_true), None)


def _is_lost(pod: Pod, observed: Observed) -> bool:
    if not pod.spec.node_name:
        return False
    node = observed.nodes.get(pod.spec.node_name)
    return node is None or not node.is_ready


def _age(pod: Pod) -> float:
    created = pod.metadata.creation_timestamp
    return created.timestamp() if created else 0.0


def _times(member: Member) -> tuple[datetime | None, datetime | None]:
    status = member.pod.container(names.CONTAINER_TRAINER) if member.pod else None
    if status is None:
        return None, None
    if status.state.running is not None:
        return status.state.running.started_at, None
    terminated = status.state.terminated
    return (terminated.started_at, terminated.finished_at) if terminated else (None, None)
