"""All rules by name: the one list that the API, the command line and the contract tests read.

Here: the registry and the way from JSON parameters to a rule. Never here: a rule. Next:
`merging.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.merges.gradient_soups import LearnedSoup, SimplexWeights
from cabildo_trainer.consensus.merges.model_stock import ModelStock
from cabildo_trainer.consensus.merges.sce import Sce
from cabildo_trainer.consensus.merges.soups import (
    GreedySoup,
    IncrementalSoup,
    UniformSoup,
    WeightedSoup,
)
from cabildo_trainer.consensus.merges.spherical import MultiSlerp, Slerp
from cabildo_trainer.consensus.merges.statistics import Fisher, RegMean
from cabildo_trainer.consensus.merges.task_vectors import (
    Breadcrumbs,
    Dare,
    Della,
    TaskArithmetic,
    Ties,
)
from cabildo_trainer.consensus.privacy.dp_fed_avg import DpFedAvg
from cabildo_trainer.consensus.robust.bulyan import Bulyan
from cabildo_trainer.consensus.robust.centered_clipping import CenteredClipping
from cabildo_trainer.consensus.robust.choice import Auto
from cabildo_trainer.consensus.robust.columns import MeanAroundMedian, Median, TrimmedMean
from cabildo_trainer.consensus.robust.filtering import CovarianceFilter
from cabildo_trainer.consensus.robust.geometric_median import GeometricMedian
from cabildo_trainer.consensus.robust.krum import Krum, MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.robust.mixing import (
    AdaptiveClip,
    Bucketing,
    NearestNeighbourMixing,
    NormClip,
)
from cabildo_trainer.consensus.robust.subsets import MinimumDiameter, SmallestEigenvalue
from cabildo_trainer.consensus.robust.trusted import FlTrust, Monna, Zeno
from cabildo_trainer.consensus.rule import Rule

RULES: Final[tuple[type[Rule], ...]] = (
    WeightedMean,
    Median,
    TrimmedMean,
    MeanAroundMedian,
    Krum,
    MultiKrum,
    Bulyan,
    GeometricMedian,
    CenteredClipping,
    MinimumDiameter,
    SmallestEigenvalue,
    CovarianceFilter,
    Monna,
    NearestNeighbourMixing,
    Bucketing,
    NormClip,
    AdaptiveClip,
    FlTrust,
    Zeno,
    Auto,
    UniformSoup,
    WeightedSoup,
    GreedySoup,
    IncrementalSoup,
    LearnedSoup,
    SimplexWeights,
    TaskArithmetic,
    Ties,
    Dare,
    Della,
    Breadcrumbs,
    Sce,
    Slerp,
    MultiSlerp,
    ModelStock,
    Fisher,
    RegMean,
    DpFedAvg,
)
"""A new rule is a line here, and a line of settings in `tests/contract/settings.py`."""
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
    if hint is Rule:
        return _rule(value, path=path)
    if get_origin(hint) is tuple and get_args(hint)[0] is Rule:
        if not isinstance(value, list | tuple):
            raise ImpossibleSetting(
                f"{path} = {value!r} is no list", remedy="write a list of rules: [median, krum]"
            )
        return tuple(_rule(item, path=f"{path}[{index}]") for index, item in enumerate(value))
    try:
        given = TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        raise ImpossibleSetting(f"{path} = {value!r}: {finding['msg']}") from error
    if not _is_finite(given):
        raise ImpossibleSetting(
            f"{path} = {value!r} is not finite", remedy="give a finite number, or leave it out"
        )
    return given


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _rule(value: Any, *, path: str) -> Rule:
    if isinstance(value, str):
        return rule_from_parameters(value, {})
    if not isinstance(value, Mapping) or "name" not in value:
        raise ImpossibleSetting(
            f"{path} = {value!r} is no rule", remedy="write {name: trimmedMean, ...}"
        )
    inner = {key: item for key, item in value.items() if key != "name"}
    return rule_from_parameters(str(value["name"]), inner)
