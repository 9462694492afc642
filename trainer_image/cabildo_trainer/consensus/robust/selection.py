"""The decision of rules that take the plain mean of some models and leave the others out.

Here: that decision. Never here: how the models were found. Next: `krum.py`, `subsets.py` and the
others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cabildo_trainer.consensus.decision import Decision
from cabildo_trainer.consensus.recipes import mean_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cabildo_trainer.consensus.passes import Session

NOT_SELECTED: Final = "NotSelected"
"""The reason of a model that a rule left out."""


def selection(
    session: Session,
    rows: Sequence[int],
    *,
    scores: Sequence[float] | None = None,
    gram_digest: str = "",
    diagnostics: Mapping[str, float | str] | None = None,
) -> Decision:
    """Returns the decision for the plain mean of some rows."""
    chosen = set(rows)
    recipe = mean_of(tuple(sorted(chosen)), n=session.n)
    accepted = tuple(row in chosen for row in range(session.n))
    return Decision(
        recipe=recipe,
        accepted=accepted,
        scores=None if scores is None else tuple(float(score) for score in scores),
        reasons=tuple("" if taken else NOT_SELECTED for taken in accepted),
        weights=recipe.effective(),
        gram_digest=gram_digest,
        diagnostics=diagnostics or {},
    )
