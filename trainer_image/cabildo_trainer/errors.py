"""The trainer's exceptions: each knows the exit code, reason and remedy that it ends a pod with.

    TrainerError
    |- BadSpecError             78 InvalidSpec
    |- BadDataError             65 InvalidData
    |- NoValidCheckpointError   65 NoValidCheckpoint
    |- PeerLostError            69 PeerLost
    |- StoppedError             75 Preempted
    |  `- FencedError           75 Preempted: a newer attempt owns the run
    |- NanBudgetError           76 NonFiniteLoss
    |- DamagedCheckpointError    1 TrainerError: caught, and the checkpoint before is used
    `- RanksDivergedError        1 TrainerError

Here: the tree. Never here: a decision to retry; that is the operator's. Next: `app.py`, the one
place that turns an exception into a termination message and an exit code.
"""

from __future__ import annotations

from typing import ClassVar, Final

from cabildo_api.exit_codes import ExitCode
from cabildo_api.reasons import Reason

UNEXPECTED_EXIT_CODE: Final = 1
"""The code of an error outside the contract: retried, and charged."""


class TrainerError(Exception):
    """An end of the attempt other than success.

    Attributes:
        exit_code: What the process ends with.
        reason: CamelCase reason for the result record.
        remedy: What the user can do about it.
    """

    exit_code: ClassVar[int] = UNEXPECTED_EXIT_CODE
    reason: ClassVar[Reason] = Reason.TRAINER_ERROR

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy or self.reason.remedy


class BadSpecError(TrainerError):
    """The spec cannot be trained."""

    exit_code = ExitCode.BAD_SPEC
    reason = Reason.INVALID_SPEC


class BadDataError(TrainerError):
    """The data did not pass validation; the message names file, row and column."""

    exit_code = ExitCode.BAD_DATA
    reason = Reason.INVALID_DATA


class NoValidCheckpointError(TrainerError):
    """Checkpoints exist and none of them verifies."""

    exit_code = ExitCode.BAD_DATA
    reason = Reason.NO_VALID_CHECKPOINT


class PeerLostError(TrainerError):
    """Another rank of the gang is gone."""

    exit_code = ExitCode.PEER_LOST
    reason = Reason.PEER_LOST


class StoppedError(TrainerError):
    """Told to stop; whatever had to be committed is committed."""

    exit_code = ExitCode.PREEMPTED
    reason = Reason.PREEMPTED


class FencedError(StoppedError):
    """A newer attempt of the run has started: this one may not commit any more."""


class NanBudgetError(TrainerError):
    """Loss or gradients were not finite more often than the budget allows."""

    exit_code = ExitCode.NAN_BUDGET
    reason = Reason.NON_FINITE_LOSS


class DamagedCheckpointError(TrainerError):
    """A checkpoint is not what its manifest says."""


class RanksDivergedError(TrainerError):
    """Ranks that must hold equal parameters do not: a fault of hardware or of a module."""
