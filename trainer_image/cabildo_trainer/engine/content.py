"""What goes into a checkpoint and what comes out of the search for one.

Here: frozen records. Never here: files. Next: `checkpoint.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from cabildo_trainer.engine.manifest import Committed


@dataclass(frozen=True, slots=True)
class Content:
    """What a checkpoint holds.

    Attributes:
        weights: The module's parameters and buffers.
        shared: What is equal on all ranks; tensors and plain values.
        own: What only this rank has; tensors and plain values.
    """

    weights: Mapping[str, Tensor]
    shared: dict[str, Any]
    own: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a manifest says of the run; equal for all checkpoints of an attempt.

    Attributes:
        uid: UID of the TrainingJob.
        run: Number of the run.
        attempt: Number of the attempt.
        threads: Threads of each rank.
        config_digest: Digest of what decides the run's numbers.
        fixed: Digest of each part of the spec that may not change within a run, by name.
        data_digest: Digest of the rows.
        libraries: Versions by name.
    """

    uid: str
    run: int
    attempt: int
    threads: int
    config_digest: str
    fixed: dict[str, str]
    data_digest: str
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A checkpoint that did not verify."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """Where an attempt starts from.

    Attributes:
        checkpoint: The newest one that verifies, or None to start from scratch.
        content: What it holds, or None.
        corrupt: Newer ones that did not verify.
    """

    checkpoint: Committed | None
    content: Content | None
    corrupt: tuple[SetAside, ...]
