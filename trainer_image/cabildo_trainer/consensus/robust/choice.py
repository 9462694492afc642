"""`auto`: in each round the rule whose result a trusted loss likes best.

No single rule survives all attacks on data that differs between participants; a choice by trusted
validation loss survives more of them (`docs/consensus-robustness.md` has the figures, and where it
fails). Zeno, which looks at each model by itself, costs n evaluations more: name other candidates
where one is dear.

Here: the choice. Never here: the candidates' arithmetic. Next: `merging.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from cabildo_api.consensus_limits import limit_of, rule_limit
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Candidate, Decision
from cabildo_trainer.consensus.errors import ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.robust.columns import TrimmedMean
from cabildo_trainer.consensus.robust.krum import MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.robust.mixing import NearestNeighbourMixing
from cabildo_trainer.consensus.robust.trusted import Zeno
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from cabildo_trainer.consensus.passes import Session

NON_FINITE_LOSS: Final = "NonFiniteLoss"
"""Why a candidate was not picked: its loss on the trusted data is NaN or infinite."""
DEFAULT: tuple[Rule, ...] = (
    WeightedMean(),
    TrimmedMean(),
    NearestNeighbourMixing(rule=TrimmedMean()),
    MultiKrum(),
    Zeno(),
)


@dataclass(frozen=True, slots=True)
class Auto(Rule):
    """The candidate with the lowest loss on trusted validation data; the first of equal ones.

    A candidate that bounds no fault, such as the mean, may take part: the trusted loss is what
    protects. One whose limits n and f do not fit is left out, and the result says why.

    Attributes:
        candidates: The rules that are compared.
    """

    name: ClassVar[str] = "auto"
    candidates: tuple[Rule, ...] = DEFAULT

    @property
    def needs(self) -> frozenset[Need]:
        """A trusted loss, and what the candidates need."""
        return frozenset({Need.EVALUATOR}).union(*(rule.needs for rule in self.candidates))

    @property
    def passes(self) -> int:
        """Each candidate's own (its result is made to be evaluated), and the pass that writes."""
        return 1 + sum(rule.passes for rule in self.candidates)

    @property
    def trusted_rows(self) -> int:
        """The most of any candidate: what a rule around this one must leave room for."""
        return max((rule.trusted_rows for rule in self.candidates), default=0)

    def requirement(self, n: int, f: int) -> None:
        """Asks that a candidate is possible."""
        # Without the candidates' trusted rows: one that has no room for its own is left out.
        require(rule_limit(self.name, n=n, f=f))
        for rule in self.candidates:
            if Need.PRIVACY in rule.needs:
                raise ImpossibleSetting(
                    f"auto cannot try {rule.name}: a choice by loss would tell about the models"
                    " without noise",
                    remedy=f"use {rule.name} by itself",
                )
        refusals = [refusal(rule, n=n, f=f) for rule in self.candidates]
        if all(refusals):
            raise ImpossibleSetting(
                f"auto has no candidate for n = {n}, f = {f}:"
                f" {'; '.join(refusals) or 'none named'}",
                remedy="name a candidate that bears f of n, such as trimmedMean",
            )

    def decide(self, session: Session) -> Decision:
        """Evaluates all candidates."""
        best: Decision | None = None
        picked, lowest = -1, math.inf
        seen: list[Candidate] = []
        for index, rule in enumerate(self.candidates):
            reason = refusal(rule, n=session.n, f=session.f)
            if reason:
                seen.append(Candidate(name=rule.label, loss=None, reason=reason))
                continue
            try:
                decision = rule.decide(session)
                loss = session.loss(decision.recipe, key=rule.label)
            except (ImpossibleSetting, MissingInput) as error:
                seen.append(Candidate(name=rule.label, loss=None, reason=str(error)))
                continue
            seen.append(Candidate(name=rule.label, loss=loss))
            if loss < lowest:
                best, picked, lowest = decision, index, loss
        if best is None:
            reasons = "".join(f"; {item.name}: {item.reason}" for item in seen if item.reason)
            raise ImpossibleSetting(
                f"auto: no candidate has a finite loss on the trusted data{reasons}",
                remedy="look at the trusted data and the evaluator",
            )
        candidates = tuple(
            replace(
                item, picked=index == picked, reason=item.reason or _not_best(item, index, picked)
            )
            for index, item in enumerate(seen)
        )
        diagnostics = {**best.diagnostics, "picked": seen[picked].name}
        return replace(best, candidates=candidates, diagnostics=diagnostics)


def _not_best(item: Candidate, index: int, picked: int) -> str:
    if index == picked:
        return ""
    return "HigherLoss" if item.loss is not None and math.isfinite(item.loss) else NON_FINITE_LOSS


def refusal(rule: Rule, *, n: int, f: int) -> str:
    """Returns why a candidate is impossible, or an empty text."""
    try:
        rule.requirement(n, f if limit_of(rule.name).bears_faults else 0)
    except ImpossibleSetting as error:
        return str(error)
    return ""
