"""The result record: what a rank writes into its termination message before it ends.

Here: the model and how it is made to fit into 4,096 bytes. It travels through the kubelet and so
survives a dead network. Never here: the decision what it means; that is the operator's `explain`.
Next: `exit_codes.py`.
"""

import json
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError

from cabildo_api.base import StatusModel
from cabildo_api.progress import CorruptCheckpoint
from cabildo_api.scalars import Digest, Time
from cabildo_api.training_job_status import (
    Artifact,
    BaselineMetric,
    CheckpointStatus,
    Metric,
    Parameters,
)

RESULT_MAX_BYTES: Final = 4096
RESULT_VERSION: Final = "v1"
MESSAGE_KEPT: Final = 512
OPTIONAL_PARTS: Final = ("remedy", "corruptCheckpoints", "parameters", "artifacts", "baselines")
"""What is left out, in this order, when a record does not fit."""


class Outcome(StrEnum):
    """How a rank ended."""

    COMPLETE = "complete"
    PREEMPTED = "preempted"
    FAILED = "failed"


class Result(StatusModel):
    """The last word of one rank; on success only rank 0's counts."""

    version: Literal["v1"] = RESULT_VERSION
    outcome: Outcome
    run: int
    attempt: int
    rank: int = 0
    exit_code: int
    reason: str = ""
    message: str = ""
    remedy: str = ""
    epoch: int | None = None
    step: int | None = None
    total_steps: int | None = None
    trained_seconds: float | None = None
    finish_time: Time | None = None
    metrics: Annotated[tuple[Metric, ...], Field(max_length=64)] = ()
    baselines: Annotated[tuple[BaselineMetric, ...], Field(max_length=64)] = ()
    artifacts: Annotated[tuple[Artifact, ...], Field(max_length=16)] = ()
    checkpoint: CheckpointStatus | None = None
    parameters: Parameters | None = None
    data_digest: Digest | None = None
    corrupt_checkpoints: tuple[CorruptCheckpoint, ...] = ()

    def to_bytes(self) -> bytes:
        """Returns UTF-8 JSON of at most 4,096 bytes: the message first, then parts give way."""
        record = self.to_object()
        for empty in [key for key, value in record.items() if value in ("", [])]:
            del record[empty]
        encoded = _encode(record)
        if len(encoded) <= RESULT_MAX_BYTES:
            return encoded
        record["message"] = _shorten(record.get("message", ""))
        for part in ("", *OPTIONAL_PARTS):
            record.pop(part, None)
            encoded = _encode(record)
            if len(encoded) <= RESULT_MAX_BYTES:
                return encoded
        while record.get("metrics") and len(encoded) > RESULT_MAX_BYTES:
            record["metrics"].pop()
            encoded = _encode(record)
        return encoded

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Returns the record in a termination message, or None if there is no valid one."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def _shorten(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MESSAGE_KEPT:
        return message
    return encoded[: MESSAGE_KEPT - 3].decode(errors="ignore") + "..."
