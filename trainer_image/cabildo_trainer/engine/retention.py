"""Which checkpoints stay: the newest, and the best by the objective.

Here: the choice, pure, and its execution by rank 0, which may be a zombie's. Never here: commits.
Next: `checkpoint.py`.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from cabildo_trainer.engine.folder import sync_folder
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
    what is not in the one listing is not touched, and `discard` looks again at what is.

    Raises:
        FencedError: A higher attempt has started; nothing was deleted since.
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
    kept = kept_steps(counted, keep=keep, objective=objective)
    for step in (*others, *(item.manifest.step for item in counted)):
        fence.check(attempt)
        if step not in kept:
            discard(folder, step=step, attempt=attempt)


def discard(folder: RunFolder, *, step: int, attempt: int) -> int | None:
    """Deletes the checkpoint of a step, unless it is by now the commit of a later attempt.

    It is renamed first and looked at then: between a look and a deletion in place, a later attempt
    could commit that step again. A crash half-way leaves no half checkpoint.

    Returns:
        The later attempt, whose commit was put back; None when the checkpoint is gone.
    """
    try:
        taken = folder.take_away(step, attempt=attempt)
    except FileNotFoundError:  # a later attempt was quicker
        return None
    try:
        owner = read_manifest(taken)[0].attempt
    except DamagedCheckpointError:
        owner = 0
    if owner <= attempt:
        shutil.rmtree(taken, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):  # that attempt has committed the step once more
        taken.rename(folder.step(step))
        sync_folder(folder.path)
    return owner
