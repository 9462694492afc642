"""Which checkpoints stay: the newest, and the best by the objective.

Here: the choice, pure, and its execution by rank 0. Never here: commits. Next: `checkpoint.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cabildo_trainer.engine.manifest import Committed, read_manifest
from cabildo_trainer.errors import DamagedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_api.checkpoint import Keep
    from cabildo_api.limits import Objective
    from cabildo_trainer.engine.fence import Fence
    from cabildo_trainer.engine.folder import RunFolder


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


def prune(
    folder: RunFolder, *, fence: Fence, attempt: int, keep: Keep, objective: Objective
) -> None:
    """Deletes the other checkpoints of the run, those of fenced attempts included. Rank 0 only.

    Nothing that a later attempt committed is ever deleted, whatever happens between two lines here:
    what is not in the one listing is not touched.

    Raises:
        FencedError: A higher attempt has started; nothing was deleted.
    """
    counted: list[Committed] = []
    others: list[int] = []
    for step in folder.committed_steps():
        try:
            manifest, digest = read_manifest(folder.step(step))
        except DamagedCheckpointError:
            others.append(step)
            continue
        if fence.admits(attempt=manifest.attempt, step=step):
            counted.append(Committed(manifest, digest))
        elif manifest.attempt < attempt:
            others.append(step)
    fence.check(attempt)
    kept = kept_steps(counted, keep=keep, objective=objective)
    for step in (*others, *(item.manifest.step for item in counted)):
        if step not in kept:
            folder.discard(step)
