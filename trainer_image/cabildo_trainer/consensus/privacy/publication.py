"""What of a private result is for everybody, and what is for its verifiers.

Here: the public part, and the opening of a result's commitment. Never here: checking; that is
`verification.py`. Next: the status of a ConsensusRound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.privacy.noise_key import NoiseKey
    from cabildo_trainer.consensus.sources import ModelSource

ROUND: Final = "round"
"""The diagnostic that numbers the rounds of a ledger, from 1 on."""


def published(result: MergeResult) -> MergeResult:
    """Returns the part of a result that the promise covers: without fingerprints of inputs.

    A digest of a participant's model lets anybody test a guess at it. Under sampling, who took part
    (and how many) is a secret too: without it there is no amplification.
    """
    if result.parameters.get("samplingProbability", 1.0) < 1.0:
        return result.model_copy(
            update={"participants": (), "n": int(result.parameters["population"])}
        )
    named = tuple(item.model_copy(update={"digest": None}) for item in result.participants)
    return result.model_copy(update={"participants": named})


def opening_of(key: NoiseKey, *, start: ModelSource | None, rounds: int) -> bytes:
    """Returns the key of a round's commitment to its clipped sum; for verifiers only.

    Args:
        key: The noise key.
        start: The model that the round started from.
        rounds: Rounds before this one: the result's diagnostic `round`, less one.
    """
    digest = "" if start is None else start.digest
    return key.derive(b"opening", digest.encode(), str(rounds).encode())
