"""From a watched object to the store and the queue.

kopf hands over decoded JSON; what is kept is the partial struct with spec and status as bytes, a
tenth of the size. Called from `server.py` for every event of a TrainingJob.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from cabildo_operator.kube.objects import CustomResource
from cabildo_operator.kube.store import ObjectKey, Store, key_of, version_of

UNREAD: Final = frozenset({"managedFields", "annotations"})


class Intake:
    """Puts objects into the store and their keys into the queue."""

    def __init__(
        self,
        store: Store[CustomResource],
        *,
        wake: Callable[[ObjectKey], None],
        gone: Callable[[CustomResource], None],
    ) -> None:
        self._store = store
        self._wake = wake
        self._gone = gone

    def take(self, event_type: str | None, obj: Mapping[str, Any]) -> None:
        """Take in one event."""
        resource = decode(obj)
        if event_type == "DELETED":
            self._store.delete(resource)
            self._gone(resource)
        else:
            before = self._store.upsert(resource)
            if before is not None and version_of(before) >= version_of(resource):
                # The echo of an own status write: its answer is in the store already.
                return
        self._wake(key_of(resource))


def decode(obj: Mapping[str, Any]) -> CustomResource:
    """The partial struct of an object given as decoded JSON."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in UNREAD}
    kept = {
        "metadata": metadata,
        "spec": obj.get("spec") or {},
        "status": obj.get("status") or {},
    }
    return msgspec.json.decode(msgspec.json.encode(kept), type=CustomResource)
