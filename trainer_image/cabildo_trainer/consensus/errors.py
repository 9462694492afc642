"""What can go wrong in a merge: one tree, each with reason, remedy and exit code.

    TrainerError
    `- ConsensusError
       |- ImpossibleSetting   78  n, f, a threshold or a parameter that no result can come from
       |- MissingInput        78  a rule needs a base, an evaluator, a seed ... that is not there
       |- BudgetExceeded      78  the step would pass a budget; raised before it is spent
       |- EvaluatorFailed     78  the loss on trusted data, or its gradient, raised an error
       |- ManifestMismatch    65  models that cannot be merged with each other
       |- NonFiniteInput      65  NaN or Inf in more participants than faults are allowed for
       |- DigestMismatch      65  bytes that are not what a digest says
       `- QuorumNotReached    69  too few equal votes; the message carries the count

Here: the tree. Never here: a decision to exclude or to retry; those are `merging.py` and the
operator. Next: `merging.py`.
"""

from __future__ import annotations

from cabildo_api.exit_codes import ExitCode
from cabildo_api.reasons import Reason
from cabildo_trainer.errors import TrainerError


class ConsensusError(TrainerError):
    """A merge that ends without a result."""


class ImpossibleSetting(ConsensusError):
    """No result can come from this setting; the message carries the arithmetic."""

    exit_code = ExitCode.BAD_SPEC
    reason = Reason.IMPOSSIBLE_SETTING


class MissingInput(ConsensusError):
    """The rule needs an input that was not given; the message names it."""

    exit_code = ExitCode.BAD_SPEC
    reason = Reason.MISSING_INPUT


class BudgetExceeded(ConsensusError):
    """The next step would pass a budget. Nothing of it was spent."""

    exit_code = ExitCode.BAD_SPEC
    reason = Reason.BUDGET_EXCEEDED


class EvaluatorFailed(ConsensusError):
    """The evaluator or gradient raised an error, which is the cause of this one, or gave none.

    It is code and data that the user gave: a setting, like a path that leads nowhere.
    """

    exit_code = ExitCode.BAD_SPEC
    reason = Reason.IMPOSSIBLE_SETTING


class ManifestMismatch(ConsensusError):
    """Models differ where they must agree; the message names the first difference."""

    exit_code = ExitCode.BAD_DATA
    reason = Reason.MANIFEST_MISMATCH


class NonFiniteInput(ConsensusError):
    """NaN or Inf in inputs.

    Attributes:
        participants: Keys of the participants (or the role, such as `base`) that hold them.
    """

    exit_code = ExitCode.BAD_DATA
    reason = Reason.NON_FINITE_INPUT

    def __init__(
        self, message: str, *, participants: tuple[str, ...] = (), remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.participants = participants


class DigestMismatch(ConsensusError):
    """Bytes are not what their digest says."""

    exit_code = ExitCode.BAD_DATA
    reason = Reason.DIGEST_MISMATCH


class QuorumNotReached(ConsensusError):
    """Too few equal votes.

    Attributes:
        votes: The most equal votes that there were.
        quorum: How many are needed.
    """

    exit_code = ExitCode.PEER_LOST
    reason = Reason.QUORUM_NOT_REACHED

    def __init__(self, message: str, *, votes: int, quorum: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.votes = votes
        self.quorum = quorum
