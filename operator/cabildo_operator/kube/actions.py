"""What a plan may ask for: frozen values, no I/O.

A kind's pure `plan` returns these; `writes.py` carries them out one after the other against
the API server. There is no general patch: an attempt's children are created once and never
changed, and status has a way of its own in `reconcile/loop.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """POST an object whose name is deterministic.

    An object of that name that is there already counts as success when its controlling
    owner's UID is `owner_uid`, and is a `ChildNameConflict` otherwise. With `owner_uid` empty
    (claims outlive their job) it is a conflict: observe again, and judge what is seen.
    """

    body: Body
    owner_uid: str = ""
    requires_fresh_read: bool = False
    """Read the parent uncached first and plan again when it is not the one that was observed."""

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The object's namespace."""
        return str(self.body["metadata"].get("namespace", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply over an object that was observed as ours and has drifted.

    `uid` is a precondition: an object of another UID is never written over. What does not
    exist yet is made by `Create`, which cannot take over an object of somebody else's.
    """

    body: Body
    uid: str

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.body["kind"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete exactly this object; one that is gone already, or is another by now, is success."""

    kind: str
    namespace: str
    name: str
    uid: str
    propagation: Literal["Background", "Foreground"] = "Background"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitEvent:
    """Tell a fact once, as a Kubernetes Event on the object that is reconciled.

    `fact` names the fact (say ``r1-a2``): the Event's name is made of the object, the reason
    and the fact, so telling it again, also after a crash, changes nothing.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    fact: str = ""


Action = Create | Apply | Delete | EmitEvent
