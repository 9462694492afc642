"""All rules by name: the one list that the API, the command line and the contract tests read.

Here: the registry and the way from JSON parameters to a rule. Never here: a rule. Next: `merging.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.robust.columns import MeanAroundMedian, Median, TrimmedMean
from cabildo_trainer.consensus.robust.krum import Krum, MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.rule import Rule

RULES: Final[tuple[type[Rule], ...]] = (
    WeightedMean,
    Median,
    TrimmedMean,
    MeanAroundMedian,
    Krum,
    MultiKrum,
)
by_name: Final[Mapping[str, type[Rule]]] = MappingProxyType({rule.name: rule for rule in RULES})


def rule_from_parameters(name: str, parameters: Mapping[str, Any]) -> Rule:
    """Returns the rule of a name with parameters as in the API (camelCase).

    A parameter that is a rule itself is written as an object with `name` and its parameters.

    Raises:
        ImpossibleSetting: The name or a parameter is unknown, or a value does not fit.
    """
    rule = by_name.get(name)
    if rule is None:
        raise ImpossibleSetting(
            f"no rule is called {name!r}", remedy=f"use one of {', '.join(sorted(by_name))}"
        )
    return rule(**_values(rule, parameters, path=name))


def _values(kind: type[Any], parameters: Mapping[str, Any], *, path: str) -> dict[str, Any]:
    hints = get_type_hints(kind)
    known = {to_camel(field.name): field.name for field in fields(kind)}
    values = {}
    for name, value in parameters.items():
        if name not in known:
            have = ", ".join(sorted(known)) or "none"
            raise ImpossibleSetting(
                f"{path} has no parameter {name!r}", remedy=f"its parameters: {have}"
            )
        values[known[name]] = _value(hints[known[name]], value, path=f"{path}.{name}")
    return values


def _value(hint: Any, value: Any, *, path: str) -> Any:
    if isinstance(value, Mapping) and "name" in value:
        inner = {key: item for key, item in value.items() if key != "name"}
        return rule_from_parameters(str(value["name"]), inner)
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return tuple(_value(hint, item, path=f"{path}[{i}]") for i, item in enumerate(value))
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        raise ImpossibleSetting(f"{path} = {value!r}: {finding['msg']}") from error
