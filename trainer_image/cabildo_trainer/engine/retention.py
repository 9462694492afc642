"""Which checkpoints stay: the newest, and the best by the objective.

Here: the choice, pure, and its execution by rank 0. Never here: commits. Next: `checkpoint.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_api.checkpoint import Keep
    from cabildo_api.limits import Objective
    from cabildo_trainer.engine.checkpoint import CheckpointStore, Committed


def kept_steps(
    checkpoints: Sequence[Committed], *, keep: Keep, objective: Objective
) -> frozenset[int]:
    """Returns the steps of the checkpoints that stay.

    Args:
        checkpoints: Those that count, in any order.
        keep: The spec's `checkpoint.keep`.
        objective: The spec's `objective`.
    """
    steps = sorted((item.manifest.step for item in checkpoints), reverse=True)
    sign = 1.0 if objective.mode == "min" else -1.0
    judged = [
        (sign * item.manifest.objective, item.manifest.step)
        for item in checkpoints
        if item.manifest.objective is not None
    ]
    # Of equal values the earlier step is the best: it was the one that improved.
    best = [step for _, step in sorted(judged)[: keep.best]]
    return frozenset(steps[: keep.last]) | frozenset(best)


def prune(store: CheckpointStore, *, keep: Keep, objective: Objective) -> None:
    """Deletes the other checkpoints of the run, those of fenced attempts included. Rank 0 only."""
    kept = kept_steps(store.admitted(), keep=keep, objective=objective)
    for step in store.folder.committed_steps():
        if step not in kept:
            store.folder.discard(step)
