"""From pydantic models to a structural OpenAPI v3 schema, as apiextensions/v1 wants it.

Here: the walk over models, their fields' annotations, defaults and docstrings. A spec gets defaults
and CEL rules; a status gets neither, because an absent field there means that nothing is known.
Never here: anything about one kind. Next: `schema.py`, which puts a kind's CRD around it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
import typing
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from cabildo_api.base import ApiModel, MapKey, OneOf, Remedy, StatusModel
from cabildo_api.cel import (
    Bounds,
    one_of_validations,
    pattern_validations,
    quantity_validations,
    range_validations,
    rule_validation,
)
from cabildo_api.quantities import QUANTITY_MAX_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Schema = dict[str, Any]

INT32_MAX: Final = 2**31 - 1
EMPTY: Final[tuple[Any, ...]] = ("", (), {}, None)
"""Defaults that are left out of the schema: an absent field parses to them anyway."""


def object_schema(model: type[ApiModel], *, description: str = "") -> Schema:
    """Returns the schema of a model with everything below it."""
    docs = field_docs(model)
    properties = {
        str(info.alias): field_schema(info, description=docs.get(name, ""), owner=model)
        for name, info in model.model_fields.items()
    }
    schema: Schema = {
        "type": "object",
        "description": _with_choice(description or class_doc(model), model),
    }
    if properties:
        schema["properties"] = properties
    required = sorted(str(f.alias) for f in model.model_fields.values() if f.is_required())
    if required:
        schema["required"] = required
    validations = [rule_validation(rule) for rule in model.rules]
    if issubclass(model, OneOf):
        validations.extend(one_of_validations(model))
    if validations:
        schema["x-kubernetes-validations"] = validations
    return schema


def _with_choice(description: str, model: type[ApiModel]) -> str:
    if not issubclass(model, OneOf):
        return description
    text = description.removesuffix(": exactly one member.").removesuffix(".")
    members = ", ".join(model.member_names())
    return f"{text}. Exactly one of: {members}."


def field_schema(info: FieldInfo, *, description: str, owner: type[ApiModel]) -> Schema:
    """Returns the schema of one field, with its default and its description."""
    strict = not issubclass(owner, StatusModel)
    bounds = bounds_of(info.metadata)
    schema = type_schema(
        info.annotation, bounds=bounds, name=str(info.alias), strict=strict, description=description
    )
    notes = []
    if strict:
        default = default_of(info)
        if isinstance(default, ApiModel):
            schema["default"] = default_object(default)
        elif default not in EMPTY:
            schema["default"] = list(default) if isinstance(default, tuple) else default
            notes.append(f"Default {_in_words(schema['default'])}.")
        if words := bounds.in_words():
            notes.append(words[0].upper() + words[1:] + ".")
    schema["description"] = " ".join([schema.get("description", description), *notes])
    return schema


def type_schema(
    annotation: Any, *, bounds: Bounds, name: str, strict: bool, description: str = ""
) -> Schema:
    """Returns the schema of a type under the bounds of its annotations."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds, annotation = bounds_of(arguments[1:], outer=bounds), arguments[0]
    elif origin in {typing.Union, types.UnionType}:
        members = [item for item in arguments if item is not type(None)]
        if len(members) > 1:
            return quantity_schema(name)
        annotation = members[0]
    elif origin is not None:
        return generic_schema(origin, arguments, bounds=bounds, name=name, strict=strict)
    elif issubclass(annotation, ApiModel):
        return object_schema(annotation, description=description)
    else:
        return scalar_schema(annotation, bounds=bounds, name=name, strict=strict)
    return type_schema(annotation, bounds=bounds, name=name, strict=strict, description=description)


def generic_schema(
    origin: Any, arguments: tuple[Any, ...], *, bounds: Bounds, name: str, strict: bool
) -> Schema:
    """Returns the schema of a list, a map or an enumeration of words."""
    if origin is typing.Literal:
        return {"type": "string", "enum": list(arguments)}
    inner = type_schema(
        arguments[0 if origin is tuple else 1], bounds=Bounds(), name=name, strict=strict
    )
    if origin is tuple:
        return list_schema(inner, bounds=bounds)
    return _sized({"type": "object", "additionalProperties": inner}, bounds, "Properties")


def scalar_schema(kind: type, *, bounds: Bounds, name: str, strict: bool) -> Schema:
    """Returns the schema of a boolean, number, time, word or text."""
    if issubclass(kind, StrEnum):
        return {"type": "string", "enum": [member.value for member in kind]}
    if kind is bool:
        return {"type": "boolean"}
    if kind in {AwareDatetime, datetime}:
        return {"type": "string", "format": "date-time"}
    if kind is str:
        validations = list(pattern_validations(name, bounds)) if strict else []
        schema = _sized({"type": "string"}, bounds, "Length")
        if validations:
            schema.pop("minLength", None)
        elif bounds.pattern:
            schema["pattern"] = bounds.pattern
        return _with_validations(schema, validations)
    if kind not in {int, float}:
        raise TypeError(f"{name} is a {kind!r}: no schema is known for it")
    number = kind is float
    schema = {"type": "number"} if number else _integer(bounds)
    return _with_validations(
        schema, list(range_validations(name, bounds, number=number)) if strict else []
    )


def _integer(bounds: Bounds) -> Schema:
    small = bounds.le is not None and bounds.le <= INT32_MAX
    return {"type": "integer", "format": "int32" if small else "int64"}


def _with_validations(schema: Schema, validations: list[dict[str, str]]) -> Schema:
    return {**schema, "x-kubernetes-validations": validations} if validations else schema


def quantity_schema(name: str) -> Schema:
    """Returns the schema of a quantity: the core API's, and not below 0."""
    return {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": QUANTITY_MAX_LENGTH,
        "x-kubernetes-int-or-string": True,
        "x-kubernetes-validations": list(quantity_validations(name)),
    }


def list_schema(items: Schema, *, bounds: Bounds) -> Schema:
    """Returns the schema of a list: a map by key where one is named, else atomic."""
    schema = _sized({"type": "array", "items": items}, bounds, "Items")
    if bounds.map_key is None:
        schema["x-kubernetes-list-type"] = "atomic"
    else:
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = [bounds.map_key]
    return schema


def _sized(schema: Schema, bounds: Bounds, what: str) -> Schema:
    if bounds.min_length is not None:
        schema[f"min{what}"] = bounds.min_length
    if bounds.max_length is not None:
        schema[f"max{what}"] = bounds.max_length
    return schema


def bounds_of(metadata: Iterable[Any], *, outer: Bounds | None = None) -> Bounds:
    """Returns what annotations say about a value; `outer` holds what was said further out."""
    said = {name: getattr(outer, name) for name in Bounds.__slots__} if outer else {}
    for item in metadata:
        inner = item.metadata if isinstance(item, FieldInfo) else [item]
        for mark in inner:
            said.update(_said_by(mark))
    return Bounds(**said)


def _said_by(mark: object) -> Mapping[str, Any]:
    if isinstance(mark, Remedy):
        return {"remedy": mark.text}
    if isinstance(mark, MapKey):
        return {"map_key": mark.name}
    names = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
    values = {name: getattr(mark, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def default_of(info: FieldInfo) -> Any:
    """Returns a field's default value, or None where it has none."""
    return None if info.is_required() else info.get_default(call_default_factory=True)


def default_object(value: ApiModel) -> Schema:
    """Returns an object as JSON, with all that defaults below it and nothing that is empty.

    The API server judges a default by the rules of its object before the defaults below it are
    filled in, so it must be complete by itself.
    """
    written: Schema = {}
    for name, info in type(value).model_fields.items():
        item = getattr(value, name)
        if isinstance(item, ApiModel):
            written[str(info.alias)] = default_object(item)
        elif item not in EMPTY:
            written[str(info.alias)] = list(item) if isinstance(item, tuple) else item
    return written


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else str(value)


def class_doc(model: type) -> str:
    """Returns a class's docstring as one paragraph."""
    return " ".join((inspect.getdoc(model) or "").split())


def field_docs(model: type[ApiModel]) -> dict[str, str]:
    """Returns the docstring under each field of a model, base classes included."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, ApiModel):
            docs.update(_own_docs(base))
    return docs


def _own_docs(model: type) -> dict[str, str]:
    body = _classes(model.__module__)[model.__name__].body
    docs = {}
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The class definitions of a module by name; inspect would parse it anew for each class."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
