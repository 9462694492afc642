"""What every rule is: a name, its needs, its limits, and a decision from a session.

A rule is a frozen dataclass; its fields are its parameters. Adding one is a module with the class,
a line in `rules.py`, and a line of settings in `tests/contract/settings.py`.

Here: the contract. Never here: a particular rule. Next: `robust/`, and `merging.py`, which runs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.alias_generators import to_camel

from cabildo_api.consensus_limits import Check, limit_of, rule_limit
from cabildo_trainer.consensus.errors import ImpossibleSetting

if TYPE_CHECKING:
    from cabildo_trainer.consensus.context import Need
    from cabildo_trainer.consensus.decision import Decision
    from cabildo_trainer.consensus.passes import Session


class Rule(ABC):
    """A rule or merge. Subclasses are frozen dataclasses."""

    name: ClassVar[str]
    """Its name in the API, in camelCase."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the context must hold."""
        return frozenset()

    @property
    def passes(self) -> int:
        """How often all inputs are read, the pass that writes included."""
        return 1

    @property
    def label(self) -> str:
        """Its name among candidates."""
        return self.name

    @property
    def named(self) -> frozenset[str]:
        """Keys of the participants that its parameters name.

        Every parameter that is a mapping goes by participant. A rule's inner rules count too.
        """
        values = [getattr(self, field.name) for field in _fields(self)]
        keys: frozenset[str] = frozenset()
        for value in values:
            if isinstance(value, dict):
                keys |= value.keys()
            for item in value if isinstance(value, tuple) else (value,):
                keys |= item.named if isinstance(item, Rule) else frozenset()
        return keys

    @property
    def trusted_rows(self) -> int:
        """Trusted models that a pass takes as rows besides the participants'."""
        return limit_of(self.name).trusted_rows

    def requirement(self, n: int, f: int) -> None:
        """Refuses an impossible n and f.

        Args:
            n: Participants.
            f: How many of them may be arbitrary.

        Raises:
            ImpossibleSetting: With the arithmetic.
        """
        require(rule_limit(self.name, n=n, f=f, trusted_rows=self.trusted_rows))

    @abstractmethod
    def decide(self, session: Session) -> Decision:
        """Decides how the output is made from the session's inputs."""

    def kappa(self, n: int, f: int) -> float | None:
        """Returns the published (f, kappa)-robustness constant, or None where there is none.

        For every set S of n - f inputs the output is within kappa times their variance of their
        mean (Allouah et al., "Fixing by mixing", AISTATS 2023, arXiv 2302.01772).
        """
        del n, f
        return None

    def parameters(self) -> dict[str, Any]:
        """Returns the parameters as JSON values, by their names in the API."""
        return {
            to_camel(field.name): _to_json(getattr(self, field.name)) for field in _fields(self)
        }


def require(check: Check) -> None:
    """Raises ImpossibleSetting with the arithmetic of a check that does not hold."""
    if not check.holds:
        raise ImpossibleSetting(check.arithmetic, remedy=check.remedy)


def _fields(rule: Any) -> tuple[Any, ...]:
    return fields(rule)


def _to_json(value: Any) -> Any:
    if hasattr(value, "parameters") and hasattr(value, "name"):
        return {"name": value.name, **value.parameters()}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    return value
