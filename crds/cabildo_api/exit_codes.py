"""The exit-code contract between trainer, Job policy and status: one table.

Here: the codes and what each of them means for retries and charges. Standard library only: the
trainer imports this before anything heavy. Never here: the choice among several ranks' codes; that
is the operator's `explain`. Next: `reasons.py` for the words.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Self

from cabildo_api.reasons import Reason

SIGKILL_CODE: Final = 137
"""128 + SIGKILL: killed by the kernel (out of memory) or by somebody."""
SIGTERM_CODE: Final = 143
"""128 + SIGTERM: ended by a signal before the trainer's handler was there."""


class ExitCode(IntEnum):
    """A code that a trainer ends with on purpose.

    Attributes:
        reason: The reason that conditions and Events give.
        retryable: Whether another attempt may follow.
        charged: Whether the attempt costs one of `runPolicy.maxRestarts`.
        description: What the trainer says by it.
    """

    reason: Reason
    retryable: bool
    charged: bool
    description: str

    def __new__(
        cls, value: int, reason: Reason, retryable: bool, charged: bool, description: str
    ) -> Self:
        """Makes a member that is the number itself and carries its row of the table."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.reason = reason
        member.retryable = retryable
        member.charged = charged
        member.description = description
        return member

    FINISHED = (0, Reason.COMPLETED, False, False, "finished with a result")
    BAD_DATA = (
        65,
        Reason.INVALID_DATA,
        False,
        False,
        "the data did not pass validation, or no committed checkpoint verifies",
    )
    PEER_LOST = (69, Reason.PEER_LOST, True, True, "another rank of the gang is gone")
    PREEMPTED = (
        75,
        Reason.PREEMPTED,
        True,
        False,
        "told to stop: a checkpoint is committed, or there was nothing to commit",
    )
    NAN_BUDGET = (
        76,
        Reason.NON_FINITE_LOSS,
        False,
        False,
        "loss or gradients were not finite more often than the budget allows",
    )
    BAD_SPEC = (78, Reason.INVALID_SPEC, False, False, "the spec cannot be trained")


def exit_code(value: int) -> ExitCode | None:
    """Returns the row of a code, or None for a code outside the contract."""
    member = ExitCode._value2member_map_.get(value)
    return member if isinstance(member, ExitCode) else None
