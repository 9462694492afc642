"""Checking a private result: that the sum under the noise is the one of these models.

A verifier holds the participants' models and the opening (from the aggregator). It recomputes
norms, clipping and the integer sum, and compares the commitment: so no participant was left out,
counted twice or clipped otherwise. With the noise key as well, `merging.replay` recomputes the
whole output.

Here: that check. Never here: a rule. Next: nothing; the answer is the caller's.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from cabildo_trainer.consensus.errors import DigestMismatch, MissingInput
from cabildo_trainer.consensus.passes import Session
from cabildo_trainer.consensus.privacy.clipped_sum import Grid, commit, norms_of, scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.context import Context
    from cabildo_trainer.consensus.sources import ModelSource


def verify_clipped_sum(
    inputs: Sequence[ModelSource], result: MergeResult, context: Context, *, opening: bytes
) -> None:
    """Recomputes the clipped sum of a result and compares it with the result's commitment.

    Args:
        inputs: The participants' models; those that did not take part are left out.
        result: Of `dpFedAvg`.
        context: With the model that the round started from.
        opening: The commitment's key, `publication.opening_of`.

    Raises:
        DigestMismatch: The sum under the noise is another one.
        MissingInput: A model, or the result's commitment, is not there.
    """
    claimed, clip_norm = result.diagnostics.get("clippedSum"), result.diagnostics.get("clipNorm")
    if not isinstance(claimed, str) or isinstance(clip_norm, str) or clip_norm is None:
        raise MissingInput(f"the result of {result.rule} commits to no clipped sum")
    wanted = {item.key for item in result.participants if item.accepted}
    sources = tuple(
        sorted((item for item in inputs if item.key in wanted), key=lambda item: item.key.encode())
    )
    missing = wanted - {source.key for source in sources}
    if missing:
        raise MissingInput(f"no model of {', '.join(sorted(missing))}, which took part")
    session = Session(sources=sources, f=0, context=context)
    multiplier = float(result.parameters["noiseMultiplier"])
    grid = Grid(clip_norm=clip_norm, noise_multiplier=multiplier)
    weights = scales(norms_of(session), grid=grid)
    found = commit(session, weights, grid=grid, opening=opening)
    if not hmac.compare_digest(found, claimed):
        raise DigestMismatch(
            f"the clipped sum of these models is {found}, the result says {claimed}",
            remedy="check that these are the models and the opening of this result",
        )
