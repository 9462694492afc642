"""The rule for a loss or gradient that is not finite: skip, then roll back and jump, then give up.

Here: the rule, a pure function of the state. After PaLM (Chowdhery et al., 2022, section 5.1):
spikes come from a pair of state and data, so going back and leaving out the data around the spike
helps. Never here: the rollback itself; that is `loop.py`. Next: `loop.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cabildo_trainer.errors import NanBudgetError

if TYPE_CHECKING:
    from cabildo_trainer.engine.state import TrainState


class Verdict(Enum):
    """What to do with a step."""

    APPLY = "apply"
    SKIP = "skip"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class NanGuard:
    """The budget.

    Attributes:
        skips_in_row: Bad steps in a row that are only skipped.
        rollbacks: Rollbacks of a run before it ends with code 76.
        margin: Batches left out behind the one that caused a rollback.
    """

    skips_in_row: int = 3
    rollbacks: int = 3
    margin: int = 8

    def judge(self, state: TrainState, *, finite: bool) -> Verdict:
        """Returns what to do with the step just computed, and counts it in the state.

        Raises:
            NanBudgetError: The budget of rollbacks is used up.
        """
        if finite:
            state.bad_steps_in_row = 0
            return Verdict.APPLY
        state.bad_steps_in_row += 1
        if state.bad_steps_in_row <= self.skips_in_row:
            return Verdict.SKIP
        if state.rollbacks >= self.rollbacks:
            raise NanBudgetError(
                f"loss or gradients were not finite at step {state.step + 1} and"
                f" {state.bad_steps_in_row - 1} steps before it, after {state.rollbacks} rollbacks"
            )
        return Verdict.ROLL_BACK

    def jump(self, restored: TrainState, *, failed_step: int, rollbacks: int) -> None:
        """Moves a restored state past the window of batches that failed.

        Args:
            restored: The state of the checkpoint.
            failed_step: Step that was being computed.
            rollbacks: Rollbacks of the run so far, this one not counted.
        """
        end = failed_step + 1 + self.margin
        restored.jumped_windows.append([restored.step, end])
        restored.step = end
        restored.rollbacks = rollbacks + 1
        restored.bad_steps_in_row = 0
