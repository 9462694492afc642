"""What every model of the API is made of: aliases, rules, and "exactly one member" objects.

Here: the base classes and `Rule`, which states one constraint once and lives in two places, as CEL
in the CRD and as a check in Python. Never here: a field of a kind. Next: the modules that declare
fields (`training_job.py` and those it names), then `schema.py`, which turns all of it into a CRD.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Remedy:
    """Metadata of a bounded field: what to write instead, in place of the generated range."""

    text: str


@dataclass(frozen=True, slots=True)
class MapKey:
    """Metadata of a list of named things: the field that identifies an item."""

    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One constraint of an object, for the API server and for Python.

    Attributes:
        cel: The condition in CEL; `self` is the object.
        holds: The same condition in Python.
        message: Says field, value and remedy; `{a.b}` is replaced by the value at that JSON path.
        field: JSON path under which the API server reports it, or empty for the object itself.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str = ""

    def explain(self, model: BaseModel) -> str:
        """Returns the message with the values of `model`."""
        parts = []
        for literal, path, _, _ in Formatter().parse(self.message):
            parts.append(literal)
            if path:
                parts.append(str(_value_at(model, path)))
        return "".join(parts)


def _value_at(model: BaseModel, path: str) -> Any:
    value: Any = model
    for alias in path.split("."):
        names = {info.alias: name for name, info in type(value).model_fields.items()}
        value = getattr(value, names[alias])
    return value


class ApiModel(BaseModel):
    """A frozen object of the API: snake_case in Python, camelCase in JSON, no unknown field."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Constraints over several fields of this object."""

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise PydanticCustomError("rule", "{text}", {"text": rule.explain(self)})
        return self

    def to_object(self) -> dict[str, Any]:
        """Returns the JSON object: camelCase, nothing that is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """An object that programs write: fields of a newer version are skipped, not refused."""

    model_config = ConfigDict(extra="ignore")


class OneOf(ApiModel):
    """An object of which exactly one optional member is present.

    Members are the fields that may be `None`; other fields (such as a name) stand beside them.
    """

    @classmethod
    @functools.cache
    def members(cls) -> tuple[str, ...]:
        """Returns the Python names of the members, in the order of their declaration."""
        return tuple(name for name, info in cls.model_fields.items() if info.default is None)

    @classmethod
    def member_names(cls) -> tuple[str, ...]:
        """Returns the JSON names of the members."""
        return tuple(str(cls.model_fields[name].alias) for name in cls.members())

    @model_validator(mode="after")
    def _have_one_member(self) -> Self:
        present = [name for name in self.members() if getattr(self, name) is not None]
        if len(present) != 1:
            text = one_of_message(
                self.member_names(),
                present=tuple(str(type(self).model_fields[name].alias) for name in present),
            )
            raise PydanticCustomError("one_of", "{text}", {"text": text})
        return self

    @property
    def member(self) -> str:
        """The JSON name of the member that is present, such as `lstmAttention`."""
        for name in self.members():
            if getattr(self, name) is not None:
                return str(type(self).model_fields[name].alias)
        raise AssertionError("validated on construction")

    @property
    def choice(self) -> Any:
        """The value of the member that is present."""
        for name in self.members():
            value = getattr(self, name)
            if value is not None:
                return value
        raise AssertionError("validated on construction")


ONE_OF_NONE: Final = "has no member: write one of {members}"
ONE_OF_MANY: Final = "has the members {present}: keep exactly one of {members}"


def one_of_message(members: tuple[str, ...], *, present: tuple[str, ...]) -> str:
    """Returns what is wrong with an object that does not have exactly one member."""
    if not present:
        return ONE_OF_NONE.format(members=", ".join(members))
    return ONE_OF_MANY.format(present=", ".join(present), members=", ".join(members))


def explain_validation(error: ValidationError, *, root: str = "spec") -> str:
    """Returns pydantic's findings as one line: `spec.a.b: what is wrong; ...`."""
    findings = []
    for finding in error.errors(include_url=False, include_context=False):
        path = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in finding["loc"]
        )
        findings.append(f"{root}{path}: {finding['msg']}")
    return "; ".join(findings)
