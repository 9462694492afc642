"""Reading what a server keeps between rounds: JSON of one version, member by member.

The file comes from a disk that others write to, so everything that it does not hold as it was
written is refused by name: other types, counts below their least, numbers beyond a double.

Here: the text of a record and its members. Never here: what they mean. Next: `rounds.py` and
`control_variates.py`, whose records these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.manifests.canonical_json import (
    LARGEST_INTEGER,
    BadJsonError,
    parse_strict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN: Final = 80
"""Characters of a value in a message: a damaged record may hold megabytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """The members of a record; each is asked for by the form that it must have.

    Attributes:
        members: By name.
        what: What the record is, for messages: "server's state".
        remedy: What to do without it.
    """

    members: Mapping[str, Any]
    what: str
    remedy: str

    @classmethod
    def of(cls, content: bytes, *, version: int, what: str, remedy: str) -> Record:
        """Returns the record of a text.

        Raises:
            ImpossibleSetting: It is no JSON object, or of another version.
        """
        try:
            members = parse_strict(content)
        except BadJsonError as error:
            raise ImpossibleSetting(
                f"this is no {what}: {_short(str(error))}", remedy=remedy
            ) from error
        if not isinstance(members, dict):
            raise ImpossibleSetting(
                f"this is no {what}: {type(members).__name__} instead of an object", remedy=remedy
            )
        record = cls(members=members, what=what, remedy=remedy)
        found = record.count("version")
        if found != version:
            raise ImpossibleSetting(
                f"the {what} has version {found}, not {version}",
                remedy=f"use the release that wrote it, or {remedy}",
            )
        return record

    def count(self, name: str, *, least: int = 0) -> int:
        """Returns a whole number of at least `least`."""
        value = self.members.get(name)
        if type(value) is not int or not least <= value <= LARGEST_INTEGER:
            raise self.refusal(name, value, wanted=f"a whole number >= {least}")
        return value

    def text(self, name: str) -> str:
        """Returns a text."""
        return self._text(name, self.members.get(name))

    def texts(self, name: str) -> dict[str, str]:
        """Returns texts by name."""
        values = self.mapping(name)
        return {self._text(name, key): self._text(name, item) for key, item in values.items()}

    def mapping(self, name: str) -> dict[str, Any]:
        """Returns values of any form by name."""
        value = self.members.get(name)
        if not isinstance(value, dict):
            raise self.refusal(name, value, wanted="an object")
        return value

    def refusal(self, name: str, value: object, *, wanted: str) -> ImpossibleSetting:
        """Returns the error of a member that is not what it must be."""
        shown = type(value).__name__ if isinstance(value, dict | list) else _short(ascii(value))
        return ImpossibleSetting(
            f"this is no {self.what}: {name} is {shown}, and {wanted} is needed",
            remedy=self.remedy,
        )

    def _text(self, name: str, value: object) -> str:
        # Half a surrogate pair could not be written again.
        if not isinstance(value, str) or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise self.refusal(name, value, wanted="a text")
        return value


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
