"""Constraints in the API server's language: `x-kubernetes-validations` from rules and bounds.

Here: how a `Rule`, a range, a pattern, an "exactly one member" object or immutability is written in
CEL, each with a message that names field, value and remedy. Never here: the constraints themselves,
which stand beside their fields. Next: `structural.py`, which puts them into the schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cabildo_api.base import OneOf, Rule

Validation = dict[str, str]
SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the annotations of a field say about its value; None where nothing is said."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    remedy: str | None = None
    map_key: str | None = None

    def in_words(self) -> str:
        """Returns a numeric range as people say it, such as `from 1 to 8192`, or nothing."""
        if self.ge is not None:
            low = _number(self.ge)
            if self.le is not None:
                return f"from {low} to {_number(self.le)}"
            return f"{low} or more" + self._end_in_words(", below ")
        if self.gt is not None:
            return f"above {_number(self.gt)}" + self._end_in_words(" and below ", " and up to ")
        return self._end_in_words("below ", "up to ")

    def _end_in_words(self, below: str, up_to: str = "") -> str:
        if self.le is not None:
            return f"{up_to}{_number(self.le)}"
        return "" if self.lt is None else f"{below}{_number(self.lt)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def quoted(text: str) -> str:
    """Returns a CEL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def message_expression(template: str) -> str:
    """Returns the CEL expression of a message whose `{a.b}` are values under `self`.

    `{}` stands for `self`. The API server bounds the cost of a message by the size of its parts,
    and `string()` of a number has no bound there; `format` is not charged for its result's size.
    """
    text, values = "", []
    for literal, path, _, _ in Formatter().parse(template):
        text += literal.replace("%", "%%")
        if path is not None:
            text += "%s"
            values.append(f"dyn(self.{path})" if path else "dyn(self)")
    return f"{quoted(text)}.format([{', '.join(values)}])"


def rule_validation(rule: Rule) -> Validation:
    """Returns a rule of several fields for the API server."""
    validation = {"rule": rule.cel}
    if "{" in rule.message:
        validation["messageExpression"] = message_expression(rule.message)
    else:
        validation["message"] = rule.message
    if rule.field:
        validation["fieldPath"] = rule.field
    return validation


def range_validations(name: str, bounds: Bounds, *, number: bool) -> Iterator[Validation]:
    """Yields the rule that keeps a number in its range, if it has one."""
    limits = {">=": bounds.ge, ">": bounds.gt, "<=": bounds.le, "<": bounds.lt}
    terms = [
        f"self {sign} {float(limit) if number else int(limit)}"
        for sign, limit in limits.items()
        if limit is not None
    ]
    if terms:
        kind = "number" if number else "whole number"
        advice = bounds.remedy or f"write a {kind} {bounds.in_words()}"
        yield {
            "rule": " && ".join(terms),
            "messageExpression": message_expression(f"{name} is {{}}: {advice}"),
        }


def pattern_validations(name: str, bounds: Bounds) -> Iterator[Validation]:
    """Yields the rule that a text follows its pattern, if there is advice to give with it."""
    if bounds.pattern and bounds.remedy:
        yield {
            "rule": f"self.matches(r'{bounds.pattern}')",
            "messageExpression": message_expression(f"{name} is '{{}}': {bounds.remedy}"),
        }


def quantity_validations(name: str) -> Iterator[Validation]:
    """Yields the rule that a value is a Kubernetes quantity and not negative."""
    yield {
        "rule": (
            "type(self) == int ? self >= 0 :"
            " isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0"
        ),
        "messageExpression": message_expression(
            f"{name} has '{{}}': write a quantity that is not negative, such as 2, 500m or 1Gi"
        ),
    }


def one_of_validations(model: type[OneOf]) -> Iterator[Validation]:
    """Yields the two rules of an object with exactly one member: at least one, at most one."""
    names = model.member_names()
    present = " || ".join(f"has(self.{name})" for name in names)
    listed = ", ".join(names)
    yield {"rule": present, "message": f"has no member: write one of {listed}"}
    if len(names) > 1:
        flags = ", ".join(f"has(self.{name})" for name in names)
        found = " + ".join(f"(has(self.{name}) ? {quoted(' ' + name)} : '')" for name in names)
        yield {
            "rule": f"[{flags}].filter(x, x).size() <= 1",
            "messageExpression": (
                f"'has the members' + {found} + {quoted(': keep exactly one of ' + listed)}"
            ),
        }


def immutability(
    properties: Mapping[str, Mapping[str, Any]], *, mutable: frozenset[str]
) -> Iterator[Validation]:
    """Yields one transition rule for each field of a spec that a running job must not change.

    Args:
        properties: The spec's properties in the schema.
        mutable: JSON paths that may always change; a parent of one is compared field by field.
    """
    for path, schema in _compared(properties, mutable=mutable):
        same = f"self.{path} == oldSelf.{path}"
        if "default" not in schema and path not in {"model", "data"}:
            same = f"(has(self.{path}) ? has(oldSelf.{path}) && {same} : !has(oldSelf.{path}))"
        advice = ": set suspend: true in the same update, or a new runID to train again"
        validation = {"rule": f"self.suspend || self.runID != oldSelf.runID || {same}"}
        if schema["type"] in SCALARS and "default" in schema:
            text = quoted(f"{path} cannot change from %s to %s during a run{advice}")
            values = f"[dyn(oldSelf.{path}), dyn(self.{path})]"
            validation["messageExpression"] = f"{text}.format({values})"
        else:
            validation["message"] = f"{path} cannot change during a run{advice}"
        yield {**validation, "fieldPath": f".{path}"}


def _compared(
    properties: Mapping[str, Mapping[str, Any]], *, mutable: frozenset[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    parents = {path.split(".")[0] for path in mutable if "." in path}
    for name, schema in properties.items():
        if name in mutable:
            continue
        if name not in parents:
            yield name, schema
            continue
        for inner, inner_schema in schema["properties"].items():
            if f"{name}.{inner}" not in mutable:
                yield f"{name}.{inner}", inner_schema
