"""What a rule decided: frozen, and enough to recompute the merge without the rule.

Here: the decision and the candidates that were compared. Never here: arithmetic on tensors. Next:
`merging.py` applies the recipe and writes the decision into the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cabildo_trainer.consensus.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Candidate:
    """A result that was considered.

    Attributes:
        name: Of the rule or participant.
        loss: On the trusted data; None when it was not evaluated.
        picked: Whether it is (part of) the result.
        reason: Why it was not evaluated or not picked; empty otherwise.
    """

    name: str
    loss: float | None
    picked: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PrivacySpent:
    """What a private rule has spent, this round included.

    Attributes:
        epsilon: Of all rounds so far.
        delta: The probability that epsilon does not hold.
        signal_to_noise: The longest possible sum over the noise's length.
    """

    epsilon: float
    delta: float
    signal_to_noise: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of a rule for n participants, in the order of their keys.

    Attributes:
        recipe: The pass that makes the output.
        accepted: Whether each participant has a part in the output.
        scores: The rule's figure for each participant (lower is better), where it has one.
        reasons: Why a participant is not accepted; empty for the others.
        weights: The participants' weights, where the output is a weighted sum.
        candidates: What was compared on trusted data.
        gram_digest: Of the Gram matrix, where there was one.
        privacy: What was spent, for rules with noise.
        diagnostics: Further figures by name, such as iterations or a duality gap.
    """

    recipe: Recipe
    accepted: tuple[bool, ...]
    scores: tuple[float, ...] | None = None
    reasons: tuple[str, ...] = ()
    weights: tuple[float, ...] | None = None
    candidates: tuple[Candidate, ...] = ()
    gram_digest: str = ""
    privacy: PrivacySpent | None = None
    diagnostics: Mapping[str, float | str] = field(default_factory=dict)
