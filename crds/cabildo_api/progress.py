"""The progress report: what rank 0 POSTs to the operator, and the answer.

Here: the wire models. `trainerStatus` is the format of Kubeflow Trainer's status server, so that a
client made for that one works unchanged; `cabildo` is our own part, and optional. Never here: HTTP.
Next: the operator's `progress/` and the trainer's `report/`.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from cabildo_api.base import MapKey, StatusModel
from cabildo_api.scalars import Digest, MetricName, MetricValue, Text, Time, Uri
from cabildo_api.training_job_status import CheckpointStatus, Parameters


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) else value


class ReportedMetric(StatusModel):
    """A value that the trainer measured; numbers are taken as text."""

    name: MetricName
    value: Annotated[MetricValue, BeforeValidator(_as_text)]


class TrainerStatus(StatusModel):
    """The part that Kubeflow Trainer's clients send."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    estimated_remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    metrics: Annotated[tuple[ReportedMetric, ...], Field(max_length=256), MapKey("name")] = ()
    last_updated_time: Time | None = None


class TrainerPhase(StrEnum):
    """What the trainer is doing."""

    STARTING = "starting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    CHECKPOINTING = "checkpointing"
    FINISHING = "finishing"


class CorruptCheckpoint(StatusModel):
    """A checkpoint that did not verify and was set aside."""

    path: Uri
    reason: Text


class TrainerDetail(StatusModel):
    """The part that only Cabildo's trainer sends."""

    epoch: int | None = None
    step: int | None = None
    total_steps: int | None = None
    loss: MetricValue | None = None
    attempt: int | None = None
    phase: TrainerPhase | None = None
    checkpoint: CheckpointStatus | None = None
    parameters: Parameters | None = None
    data_digest: Digest | None = None
    corrupt_checkpoints: Annotated[tuple[CorruptCheckpoint, ...], Field(max_length=16)] = ()


class ProgressReport(StatusModel):
    """The body of a POST."""

    trainer_status: TrainerStatus
    cabildo: TrainerDetail | None = None


class Directive(StrEnum):
    """What the operator asks of the trainer."""

    NONE = "none"
    CHECKPOINT = "checkpoint"
    STOP = "stop"


class ProgressAnswer(StatusModel):
    """The body of the answer."""

    directive: Directive = Directive.NONE
