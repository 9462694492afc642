"""From what the loop does to what the run says about itself.

Here: the record kept up to date, the progress thread fed, lines for the log. Never here: anything
that the loop depends on. Next: `record.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from cabildo_api.names import checkpoint_uri
from cabildo_api.progress import Directive, TrainerPhase
from cabildo_api.training_job_status import (
    BestCheckpointRecord,
    CheckpointRecord,
    CheckpointStatus,
)
from cabildo_trainer.report.console import say
from cabildo_trainer.report.record import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_api.run_spec import RunSpec
    from cabildo_trainer.engine.content import Restored
    from cabildo_trainer.engine.data_order import DataOrder
    from cabildo_trainer.engine.manifest import Committed
    from cabildo_trainer.engine.signals import StopSignals
    from cabildo_trainer.engine.state import TrainState
    from cabildo_trainer.report.progress import ProgressReporter
    from cabildo_trainer.report.record import RunRecord

SMOOTHING: Final = 0.05
"""Weight of the newest step in the running mean of step times."""


class RunObserver:
    """Tells the world what the loop does, and the loop what the world wants."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        record: RunRecord,
        reporter: ProgressReporter,
        stop_signals: StopSignals,
        order: DataOrder,
        is_leader: bool,
    ) -> None:
        self._spec = spec
        self._record = record
        self._reporter = reporter
        self._stop_signals = stop_signals
        self._order = order
        self._is_leader = is_leader
        self._stop_directed = False
        self._checkpoint_directed = False

    def stop_requested(self) -> bool:
        """Returns whether this rank was told to stop, by a signal or by the operator."""
        self._take_directive()
        return self._stop_directed or self._stop_signals.stop_requested

    def checkpoint_requested(self) -> bool:
        """Returns whether the operator asked for a checkpoint since the last call."""
        self._take_directive()
        directed, self._checkpoint_directed = self._checkpoint_directed, False
        return directed

    def started(
        self, restored: Restored, state: TrainState, *, committed: Sequence[Committed]
    ) -> None:
        """Takes in where the attempt starts."""
        self._record.corrupt += [(item.path, item.reason) for item in restored.corrupt]
        for item in restored.corrupt:
            self._say(f"checkpoint {item.path} is corrupt and was set aside: {item.reason}")
        self._record_checkpoints(state, committed=committed)
        self._copy(state)
        if restored.checkpoint is None:
            self._say("training from scratch")
        else:
            self._say(f"going on from the checkpoint of step {state.step}")
        self._publish(TrainerPhase.TRAINING)

    def stepped(self, state: TrainState, *, loss: float, took_s: float) -> None:
        """Takes in a step."""
        mean_s = self._record.step_s
        self._record.step_s = mean_s + SMOOTHING * (took_s - mean_s) if mean_s else took_s
        self._record.loss = loss
        self._copy(state)
        self._publish(TrainerPhase.TRAINING, urgent=False)

    def evaluated(self, state: TrainState, *, best: bool) -> None:
        """Takes in an evaluation."""
        self._copy(state)
        values = " ".join(f"{name} {shown(value)}" for name, value in state.metrics.items())
        mark = " (best)" if best else ""
        self._say(f"step {state.step} of {self._record.total_steps}: {values}{mark}")
        self._publish(TrainerPhase.EVALUATING)

    def committed(self, state: TrainState, *, committed: Sequence[Committed]) -> None:
        """Takes in a commit; `committed` is every checkpoint that counts, newest first."""
        self._record_checkpoints(state, committed=committed)
        self._publish(TrainerPhase.CHECKPOINTING)

    def _copy(self, state: TrainState) -> None:
        self._record.step = state.step
        # Past the last step no epoch is being trained: the last one is told.
        last_step = (self._record.total_steps or 1) - 1
        self._record.epoch = self._order.epoch_of(min(state.step, last_step))
        self._record.metrics = dict(state.metrics)
        self._record.trained_s = state.trained_s

    def _record_checkpoints(self, state: TrainState, *, committed: Sequence[Committed]) -> None:
        last = committed[0] if committed else None
        best = next((item for item in committed if item.manifest.step == state.best_step), None)
        self._record.checkpoint = CheckpointStatus(
            last=CheckpointRecord(**self._fields(last)) if last else None,
            best=BestCheckpointRecord(
                **self._fields(best),
                metric=self._spec.objective.metric,
                value=None if state.best_value is None else shown(state.best_value),
            )
            if best
            else None,
        )

    def _fields(self, committed: Committed) -> dict[str, object]:
        manifest = committed.manifest
        return {
            "step": manifest.step,
            "uri": self.uri(manifest.step),
            "digest": committed.digest,
            "time": datetime.fromisoformat(manifest.time),
        }

    def uri(self, step: int) -> str:
        """Returns where the checkpoint of a step lies, for users."""
        claim = self._spec.checkpoint.uri_prefix.removeprefix("pvc://")
        return checkpoint_uri(claim, self._spec.uid, self._spec.run, step)

    def _take_directive(self) -> None:
        directive = self._reporter.take_directive()
        self._stop_directed |= directive is Directive.STOP
        self._checkpoint_directed |= directive is Directive.CHECKPOINT

    def _publish(self, phase: TrainerPhase, *, urgent: bool = True) -> None:
        self._record.phase = phase
        if self._is_leader:
            self._reporter.publish(self._record, urgent=urgent)

    def _say(self, text: str) -> None:
        if self._is_leader:
            say(text)
