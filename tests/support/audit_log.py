"""The API server's audit log: who asked for what, and what the answer was.

Here: reading the JSON lines of one file from a position on. Never here: asking the API
server. Tests count writes with it and compare the verbs used with the verbs granted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered request; `is_denied` when no rule allows it (other refusals are not)."""

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    at: str
    is_denied: bool

    @property
    def granted_as(self) -> tuple[str, str, str]:
        """API group, resource (with its subresource) and verb, as RBAC rules name them."""
        path = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return (self.group, path, self.verb)

    @property
    def is_write(self) -> bool:
        """Whether the request could change something."""
        return self.verb in MUTATING


@dataclass(slots=True)
class AuditLog:
    """The audit log from `position` (bytes) on; reading moves the position."""

    path: Path
    position: int = 0

    @classmethod
    def from_now(cls, path: Path) -> AuditLog:
        """Return the log from its present end on."""
        return cls(path=path, position=path.stat().st_size)

    def read(self, *, user: str = "") -> Iterator[Entry]:
        """Yield the complete new entries, those of one user when it is given."""
        with self.path.open("rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.position += len(line)
                entry = _entry(line, user=user)
                if entry is not None:
                    yield entry


def _entry(line: bytes, *, user: str) -> Entry | None:
    """Decode one line; None for stages before the answer, other users and non-objects."""
    if user and user.encode() not in line:
        return None
    event = json.loads(line)
    reference = event.get("objectRef")
    started_watch = event["stage"] == "ResponseStarted" and event["verb"] == "watch"
    if reference is None or not (event["stage"] == "ResponseComplete" or started_watch):
        return None
    if user and event["user"]["username"] != user:
        return None
    return Entry(
        user=event["user"]["username"],
        verb=event["verb"],
        group=reference.get("apiGroup", ""),
        resource=reference.get("resource", ""),
        subresource=reference.get("subresource", ""),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        at=event["stageTimestamp"],
        is_denied=event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid",
    )
