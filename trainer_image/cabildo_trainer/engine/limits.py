"""When things are due: cadences and the end of training, as functions of the step.

Here: pure arithmetic; wall time enters as a flag that rank 0 raises for all. Never here: the clock.
Next: `loop.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cabildo_api.limits import Cadence, Limits


def total_steps(limits: Limits, *, steps_per_epoch: int) -> int:
    """Returns the steps of a run that nothing ends early."""
    steps = limits.max_epochs * steps_per_epoch
    return min(steps, limits.max_steps) if limits.max_steps else steps


def steps_of(cadence: Cadence, *, steps_per_epoch: int) -> int | None:
    """Returns the steps from one time to the next, or None for a cadence in seconds."""
    if cadence.epochs is not None:
        return cadence.epochs * steps_per_epoch
    return cadence.steps


def due(cadence: Cadence, *, step: int, last_step: int, steps_per_epoch: int) -> bool:
    """Returns whether a boundary of the cadence lies in (last_step, step].

    A jump over a window of batches may pass a boundary without stopping on it.
    """
    every = steps_of(cadence, steps_per_epoch=steps_per_epoch)
    return every is not None and step // every > max(last_step, 0) // every
