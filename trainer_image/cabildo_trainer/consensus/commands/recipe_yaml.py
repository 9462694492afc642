"""YAML that somebody else wrote, read as plain values or refused with one kind of error.

Here: reading. Never here: what the values mean. Next: `mergekit_recipes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_INTEGER: Final = 1 << 64
"""No setting has a larger one; far larger ones neither become floats nor can be printed."""


class BadYamlError(Exception):
    """It is no YAML that can be read; the message says why."""


def read_yaml(file: Path) -> Any:
    """Returns what a file holds.

    Raises:
        OSError: The file cannot be read.
        BadYamlError: It is no text, no YAML, nested too deeply, holds a value that is not what its
            form or tag says (such as the 45th day of a month), or a key twice.
    """
    try:
        # The loader is a SafeLoader.
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except OSError:
        raise
    except RecursionError as error:
        raise BadYamlError("it is nested too deeply") from error
    except Exception as error:
        # PyYAML's constructors let pass whatever int(), datetime() or a missing match raise.
        raise BadYamlError(str(error) or type(error).__name__) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last, and endless integers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        result = super().construct_mapping(node, deep=deep)
        if len(result) != len(node.value):
            raise yaml.YAMLError(f"a key stands twice{node.start_mark}")
        return result

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = int(super().construct_yaml_int(node))
        if abs(value) >= LARGEST_INTEGER:
            raise yaml.YAMLError(f"an integer of {value.bit_length()} bits{node.start_mark}")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
