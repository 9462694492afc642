"""The rules of the table, by their names and parameters in the API.

Here: which rules. Never here: their arithmetic. Next: `eval_consensus.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.rules import rule_from_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cabildo_trainer.consensus.rule import Rule

PARTICIPANTS, BYZANTINE = 16, 5


@dataclass(frozen=True, slots=True)
class Contender:
    """A rule under test.

    Attributes:
        title: Its row in the table.
        name: In the API.
        parameters: As in the API.
        declared: f that the merge is told.
    """

    title: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    declared: int = BYZANTINE

    def rule(self) -> Rule:
        """Return the rule."""
        return rule_from_parameters(self.name, self.parameters)

    def refusal(self) -> str:
        """Return why the rule is impossible here, or an empty text."""
        try:
            self.rule().requirement(PARTICIPANTS, self.declared)
        except ImpossibleSetting as error:
            return str(error)
        return ""


def around(name: str, inner: str) -> Contender:
    """Return a pre-aggregation around a rule."""
    return Contender(f"{name}({inner})", name, {"rule": inner})


WITHOUT_ZENO = ("weightedMean", "trimmedMean", "nnm", "multiKrum")
"""The candidates of `auto` that need one evaluation each."""

CONTENDERS = (
    Contender("weightedMean", "weightedMean", declared=0),
    Contender("median", "median"),
    Contender("trimmedMean", "trimmedMean"),
    Contender("meaMed", "meaMed"),
    Contender("krum", "krum"),
    Contender("multiKrum", "multiKrum"),
    Contender("bulyan", "bulyan"),
    Contender("geometricMedian", "geometricMedian"),
    Contender("centeredClipping", "centeredClipping"),
    Contender("mda", "mda"),
    Contender("smea", "smea"),
    Contender("caf", "caf"),
    around("nnm", "trimmedMean"),
    around("nnm", "median"),
    around("nnm", "geometricMedian"),
    around("bucketing", "trimmedMean"),
    around("normClip", "trimmedMean"),
    around("arc", "trimmedMean"),
    Contender("monna", "monna"),
    Contender("flTrust", "flTrust"),
    Contender("zeno", "zeno"),
    Contender("auto", "auto"),
    Contender("auto(-zeno)", "auto", {"candidates": [*WITHOUT_ZENO]}),
    Contender("auto(+flTrust)", "auto", {"candidates": [*WITHOUT_ZENO, "flTrust", "zeno"]}),
)
