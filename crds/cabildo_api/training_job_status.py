"""The status of a TrainingJob, which only the operator writes.

Here: what is observed and what the operator must remember to be crash-safe, all of it in the open.
Never here: defaults in the schema; an absent field means that nothing is known yet. Measured values
are strings, because they may be NaN. Next: `conditions.py` for the conditions' meaning.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cabildo_api.base import MapKey, StatusModel
from cabildo_api.conditions import Condition
from cabildo_api.scalars import Digest, MetricName, MetricValue, ShortText, Text, Time, Uri

ATTEMPTS_KEPT = 10


class Phase(StrEnum):
    """The state in one word, derived from the conditions, for printing."""

    PENDING = "Pending"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Cause(StrEnum):
    """Why an attempt ended: the first that holds over all of its ranks."""

    COMPLETED = "Completed"
    NON_RETRYABLE = "NonRetryable"
    DISRUPTED = "Disrupted"
    PREEMPTED = "Preempted"
    TRAINER_FAILED = "TrainerFailed"
    PEER_LOST = "PeerLost"
    SUSPENDED = "Suspended"
    SUPERSEDED = "Superseded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


class Progress(StatusModel):
    """How far the run is, as rank 0 last reported it."""

    percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the work done, in percent."""
    eta_seconds: int | None = None
    """Time left, in seconds."""
    epoch: int | None = None
    """Epoch being trained, counted from 0."""
    step: int | None = None
    """Optimiser steps done."""
    total_steps: int | None = None
    """Optimiser steps of the whole run, if nothing ends it early."""
    loss: MetricValue | None = None
    """Last training loss."""
    last_report_time: Time | None = None
    """When rank 0 last reported."""


class CheckpointRecord(StatusModel):
    """A committed checkpoint."""

    step: int
    """Optimiser step after which it was taken."""
    uri: Uri
    """Where it lies: pvc://CLAIM/PATH."""
    digest: Digest
    """sha256: and the digest of its manifest, which names every file's digest."""
    time: Time | None = None
    """When it was committed."""


class BestCheckpointRecord(CheckpointRecord):
    """The committed checkpoint with the best objective."""

    metric: MetricName | None = None
    """Name of the objective's metric."""
    value: MetricValue | None = None
    """Value of that metric."""


class CheckpointStatus(StatusModel):
    """The checkpoints of the current run."""

    last: CheckpointRecord | None = None
    """The newest checkpoint."""
    best: BestCheckpointRecord | None = None
    """The best checkpoint by the objective."""


class Parameters(StatusModel):
    """The size of the model."""

    total: int
    """Number of parameters."""
    trainable: int
    """Number of parameters that training changes."""


class DataStatus(StatusModel):
    """What was read."""

    digest: Digest
    """sha256: and the digest of the rows that the run trained on."""


class Metric(StatusModel):
    """A measured value."""

    name: MetricName
    """Name of the metric."""
    value: MetricValue
    """Its value, as a string since it may be NaN."""


class BaselineMetric(StatusModel):
    """A measured value of a baseline on the same rows."""

    name: MetricName
    """Name of the baseline, such as persistence."""
    metric: MetricName
    """Name of the metric."""
    value: MetricValue
    """Its value, as a string since it may be NaN."""


class Artifact(StatusModel):
    """Something that the run leaves behind."""

    name: MetricName
    """Name of the artifact, such as weights."""
    uri: Uri
    """Where it lies."""
    digest: Digest
    """Its digest: sha256: and the hexadecimal digits."""


class ResultStatus(StatusModel):
    """The result of a run that has Succeeded."""

    metrics: Annotated[tuple[Metric, ...], Field(max_length=64), MapKey("name")] = ()
    """Metrics of the model."""
    baselines: Annotated[tuple[BaselineMetric, ...], Field(max_length=64)] = ()
    """Metrics of the baselines on the same rows."""
    artifacts: Annotated[tuple[Artifact, ...], Field(max_length=16), MapKey("name")] = ()
    """What the run leaves behind."""


class AttemptRecord(StatusModel):
    """One attempt that has ended, or the one that goes on."""

    run: int
    """Run that it belongs to."""
    attempt: int
    """Number of the attempt inside the run, from 1."""
    cause: Cause | None = None
    """Why it ended; absent while it goes on."""
    reason: ShortText | None = None
    """Reason as in the conditions."""
    message: Text | None = None
    """What happened, with rank, node and code."""
    charged: bool | None = None
    """Whether it cost a restart; absent while it goes on or while a node's verdict is awaited."""
    corrupt_checkpoints: Annotated[tuple[Uri, ...], Field(max_length=4)] = ()
    """Checkpoints that it found damaged and set aside, by path."""
    start_time: Time | None = None
    """When its Job was created."""
    end_time: Time | None = None
    """When its end was decided."""


class TrainingJobStatus(StatusModel):
    """What the operator knows about the job."""

    observed_generation: int | None = None
    """metadata.generation that this status speaks of."""
    phase: Phase | None = None
    """The state in one word, derived from the conditions, for printing only."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), MapKey("type")] = ()
    """The state: Accepted, Running, Suspended, Succeeded, Failed, Finished and Stalled."""
    run: int | None = None
    """Number of the run, from 1; a new runID adds one."""
    run_id: Annotated[ShortText | None, Field(alias="runID")] = None
    """runID of that run."""
    attempt: int | None = None
    """Number of the attempt inside the run, from 1."""
    restarts: int | None = None
    """Restarts of this run that were the job's own fault; runPolicy.maxRestarts bounds them."""
    nodes: int | None = None
    """Pods of the current attempt that exist."""
    ready: Annotated[str, Field(max_length=16)] | None = None
    """Pods that are ready of those wanted, such as 2/2."""
    selector: Annotated[str, Field(max_length=512)] | None = None
    """Label selector of the job's pods."""
    start_time: Time | None = None
    """When the current run started, or was last resumed."""
    completion_time: Time | None = None
    """When the run finished."""
    trained_seconds: int | None = None
    """Seconds during which pods of this run were running, over all attempts."""
    progress: Progress | None = None
    """How far the run is."""
    checkpoint: CheckpointStatus | None = None
    """The checkpoints of this run."""
    parameters: Parameters | None = None
    """The size of the model."""
    data: DataStatus | None = None
    """What was read."""
    result: ResultStatus | None = None
    """The result, once the run has Succeeded."""
    attempts: Annotated[tuple[AttemptRecord, ...], Field(max_length=ATTEMPTS_KEPT)] = ()
    """The last 10 attempts, oldest first: the operator's memory of causes and charges."""

    def condition(self, kind: str) -> Condition | None:
        """Returns the condition of a type, if it is there."""
        return next((item for item in self.conditions if item.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Returns whether the condition of a type is True."""
        return any(item.type == kind and item.status == "True" for item in self.conditions)
