"""The objective: which evaluation is the best, and when enough have brought nothing.

Here: both judgements, as pure functions of the state. Never here: evaluating. Next: `loop.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cabildo_api.limits import EarlyStopping, Objective
    from cabildo_trainer.engine.state import TrainState


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges evaluations by the spec's `objective` and `earlyStopping`."""

    objective: Objective
    early_stopping: EarlyStopping

    def better(self, value: float, than: float | None, *, by: float = 0.0) -> bool:
        """Returns whether a value improves on another by more than a margin."""
        if math.isnan(value):
            return False
        if than is None:
            return True
        gain = than - value if self.objective.mode == "min" else value - than
        return gain > by

    def judge(self, state: TrainState, *, epochs_done: int, min_epochs: int) -> bool:
        """Updates the state after an evaluation and returns whether it was the best so far.

        Args:
            state: The run's state; `metrics` and `step` are those of the evaluation.
            epochs_done: Whole epochs trained.
            min_epochs: Epochs before early stopping may end training.
        """
        value = state.metrics[self.objective.metric]
        best = self.better(value, state.best_value)
        if best:
            state.best_value, state.best_step = value, state.step
        if self.better(value, state.reference_value, by=self.early_stopping.min_delta):
            state.reference_value, state.evaluations_without_gain = value, 0
        else:
            state.evaluations_without_gain += 1
        patience = self.early_stopping.patience
        tired = 0 < patience <= state.evaluations_without_gain
        state.ended_early = tired and epochs_done >= min_epochs
        return best
