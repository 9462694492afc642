"""What a run remembers besides weights and optimiser: everything in one record.

Here: the record, as it goes into `state.pt` (plain values, so that it loads with `weights_only`).
Never here: random states and positions in the data; they follow from the step. Next: `loop.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class TrainState:
    """Where a run stands; equal on all ranks at every step.

    Attributes:
        step: Batches done, those of a jumped window included.
        loss_epoch: Epoch that the sum of losses belongs to, -1 before the first.
        epoch_loss_sum: Sum of the step losses of the current epoch, mean over ranks.
        epoch_loss_count: Steps in that sum.
        evaluated_step: Step of the last evaluation, -1 before the first.
        metrics: Last value of each metric.
        best_value: Best value of the objective, None before the first.
        best_step: Step of that value.
        reference_value: Value that early stopping compares with.
        evaluations_without_gain: Evaluations since the reference improved.
        ended_early: Whether early stopping has ended training.
        bad_steps_in_row: Steps just skipped because something was not finite.
        rollbacks: Rollbacks so far.
        jumped_windows: Batches left out by rollbacks, as [first, end) pairs.
        trained_s: Seconds spent in this run over all attempts that committed.
    """

    step: int = 0
    loss_epoch: int = -1
    epoch_loss_sum: float = 0.0
    epoch_loss_count: int = 0
    evaluated_step: int = -1
    metrics: dict[str, float] = field(default_factory=dict)
    best_value: float | None = None
    best_step: int = 0
    reference_value: float | None = None
    evaluations_without_gain: int = 0
    ended_early: bool = False
    bad_steps_in_row: int = 0
    rollbacks: int = 0
    jumped_windows: list[list[int]] = field(default_factory=list)
    trained_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainState:
        """Returns the record; fields of a newer version are left out."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
