"""What one rank knows about its run: the source of every report.

Here: one record that the loop keeps up to date, and its two forms on the wire: progress and result.
Light to import: it must be there before torch. Never here: sending. Next: `progress.py`,
`termination.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cabildo_api.progress import (
    CorruptCheckpoint,
    ProgressReport,
    ReportedMetric,
    TrainerDetail,
    TrainerPhase,
    TrainerStatus,
)
from cabildo_api.result import Outcome, Result
from cabildo_api.training_job_status import (
    Artifact,
    BaselineMetric,
    CheckpointStatus,
    Metric,
    Parameters,
)

CORRUPT_SHOWN: Final = 8
"""Corrupt checkpoints that a report names, the newest first."""
REASON_SHOWN: Final = 200
"""Characters of the reason of each."""


@dataclass(slots=True)
class RunRecord:
    """Where a run stands, in the words of its reports. The progress thread reads it at any time.

    Attributes:
        run: Number of the run.
        attempt: Number of the attempt.
        rank: Number of this process.
        phase: What the trainer is doing.
        epoch: Epoch being trained, from 0.
        step: Batches done.
        total_steps: Batches of the whole run, if nothing ends it early.
        loss: Mean loss of the last step.
        metrics: Last value of each metric.
        baselines: (baseline, metric, value) on the test rows.
        artifacts: What the run leaves behind.
        checkpoint: Last and best checkpoint.
        parameters: Size of the model.
        data_digest: Digest of the rows.
        corrupt: Checkpoints that were set aside, as (path, reason).
        trained_s: Seconds trained over all attempts.
        step_s: Running mean of the seconds a step takes; 0 before the first.
        finished: Whether training has ended, early or not.
    """

    run: int = 0
    attempt: int = 0
    rank: int = 0
    phase: TrainerPhase = TrainerPhase.STARTING
    epoch: int | None = None
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    baselines: list[tuple[str, str, float]] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    checkpoint: CheckpointStatus | None = None
    parameters: Parameters | None = None
    data_digest: str | None = None
    corrupt: list[tuple[str, str]] = field(default_factory=list)
    trained_s: float = 0.0
    step_s: float = 0.0
    finished: bool = False

    @property
    def percentage(self) -> int | None:
        """Share of the work done, in percent; 100 only when training has ended."""
        if self.finished:
            return 100
        if self.step is None or not self.total_steps:
            return None
        return min(99, 100 * self.step // self.total_steps)

    @property
    def eta_s(self) -> int | None:
        """Seconds left if nothing ends training early."""
        if self.finished:
            return 0
        if self.step is None or self.total_steps is None or not self.step_s:
            return None
        return math.ceil((self.total_steps - self.step) * self.step_s)

    def progress(self) -> ProgressReport:
        """Returns the body of a progress report."""
        return ProgressReport(
            trainer_status=TrainerStatus(
                progress_percentage=self.percentage,
                estimated_remaining_seconds=self.eta_s,
                metrics=tuple(
                    ReportedMetric(name=name, value=value)
                    for name, value in dict(self.metrics).items()
                ),
                last_updated_time=datetime.now(UTC),
            ),
            cabildo=TrainerDetail(
                epoch=self.epoch,
                step=self.step,
                total_steps=self.total_steps,
                loss=None if self.loss is None else shown(self.loss),
                attempt=self.attempt,
                phase=self.phase,
                checkpoint=self.checkpoint,
                parameters=self.parameters,
                data_digest=self.data_digest,
                corrupt_checkpoints=self._corrupt(),
            ),
        )

    def result(
        self, outcome: Outcome, *, exit_code: int, reason: str, message: str = "", remedy: str = ""
    ) -> Result:
        """Returns the result record."""
        return Result(
            outcome=outcome,
            run=self.run,
            attempt=self.attempt,
            rank=self.rank,
            exit_code=exit_code,
            reason=reason,
            message=message,
            remedy=remedy,
            epoch=self.epoch,
            step=self.step,
            total_steps=self.total_steps,
            trained_seconds=round(self.trained_s, 3),
            finish_time=datetime.now(UTC),
            metrics=tuple(
                Metric(name=name, value=shown(value)) for name, value in dict(self.metrics).items()
            ),
            baselines=tuple(
                BaselineMetric(name=name, metric=metric, value=shown(value))
                for name, metric, value in self.baselines
            ),
            artifacts=tuple(self.artifacts),
            checkpoint=self.checkpoint,
            parameters=self.parameters,
            data_digest=self.data_digest,
            corrupt_checkpoints=self._corrupt(),
        )

    def _corrupt(self) -> tuple[CorruptCheckpoint, ...]:
        return tuple(
            CorruptCheckpoint(path=path, reason=reason[:REASON_SHOWN])
            for path, reason in self.corrupt[:CORRUPT_SHOWN]
        )


def shown(value: float) -> str:
    """Returns a measured value as text, six significant digits."""
    return f"{value:.6g}"
